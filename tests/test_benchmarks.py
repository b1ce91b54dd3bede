"""Every number on the pages comes from a committed result; what is computed of them is right."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_pages_say_what_the_results_say():
    run = subprocess.run(
        [sys.executable, "benchmarks/render.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_a_picture_is_stale_when_its_results_change(tmp_path):
    """Draw one in a copy of the benchmarks, look again, and add a record."""
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "docs" / "images").mkdir(parents=True)
    results = tmp_path / "benchmarks" / "results" / "audit.jsonl"
    script = "import plots; print(plots.stale()); plots.draw('beside-cleanlab'); print(plots.stale())"
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path / "benchmarks", capture_output=True, text=True
        )
        before, after = run.stdout.splitlines()
        assert "beside-cleanlab" in before and "beside-cleanlab" not in after, run.stderr
        results.write_text(results.read_text() + results.read_text().splitlines()[-1] + "\n")


def test_versions_of_all_records_are_named(script):
    records = [{"versions": {"torch": "2"}, "commit": "a"}, {"versions": {"torch": "3", "skorch": "1"}}]
    assert script("render").every(records)["versions"] == {"torch": "2 and 3", "skorch": "1"}


def test_machine_names_the_card_it_used(script, monkeypatch):
    audit = script("audit")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert "CUDA" not in audit.machine()["machine"]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert ", NVIDIA H200 (CUDA" in audit.machine()["machine"]


def test_versions_are_of_what_is_installed(script, monkeypatch):
    audit = script("audit")
    monkeypatch.setattr(audit, "PACKAGES", ("torch", "no-package-of-this-name"))
    assert set(audit.versions()) == {"torch"}


@pytest.fixture
def growth(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("growth")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "growth.jsonl")
    return module


def measured(growth, cells):
    """Write records of cells whose costs follow laws that are known."""
    for cell in cells:
        rows, epochs = cell["rows"], growth.FEWER_EPOCHS.get((cell["method"], cell["rows"]))
        laws = {"training": 3.0 * rows, "neighbors": rows**1.5, "paths": rows, "decision": rows}
        record = cell | {
            "max_epochs": epochs,
            "epochs": 30,
            "seconds": 1e-3 * rows * cell["classes"] ** 0.5 * (1 if epochs is None else 0.1),
            "peak_mib": 800 + rows * (3000 + 40 * cell["classes"]) / 2**20,
            "stages": {stage: 1e-6 * law for stage, law in laws.items()},
            "auc": 0.95,
        }
        with growth.RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")


def test_an_exponent_is_that_of_the_law(growth):
    sizes = np.array([10.0, 100.0, 300.0])
    assert growth.slope(sizes, 7 * sizes**1.5) == pytest.approx(1.5)


def test_every_cell_of_growth_is_one_cell_and_small_ones_come_first(growth):
    cells = growth.cells()
    keys = [growth.key(cell) for cell in cells]
    assert (
        len(set(keys)) == len(keys) == len(growth.METHODS) * (len(growth.ROWS) + len(growth.CLASSES) - 1) + 1
    )
    rows = [cell["rows"] for cell in cells]
    assert rows == sorted(rows) and growth.WIDE in cells


def test_growth_is_read_off_the_upper_half_and_full_trainings(growth):
    measured(growth, growth.cells())
    row = next(line for line in growth.exponents().splitlines() if line.startswith("| josrc"))
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["1.00", "3,400", "0.50", "40"]
    stages = {line.split("|")[1].strip(): line.split("|") for line in growth.stages().splitlines()[2:]}
    assert (
        stages["training, an epoch"][2].strip() == "0.00"
        and stages["training, an epoch"][9].strip() == "1.00"
    )
    assert stages["neighbors"][9].strip() == "1.50"
    assert (
        f"{growth.GIB} GiB are full at about 7.3 million rows" in growth.limits()
    )  # 800 MiB, 3,400 bytes a row
    assert "INNScorer of 50,000 rows of 512 columns took 158 seconds" in growth.limits()


def test_what_was_not_measured_is_left_blank(growth):
    assert growth.done() == []
    measured(growth, [growth.USUAL | {"method": "inn"}])
    assert growth.line("inn", "rows", growth.ROWS).keys() == {30_000}
    assert "| inn |  |  |  | 95 |  |  |  |" in growth.tables()
    growth.stages(), growth.exponents()


def test_rows_overlap_as_much_as_is_said(growth):
    for classes in (2, 30):
        cell = growth.USUAL | {"rows": 4000, "classes": classes}
        X, y, truth, centers = growth.generated(cell)
        assert X.dtype == np.float32 and X.shape == (4000, 128)
        right = (growth.best_probs(X, centers).argmax(axis=1) == truth).mean()
        assert right == pytest.approx(growth.ACCURACY, abs=0.05)
        assert (y != truth).mean() == pytest.approx(0.1 * (1 - 1 / classes), abs=0.02)
    fewer, more = (growth.distance(classes) for classes in (2, 30))
    assert fewer < more


def test_stages_are_timed_where_the_library_has_them(growth):
    cell = {"method": "inn", "rows": 1000, "columns": 8, "classes": 3}
    X, y, *_ = growth.generated(cell)
    with growth.timed() as calls:
        growth.judged("inn", X[:300], y[:300], None, 2)
    assert {stage: len(seconds) for stage, seconds in calls.items()} == {
        "epochs": 2, "training": 1, "neighbors": 1, "paths": 1, "decision": 1,
    }  # fmt: skip


def test_a_line_of_the_picture_is_a_filter_and_full_trainings_alone(growth):
    measured(growth, growth.cells())
    seconds = growth.picture().axes[0]
    lines = {line.get_label(): line.get_xydata() for line in seconds.lines}
    assert lines.keys() == set(growth.METHODS)
    assert len(lines["inn"]) == len(growth.ROWS) and len(lines["josrc"]) == len(growth.ROWS) - 1
    assert lines["inn"][0] == pytest.approx([1000, 1e-3 * 1000 * 10**0.5])


def test_the_drawing_is_the_same_from_the_same_results(growth, script, tmp_path, monkeypatch):
    measured(growth, growth.cells())
    plots, drawn = script("plots"), []
    monkeypatch.setattr(plots, "digest", lambda results: "abc")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(plots, "IMAGES", tmp_path / name)
        plots.draw("growth")
        drawn.append((tmp_path / name / "growth.svg").read_bytes())
    assert drawn[0] == drawn[1]
