"""How near do training and inference come to what the machine can multiply? On a CPU or on a CUDA card.

    OMP_NUM_THREADS=2 python benchmarks/throughput.py            # all cells of this device not there yet
    python benchmarks/throughput.py --networks SmallCNN --again  # measure these anew
    python benchmarks/throughput.py --table                      # the tables of all results, as Markdown

Pixels and labels are random: no data is needed. A cell is a network, a shape of its rows, a batch size, a
precision and a kind of device. In each, these do the same work in turn, A B C A B C:

- ``net``: ``Net.partial_fit`` of rows that lie on the device, with the augmentation the library gives images
  by default, and ``Net.evaluate``, 1,000 rows a batch, to numpy: what users get and pay for;
- ``unaugmented``: the same training without augmentation;
- ``compiled``: ``net`` with ``compile=True`` (``--compile``);
- ``bare``: forward, backward and step of SGD over batches that lie ready on the device, nothing else; and
  forward alone, whose outputs nobody reads.

Above them stands a bound: the rate of the fastest of some large matrix products and a large convolution,
measured just before in the same precision by the same threads, divided by the FLOPs of a row. These are
counted on the network itself, in convolutions and matrix products alone. In float32, torch lets convolutions
on CUDA use TF32, but not matrix products: the bound is then that of the convolution.

How many rows a timing takes follows from a first look at a batch. Seconds are medians, ratios medians of the
ratios of a round. In bfloat16 inference is in bfloat16, too, though ``Net`` would first ask whether it ranks
rows as float32 does; rows of chance have no ranking to keep. Results go to ``results/throughput.jsonl``, a
cell a line; a cell measured again takes the place of the older one. One precision takes about 8 minutes on
two cores.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from audit import machine
from speed import EPOCHS, in_turn, net_of, seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from noisefilter import Net
from noisefilter.augment import default_augmentation
from noisefilter.batches import ArrayRows, choose_device
from noisefilter.net import _EVAL_BATCH
from noisefilter.networks import (
    MLP,
    PreActResNet18,
    SevenLayerCNN,
    SmallCNN,
    TorchvisionClassifier,
    WideResNet28_2,
    network_arguments,
)

RESULTS = Path(__file__).parent / "results" / "throughput.jsonl"
NAMES = ("network", "shape", "batch_size", "precision", "device")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TITLES = {"bare": "bare", "net": "Net", "unaugmented": "unaugmented", "compiled": "compiled"}
CLASSES = 10
LR = 1e-4  # so small that labels of chance blow nothing up
MOST = 100  # batches of an epoch: 12,800 rows
LOOK = 0.1  # seconds
# Sides of the products, and images of the convolution: 256 channels to 256, 3x3, of 32x32 pixels.
LARGE = {"cpu": ((1024, 2048), 8), "cuda": ((8192, 16384), 256)}
# FLOP/s, dense, of bfloat16, by the names the driver gives the cards; the same GPU in another form is slower.
PUBLISHED = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12} | dict.fromkeys(
    ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"),
    312e12,
)


class Network(NamedTuple):
    """A network, the shape of its rows, and what its class wants to know beside sizes."""

    kind: type[nn.Module]
    shape: tuple[int, ...]
    options: dict[str, Any]

    def arguments(self) -> dict[str, Any]:
        """All that the class is called with."""
        return network_arguments(self.kind, self.shape, CLASSES) | self.options

    def build(self) -> nn.Module:
        """Return one as :class:`Net` has it, with its weights channels-last."""
        return self.kind(**self.arguments()).to(memory_format=torch.channels_last)


NETWORKS = {
    kind.__name__: Network(kind, (3, 32, 32), {})
    for kind in (SmallCNN, SevenLayerCNN, PreActResNet18, WideResNet28_2)
} | {
    "MLP": Network(MLP, (512,), {}),
    "resnet18": Network(TorchvisionClassifier, (3, 64, 64), {"name": "resnet18"}),
}


class Effort(NamedTuple):
    """How much is measured."""

    seconds: float  # of a timing, about
    repeats: int
    rows: int | None = None  # of an epoch, instead of what the seconds allow
    compiled: bool = False


# --- what decides ---------------------------------------------------------------------------------


def counted(run: Callable[[], Any]) -> int:
    """Run, and count the FLOPs of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def flops(module: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return the FLOPs of a row forward, and forward and backward, for at least two rows ``x``."""
    with torch.no_grad():
        forward = counted(lambda: module.eval()(x))
    both = counted(lambda: module.train()(x).sum().backward())
    return forward / len(x), both / len(x)


def portions(n_batches: int, batches: int | None = None) -> tuple[int, int]:
    """Split so many batches into passes over the same rows; returns batches of a pass, and passes.

    What is paid once a training should weigh as little as in a real one, so there are some passes.
    """
    batches = batches or min(MOST, max(1, n_batches // EPOCHS))
    return batches, max(1, n_batches // batches)


def key(record: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a cell one cell."""
    return tuple(tuple(v) if isinstance(v, list) else v for v in (record[name] for name in NAMES))


def replaced(records: list[dict[str, Any]], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records with this one, the newest, at the end, and no other of its cell."""
    return [r for r in records if key(r) != key(record)] + [record]


def wanted(
    networks: list[str], side: int | None, batch_sizes: list[int], precisions: list[str], device: str
) -> list[dict[str, Any]]:
    """Return the cells asked for; ``side`` is that of all images."""
    cells = []
    for name, batch_size, precision in product(networks, batch_sizes, precisions):
        shape = NETWORKS[name].shape
        shape = shape if side is None or len(shape) == 1 else (shape[0], side, side)
        cells.append(dict(zip(NAMES, (name, shape, batch_size, precision, device), strict=True)))
    return cells


def rate(record: dict[str, Any], part: str, name: str) -> float:
    """Rows a second of one of those measured, in training or inference."""
    found = record[part]
    return found["rows"] * found["passes"] / found[f"{name}_seconds"]


def bound(record: dict[str, Any], part: str) -> float:
    """Rows a second were all FLOPs done at the rate of large products."""
    return record["matrix_rate"] / record[f"{part}_flops"]


# --- measuring ------------------------------------------------------------------------------------


def finished(run: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """Let a run end when the device has done what it was asked to."""

    def to_the_end() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return to_the_end


def fastest(run: Callable[[], Any], device: torch.device, least: float) -> float:
    """Shortest time of a run after a warm-up, of as many as take so many seconds."""
    timed = finished(run, device)
    timed()
    times = [seconds(timed)]
    while sum(times) < least:
        times.append(seconds(timed))
    return min(times)


def large(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], Tensor]]:
    """Yield what the machine should be fastest at."""
    sides, images = LARGE[device.type]
    for side in sides:
        yield partial(torch.mm, *torch.randn(2, side, side, device=device).to(dtype))
    x = torch.randn(images, 256, 32, 32, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
    yield partial(nn.functional.conv2d, x, weight, padding=1)


def matrix_rate(device: torch.device, dtype: torch.dtype, least: float) -> float:
    """Return the FLOP/s of the fastest large product or convolution."""
    return max(counted(run) / fastest(run, device, least) for run in large(device, dtype))


def random_rows(shape: tuple[int, ...], n: int, device: torch.device) -> tuple[ArrayRows, Any]:
    """Return rows of chance on the device, images as bytes, and their classes."""
    generator = torch.Generator(device).manual_seed(0)
    y = np.random.default_rng(0).integers(0, CLASSES, n)
    y[-1] = CLASSES - 1  # so that all are there
    if len(shape) == 1:
        return ArrayRows(torch.randn(n, *shape, generator=generator, device=device)), y
    pixels = torch.randint(
        256, (n, *shape[1:], shape[0]), generator=generator, device=device, dtype=torch.uint8
    )
    return ArrayRows(pixels, images=True), y


def whole(rows: ArrayRows) -> Tensor:
    """Return all rows as a network sees them, not copied."""
    return rows.data.permute(0, 3, 1, 2) if rows.images else rows.data


def bare_training(module: nn.Module, x: Tensor, y: Tensor, batch_size: int, epochs: int, half: bool) -> None:
    """Train over batches that lie ready."""
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batches = list(zip(x.split(batch_size), y.split(batch_size), strict=True))
    module.train()
    for _ in range(epochs):
        for batch, target in batches:
            optimizer.zero_grad()
            with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
                output = module(batch)
            nn.functional.cross_entropy(output.float(), target).backward()
            optimizer.step()


def bare_inference(module: nn.Module, x: Tensor, passes: int, half: bool) -> None:
    """Run batches that lie ready through the network."""
    module.eval()
    with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        for _ in range(passes):
            for batch in x.split(_EVAL_BATCH):
                module(batch)


def made(network: Network, cell: dict[str, Any], device: torch.device, **options: Any) -> Net:
    """Return a Net of the cell's network and precision."""
    arguments = {f"module__{name}": value for name, value in network.arguments().items()}
    options = {"augment": default_augmentation(network.shape), "precision": cell["precision"]} | options
    net = net_of(network.kind, device=str(device), **options, **arguments)
    return net.set_params(batch_size=cell["batch_size"], lr=LR)


def nets(network: Network, cell: dict[str, Any], device: torch.device, effort: Effort) -> dict[str, Net]:
    """Return what stands beside the bare loop."""
    found = {"net": made(network, cell, device)}
    if found["net"].augment is not None:
        found["unaugmented"] = made(network, cell, device, augment=None)
    if effort.compiled:
        torch.compiler.reset()  # networks share their forward, and torch compiles a function 8 times at most
        found["compiled"] = made(network, cell, device, compile=True)
    return found


def training(
    network: Network, cell: dict[str, Any], device: torch.device, effort: Effort, beside: dict[str, Net]
) -> dict[str, Any]:
    """Time training."""
    size, half = cell["batch_size"], cell["precision"] == "bfloat16"
    module = network.build().to(device)

    def bare(rows: ArrayRows, y: Any, epochs: int) -> Callable[[], None]:
        target = torch.from_numpy(y).to(device)
        return partial(bare_training, module, whole(rows), target, size, epochs, half)

    look = fastest(bare(*random_rows(network.shape, size, device), 1), device, LOOK)
    n_batches = max(1, round(effort.seconds / look))
    batches, epochs = portions(n_batches, effort.rows and math.ceil(effort.rows / size))
    rows, y = random_rows(network.shape, batches * size, device)
    runs = {"bare": bare(rows, y, epochs)}
    for name, net in beside.items():
        runs[name] = partial(net.set_params(max_epochs=epochs).partial_fit, rows, y)
    found = in_turn({name: finished(run, device) for name, run in runs.items()}, effort.repeats)
    return found | {"rows": len(rows), "passes": epochs}


def inference(
    network: Network, cell: dict[str, Any], device: torch.device, effort: Effort, beside: dict[str, Net]
) -> dict[str, Any]:
    """Time inference of nets that are trained."""
    half = cell["precision"] == "bfloat16"
    module = network.build().to(device)
    first = whole(random_rows(network.shape, _EVAL_BATCH, device)[0])
    look = fastest(partial(bare_inference, module, first, 1, half), device, LOOK)
    n_batches = max(1, round(effort.seconds / look))
    batches, passes = portions(n_batches, effort.rows and math.ceil(effort.rows / _EVAL_BATCH))
    rows, _ = random_rows(network.shape, batches * _EVAL_BATCH, device)

    def evaluate(net: Net) -> None:
        net.bfloat16_inference_ = half
        for _ in range(passes):
            net.evaluate(rows)

    runs: dict[str, Callable[[], None]] = {"bare": partial(bare_inference, module, whole(rows), passes, half)}
    runs |= {name: partial(evaluate, net) for name, net in beside.items() if name != "unaugmented"}
    found = in_turn({name: finished(run, device) for name, run in runs.items()}, effort.repeats)
    return found | {"rows": len(rows), "passes": passes}


def has_bfloat16(device: torch.device) -> bool:
    """Whether the library would use bfloat16 here for a network that gains by it, as the small CNN does."""
    return made(NETWORKS["SmallCNN"], {"precision": "auto", "batch_size": 1}, device)._half_training()


def run_cell(cell: dict[str, Any], device: torch.device, effort: Effort) -> dict[str, Any]:
    """Measure one cell."""
    network = NETWORKS[cell["network"]]._replace(shape=cell["shape"])
    forward, both = flops(network.build(), whole(random_rows(cell["shape"], 2, torch.device("cpu"))[0]))
    found: dict[str, Any] = {
        "repeats": effort.repeats,
        "default": made(network, cell | {"precision": "auto"}, device)._half_training()
        == (cell["precision"] == "bfloat16"),
        "inference_flops": forward,
        "training_flops": both,
        "matrix_rate": matrix_rate(device, PRECISIONS[cell["precision"]], effort.seconds / 4),
        "published_rate": None,
    }
    if device.type == "cuda" and cell["precision"] == "bfloat16":
        found["published_rate"] = PUBLISHED.get(torch.cuda.get_device_name(device))
    beside = nets(network, cell, device, effort)
    found["training"] = training(network, cell, device, effort, beside)
    found["inference"] = inference(network, cell, device, effort, beside)
    return cell | found | machine()


# --- the tables -----------------------------------------------------------------------------------


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def shown(record: dict[str, Any], part: str, name: str) -> list[str]:
    """Render rows a second, their share of the bound and of the bare loop's; blanks where there are none."""
    found = record[part]
    if f"{name}_seconds" not in found:
        return ["", "", ""]
    reached = rate(record, part, name)
    cells = [f"{reached:,.0f}", f"{reached / bound(record, part):.1%}"]
    return cells if name == "bare" else [*cells, f"{1 / found[f'{name}_over_bare']:.2f}"]


def table(records: list[dict[str, Any]], part: str) -> str:
    """Render training or inference."""
    names = [name for name in TITLES if any(f"{name}_seconds" in r[part] for r in records)]
    heads = ["network", "row", "batch", "device", "precision", "GFLOP a row", "bound"]
    for name in names:
        title = TITLES[name]
        heads += [title, f"{title} / bound"] + [f"{title} / bare"] * (name != "bare")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for r in records:
        precision = r["precision"] + " (default)" * r["default"]
        batch = r["batch_size"] if part == "training" else _EVAL_BATCH
        cells = [r["network"], "x".join(map(str, r["shape"])), str(batch), r["device"], precision]
        cells += [f"{r[f'{part}_flops'] / 1e9:.3g}", f"{bound(r, part):,.0f}"]
        lines.append("| " + " | ".join(cells + [c for name in names for c in shown(r, part, name)]) + " |")
    return "\n".join(lines)


def rates(records: list[dict[str, Any]]) -> str:
    """Say how fast large products were, and what is published."""
    parts = []
    for device, precision in dict.fromkeys((r["device"], r["precision"]) for r in records):
        mine = [r for r in records if (r["device"], r["precision"]) == (device, precision)]
        found = sorted(r["matrix_rate"] / 1e12 for r in mine)
        text = f"{device} {precision} {found[0]:.3g} to {found[-1]:.3g}"
        published = {f"{r['published_rate'] / 1e12:g}" for r in mine if r["published_rate"]}
        parts.append(text + (f" (published, dense: {' and '.join(sorted(published))})" if published else ""))
    return f"Large products, in TFLOP/s, over the cells: {'; '.join(parts)}."


def tables() -> str:
    """Render everything."""
    order = list(NETWORKS)
    records = sorted(
        done(),
        key=lambda r: (order.index(r["network"]), r["shape"], r["device"], r["precision"], r["batch_size"]),
    )
    return "\n\n".join([
        "Training, rows a second:", table(records, "training"),
        "Inference, rows a second:", table(records, "inference"), rates(records),
    ])  # fmt: skip


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), help="all the device has")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128], help="of training")
    parser.add_argument("--side", type=int, help="pixels of a side of all images")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--rows", type=int, help="of an epoch; as many as make a few seconds by default")
    parser.add_argument("--seconds", type=float, default=2.5, help="of a timing, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="time Net with compile=True as well")
    parser.add_argument("--quick", action="store_true", help="each once, as short as can be; nothing written")
    parser.add_argument("--again", action="store_true", help="also cells that are there")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Run what is missing."""
    args = parsed()
    if args.table:
        print(tables())
        return
    torch.set_num_threads(machine()["threads"])
    device = choose_device(args.device)
    effort = Effort(0.05, 1) if args.quick else Effort(args.seconds, args.repeats)
    effort = effort._replace(rows=args.rows, compiled=args.compile)
    precisions = args.precisions or list(PRECISIONS)[: 1 + has_bfloat16(device)]
    there = set() if args.again or args.quick else {key(record) for record in done()}
    for cell in wanted(args.networks, args.side, args.batch_sizes, precisions, device.type):
        if key(cell) in there:
            continue
        record = run_cell(cell, device, effort)
        if not args.quick:
            lines = (json.dumps(r) + "\n" for r in replaced(done(), record))
            RESULTS.write_text("".join(lines))
        print(*(table([record], part) for part in ("training", "inference")), sep="\n", flush=True)


if __name__ == "__main__":
    main()
