"""How long is an epoch of DivideMix? Beside its passes run bare, and beside the authors' code.

    OMP_NUM_THREADS=1 python benchmarks/epoch.py --data DIR --authors DIR [--repeats 3]

The data folder holds ``cifar10.npz`` (see audit.py), that of the authors a copy of
github.com/LiJunnan1992/DivideMix, which is repaired in memory; without it the others run alone. Three things
do the same work in turn, A B C A B C, in one process and thread, on the same images and labels, by the same
division, which believes half of them:

- ``ours``: an epoch of DivideMixClassifier after the warm-up, all of it: the mixtures that divide (then the
  fixed division is put in their place), MixMatch of both networks, moving averages, the look at all rows.
- ``bare``: what the method must pay, 2 n_L (6 F + 4 T) + 2 N F: per labeled row and network six rows forward,
  in evaluation mode, and four forward and backward; and one forward per row and network for the division.
  Batches are as large as ours, of tensors that lie ready; no augmentation, no mixing, no optimizer.
- ``authors``: their ``eval_train`` and ``train`` of both networks, in float32, as theirs knows nothing else,
  the guesses with the network in training mode. Loaders are made before the clock starts. The small network
  is put in the place of theirs; PreActResNet18 is their own.

The first round is not timed but counted: rows through the networks, without and with a gradient. Seconds and
ratios are medians over the rounds after it. Where other work runs beside it the processor's seconds are the
ones to read. Results go to ``results/epoch.json``.
"""

from __future__ import annotations

import argparse
import ast
import copy
import io
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from audit import machine
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.data.dataloader import _BaseDataLoaderIter

from noisefilter import DivideMixClassifier, plant_noise
from noisefilter.batches import ArrayRows
from noisefilter.cotraining import Division
from noisefilter.networks import PreActResNet18, SmallCNN
from noisefilter.progress import Progress

RESULTS = Path(__file__).parent / "results" / "epoch.json"
# Half of the rows make full batches. On a CPU PreActResNet18 is in float32 by default.
CELLS = ((SmallCNN, 10_240, "float32"), (SmallCNN, 10_240, "auto"), (PreActResNet18, 384, "auto"))
LABELED, LOOKED = 64, 1000  # rows of a batch: labeled ones of a step, all in a look
PROBA = 0.9  # that a label believed is right
PAIRS = (("ours", "bare"), ("authors", "ours"))
COLUMNS = ("ours", "bare", "authors", *(" / ".join(pair) for pair in PAIRS))


def ours(X: Any, y: Any, labeled: Any, network: type[nn.Module], precision: str) -> tuple[Any, Any]:
    """Return a DivideMix behind its warm-up, and what runs its next epoch."""
    trainer = DivideMixClassifier(
        network=network, max_epochs=1000, batch_size=2 * LABELED, warmup_epochs=1, probes=0.0
    )
    rows = ArrayRows(torch.from_numpy(X), images=True)
    run = trainer._begin(rows, y, 10, None, None, np.random.RandomState(0))
    for net in run.nets:
        net.precision = precision
    divided = run.divided

    def fixed(which: int) -> Division:
        divided(which)
        return Division(np.full(len(X), PROBA), labeled)

    run.divided = fixed  # type: ignore[method-assign]

    def epoch() -> None:
        with Progress("", 1, False) as bar:
            run.run_epoch(run.n_epochs_seen, bar)

    epoch()
    return run, epoch


def bare(modules: list[nn.Module], X: Any, y: Any, n_labeled: int, half: bool) -> Callable[[], None]:
    """Return what runs the passes of an epoch and nothing else."""
    pixels = ArrayRows(torch.from_numpy(X), images=True).take(torch.arange(min(LOOKED, len(X))))
    views, guessed = pixels[: 4 * LABELED], pixels[: 2 * LABELED]
    mixed, target = views.float(), torch.from_numpy(y[: 4 * LABELED])

    def forward(module: nn.Module, x: torch.Tensor) -> None:
        module.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            module(x)

    def trained(module: nn.Module) -> None:
        module.train()
        module.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = module(mixed)
        nn.functional.cross_entropy(output.float(), target).backward()

    def epoch() -> None:
        for module, peer in (modules, modules[::-1]):
            for _ in range(n_labeled // LABELED):
                forward(module, views)
                forward(peer, guessed)
                trained(module)
        for module in modules:
            for start in range(0, len(X), LOOKED):
                forward(module, pixels[: len(X) - start])

    return epoch


# --- the authors' code ----------------------------------------------------------------------------


@contextmanager
def as_in_2020(folder: Path, home: Path) -> Iterator[None]:
    """Let scripts for a GPU and the torch of 2020 run in `home`, silently, on a CPU and today's torch."""
    meter: Any = ModuleType("torchnet.meter")
    meter.AUCMeter = NoMeter
    modules = {"torchnet": ModuleType("torchnet"), "torchnet.meter": meter}
    with (
        chdir(home),
        redirect_stdout(io.StringIO()),
        patch.dict(sys.modules, modules),
        patch.object(sys, "argv", ["Train_cifar.py", "--batch_size", str(LABELED)]),
        patch.object(sys, "path", [str(folder), *sys.path]),
        patch.object(torch.cuda, "set_device", lambda number: None),
        patch.object(torch.Tensor, "cuda", lambda self: self),
        patch.object(nn.Module, "cuda", lambda self: self),
        patch.object(_BaseDataLoaderIter, "next", _BaseDataLoaderIter.__next__, create=True),
    ):
        yield


class NoMeter:
    """In place of torchnet's: an AUC that nobody here reads."""

    def reset(self) -> None: ...

    def add(self, *values: Any) -> None: ...

    def value(self) -> tuple[float, float, float]:
        return np.nan, np.nan, np.nan


def loaded(path: Path, n: int, name: str) -> ModuleType:
    """Run a script of theirs without its loop over epochs, for n rows and without worker processes."""
    source = path.read_text().replace("50000", str(n)).replace("num_workers=5", "num_workers=0")
    tree = ast.parse(source)
    tree.body = [part for part in tree.body if not isinstance(part, ast.For)]
    module = ModuleType(name)
    exec(compile(tree, str(path), "exec"), module.__dict__)
    return module


def write_cifar(home: Path, X: Any, truth: Any, y: Any) -> None:
    """Write images and labels as their loader wants them."""
    (home / "checkpoint").mkdir()
    (home / "cifar-10").mkdir()
    flat = X.transpose(0, 3, 1, 2).reshape(len(X), -1)
    for k, part in enumerate(np.array_split(np.arange(len(X)), 5), start=1):
        batch = {"data": flat[part], "labels": truth[part].tolist()}
        (home / "cifar-10" / f"data_batch_{k}").write_bytes(pickle.dumps(batch))
    (home / "cifar-10" / "0.5_sym.json").write_text(json.dumps(y.tolist()))


def authors(
    folder: Path, home: Path, images: tuple[Any, Any, Any], labeled: Any, network: type[nn.Module]
) -> Callable[[], None]:
    """Return what runs an epoch of theirs."""
    n = len(labeled)
    write_cifar(home, *images)
    with as_in_2020(folder, home):
        nets: Any = loaded(folder / "PreResNet.py", n, "PreResNet")
        if network is not PreActResNet18:
            nets.ResNet18 = lambda num_classes: network(3, num_classes)
        data = loaded(folder / "dataloader_cifar.py", n, "dataloader_cifar")
        with patch.dict(sys.modules, {"PreResNet": nets, "dataloader_cifar": data}):
            script: Any = loaded(folder / "Train_cifar.py", n, "Train_cifar")
        script.eval_loader = script.loader.run("eval_train")
        loaders = script.loader.run("train", labeled, np.full(n, PROBA))

    def epoch() -> None:
        with as_in_2020(folder, home):
            both = (script.net1, script.optimizer1), (script.net2, script.optimizer2)
            for which, (net, _) in enumerate(both):
                script.eval_train(net, script.all_loss[which])
            for (net, optimizer), (peer, _) in (both, both[::-1]):
                script.train(script.warm_up + 1, net, peer, optimizer, *loaders)

    return epoch


# --- measuring ------------------------------------------------------------------------------------


def counted(run: Callable[[], None]) -> dict[str, int]:
    """Run, and count the rows that go through whole networks."""
    rows = {"forward": 0, "trained": 0}

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, SmallCNN | PreActResNet18) or type(module).__name__ == "ResNet":
            rows["trained" if torch.is_grad_enabled() else "forward"] += len(output)

    hook = register_module_forward_hook(count)
    try:
        run()
    finally:
        hook.remove()
    return rows


def cost(run: Callable[[], None]) -> tuple[float, float]:
    """Return seconds by the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_turn(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, Any]:
    """Count a round, then time some: seconds by the clock and of the processor, (repeats, 2)."""
    found: dict[str, Any] = {name: counted(run) | {"seconds": []} for name, run in runs.items()}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name]["seconds"].append(cost(run))
    return found


def cell(
    data: Path, folder: Path | None, repeats: int, network: type[nn.Module], n: int, precision: str
) -> dict[str, Any]:
    """Measure one network at one precision."""
    with np.load(data / "cifar10.npz") as archive:
        X, truth = archive["X_train"][:n].copy(), archive["y_train"][:n].astype(np.int64)
    y = plant_noise(truth, "symmetric", 0.5, random_state=0)[0]
    labeled = np.random.default_rng(0).permutation(n) < n // 2
    run, epoch = ours(X, y, labeled, network, precision)
    half = run.nets[0]._half_training()
    modules = [copy.deepcopy(net.module_) for net in run.nets]
    runs = {"ours": epoch, "bare": bare(modules, X, y, n // 2, half)}
    with tempfile.TemporaryDirectory() as home:
        if folder is not None:
            runs["authors"] = authors(folder.resolve(), Path(home), (X, truth, y), labeled, network)
        found = in_turn(runs, repeats)
    about = {"network": network.__name__, "bfloat16": half, "rows": n, "labeled": n // 2}
    return about | {"repeats": repeats} | found


def table(cells: list[dict[str, Any]]) -> str:
    """Render the cells as Markdown, in brackets what the processor says."""
    lines = [
        " | ".join(["| network | images | precision", *COLUMNS]) + " |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        times = {name: np.array(c[name]["seconds"]) for name in ("ours", "bare", "authors") if name in c}
        times |= {f"{a} / {b}": times[a] / times[b] for a, b in PAIRS if a in times}
        medians = {name: np.median(values, axis=0) for name, values in times.items()}
        shown = ["{:.2f} ({:.2f})".format(*medians[k]) if k in medians else "" for k in COLUMNS]
        head = f"| {c['network']} | {c['rows']:,} | {'bfloat16' if c['bfloat16'] else 'float32'}"
        lines.append(" | ".join([head, *shown]) + " |")
    return "\n".join(lines)


def passes(cells: list[dict[str, Any]]) -> str:
    """Say how many rows went through the networks, forward only + forward and backward."""
    lines = ["| network | precision | 2 n_L (6 F + 4 T) + 2 N F | ours | authors |", "|---|---|---|---|---|"]
    for c in cells:
        head = f"| {c['network']} | {'bfloat16' if c['bfloat16'] else 'float32'}"
        names = ("bare", "ours", "authors")
        shown = [f"{c[k]['forward']:,} + {c[k]['trained']:,}" if k in c else "" for k in names]
        lines.append(" | ".join([head, *shown]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure all cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("OMP_NUM_THREADS must be 1, or seconds of the processor are not those of one core.")
    cells = []
    for each in CELLS:
        cells.append(cell(args.data, args.authors, args.repeats, *each))
        RESULTS.write_text(json.dumps({"cells": cells, "machine": machine()}, indent=2) + "\n")
        print(table(cells[-1:]), flush=True)


if __name__ == "__main__":
    main()
