"""Every number on the pages comes from a committed result, and every result says where it was measured."""

import shutil
import subprocess
import sys
from pathlib import Path

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
