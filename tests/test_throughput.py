"""What the benchmark of throughput goes by: FLOPs, bounds, cells, and how they are rendered."""

import json

import pytest
import torch
from torch import nn

from noisefilter.networks import PreActResNet18


@pytest.fixture
def throughput(script, tmp_path, monkeypatch):
    """The script, with results of its own and without large products."""
    module = script("throughput")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "throughput.jsonl")
    monkeypatch.setattr(module, "LARGE", {"cpu": ((8, 16), 1)})
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    return module


def a_record(**changes):
    """50 rows a second bare and 40 of Net, at 2 GFLOP each, where products reach 400 GFLOP/s."""
    part = {"rows": 100, "passes": 2, "bare_seconds": 4.0, "net_seconds": 5.0, "net_over_bare": 1.25}
    return {
        "network": "MLP", "shape": [512], "batch_size": 128, "precision": "float32", "device": "cpu",
        "default": True, "matrix_rate": 4e11, "published_rate": None, "threads": 2, "machine": "2 cores",
        "training_flops": 2e9, "inference_flops": 1e9, "training": part, "inference": part,
        "versions": {"torch": "2.14.1"}, "commit": "abc",
    } | changes  # fmt: skip


def test_flops_of_linear_layers(throughput):
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    forward, both = throughput.flops(network, torch.zeros(4, 3))
    first, second = 2 * 3 * 5, 2 * 5 * 2
    assert forward == first + second
    assert both == 2 * first + 3 * second  # of weights and inputs; nobody asks for the slope of the rows


def test_flops_of_a_convolution(throughput):
    forward, both = throughput.flops(nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.zeros(2, 3, 8, 8))
    assert forward == 2 * (3 * 3 * 3) * 4 * (4 * 4)
    assert both == 2 * forward


def test_flops_of_a_network(throughput):
    """1.11 GFLOP forward, three times as many in training, per row whatever the batch."""
    network = PreActResNet18(3, 10)
    forward, both = throughput.flops(network, torch.zeros(2, 3, 32, 32))
    assert forward == pytest.approx(1.11e9, rel=0.01)
    assert 2.95 < both / forward < 3
    assert throughput.flops(network, torch.zeros(3, 3, 32, 32)) == (forward, both)


def test_matrix_rate_is_that_of_the_fastest(throughput, monkeypatch):
    """Of two products of 1,024 and 8,192 FLOPs and a convolution, in 1, 4 and 10^6 seconds."""
    times = {1024: 1.0, 8192: 4.0}
    monkeypatch.setattr(
        throughput, "fastest", lambda run, device, least: times.get(throughput.counted(run), 1e6)
    )
    rate = throughput.matrix_rate(torch.device("cpu"), torch.float32, 0.0)
    assert rate == 8192 / 4


def test_the_shortest_time_counts_after_a_warm_up(throughput, monkeypatch):
    taken = iter([3.0, 1.0, 2.0, 0.5])
    runs = []
    monkeypatch.setattr(throughput, "seconds", lambda run: (run(), next(taken))[1])
    assert throughput.fastest(lambda: runs.append(None), torch.device("cpu"), 5.0) == 1.0
    assert len(runs) == 4


def test_a_run_ends_when_the_device_is_done(throughput, monkeypatch):
    order = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("synchronized"))
    throughput.finished(lambda: order.append("run"), torch.device("cuda"))()
    assert order == ["run", "synchronized"]
    throughput.finished(lambda: order.append("run"), torch.device("cpu"))()
    assert order == ["run", "synchronized", "run"]


@pytest.mark.parametrize(
    ("n_batches", "batches", "expected"),
    [
        (1, None, (1, 1)),
        (5, None, (1, 5)),
        (80, None, (10, 8)),
        (5000, None, (100, 50)),
        (80, 40, (40, 2)),
        (1, 40, (40, 1)),
    ],
)
def test_batches_make_several_passes(throughput, n_batches, batches, expected):
    assert throughput.portions(n_batches, batches) == expected


def test_rows_a_second_and_what_they_could_be(throughput):
    record = a_record()
    assert throughput.rate(record, "training", "bare") == 50
    assert throughput.bound(record, "training") == 200
    assert throughput.bound(record, "inference") == 400
    assert throughput.shown(record, "training", "net") == ["40", "20.0%", "0.80"]
    assert throughput.shown(record, "inference", "bare") == ["50", "12.5%"]
    assert throughput.shown(record, "training", "compiled") == ["", "", ""]


def test_a_cell_measured_again_replaces_the_older(throughput):
    older, other, newer = a_record(), a_record(device="cuda"), a_record(matrix_rate=1.0)
    assert throughput.replaced([older, other], newer) == [other, newer]
    assert throughput.key(a_record(shape=(512,))) == throughput.key(older)  # as JSON gives it back
    for name, value in {"network": "SmallCNN", "shape": [3, 32, 32], "batch_size": 512}.items():
        assert throughput.replaced([older], a_record(**{name: value}))[0] is older


def test_cells_that_are_wanted(throughput):
    cells = throughput.wanted(["MLP", "SmallCNN"], 64, [128, 512], ["float32"], "cuda")
    assert [cell["shape"] for cell in cells] == [(512,), (512,), (3, 64, 64), (3, 64, 64)]
    assert [cell["batch_size"] for cell in cells] == [128, 512, 128, 512]
    assert len({throughput.key(cell) for cell in cells}) == 4


def test_what_is_there_is_skipped_unless_again(throughput, monkeypatch):
    def run(*options):
        command = ["throughput.py", "--networks", "MLP", "--device", "cpu", "--precisions", "float32"]
        command += ["--rows", "200", "--seconds", "0", "--repeats", "1", *options]
        monkeypatch.setattr("sys.argv", command)
        throughput.main()
        return [json.loads(line) for line in throughput.RESULTS.read_text().splitlines()]

    monkeypatch.setattr("sys.argv", ["throughput.py", "--networks", "MLP", "--device", "cpu", "--quick"])
    throughput.main()
    assert not throughput.RESULTS.exists()
    (record,) = run()
    assert throughput.key(record) == ("MLP", (512,), 128, "float32", "cpu")
    assert record["default"]
    assert (record["training"]["rows"], record["inference"]["rows"]) == (256, 1000)  # whole batches
    assert "unaugmented_seconds" not in record["training"]  # rows of numbers have no augmentation
    throughput.RESULTS.write_text(json.dumps(record | {"commit": "older"}) + "\n")
    assert run()[0]["commit"] == "older"
    (again,) = run("--again")
    assert again["commit"] == record["commit"]
    assert again["training_flops"] == record["training_flops"]


def test_images_are_timed_with_and_without_augmentation(throughput):
    cell = {"network": "SmallCNN", "shape": (3, 8, 8), "batch_size": 8, "precision": "float32"}
    network = throughput.NETWORKS["SmallCNN"]._replace(shape=(3, 8, 8))
    nets = throughput.nets(network, cell, torch.device("cpu"), throughput.Effort(0.0, 1))
    assert {name: net.augment is not None for name, net in nets.items()} == {
        "net": True,
        "unaugmented": False,
    }
    assert {net.batch_size for net in nets.values()} == {8}
    found = throughput.training(network, cell, torch.device("cpu"), throughput.Effort(0.0, 1), nets)
    assert {"bare_seconds", "net_over_bare", "unaugmented_over_bare"} < set(found)


def test_cpu_and_cuda_stand_side_by_side(throughput):
    cuda = a_record(
        device="cuda",
        precision="bfloat16",
        matrix_rate=8e14,
        published_rate=throughput.PUBLISHED["NVIDIA H200"],
    )
    part = cuda["training"] | {"compiled_seconds": 2.0, "compiled_over_bare": 0.5}
    lines = [json.dumps(r) + "\n" for r in (cuda | {"training": part}, a_record(default=False))]
    throughput.RESULTS.write_text("".join(lines))
    text = throughput.tables()
    assert "| MLP | 512 | 128 | cpu | float32 | 2 | 200 | 50 | 25.0% | 40 | 20.0% | 0.80 |  |  |  |" in text
    assert "| cuda | bfloat16 (default) | 2 | 400,000 | 50 | 0.0% | 40 | 0.0% | 0.80 | 100 |" in text
    assert "cuda bfloat16 800 to 800 (published, dense: 989)" in text
    assert text.count("compiled / bare") == 1  # nothing was compiled in inference


def test_page_names_every_machine(throughput, script, monkeypatch):
    render = script("render")
    monkeypatch.setattr(render, "throughput", throughput)
    assert render.rows_a_second() == "Not measured yet."
    records = [a_record(), a_record(device="cuda", machine="16 cores, NVIDIA H200")]
    throughput.RESULTS.write_text("".join(json.dumps(r) + "\n" for r in records))
    page = render.rows_a_second()
    assert "Measured on 2 cores, 2 threads" in page
    assert "Measured on 16 cores, NVIDIA H200, 2 threads" in page
