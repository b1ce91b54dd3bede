"""The examples run, those with `--quick` in that form; they find what they plant, and gain what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = sorted(path.name for path in EXAMPLES.glob("*.py") if "--quick" in path.read_text(encoding="utf-8"))


def printed(name, folder, *options):
    """Run an example where there is no screen; return what it prints, and let it complain of nothing."""
    command = [sys.executable, str(EXAMPLES / name), *options]
    env = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}  # the same numbers on any CPU's cores
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    complaints = [line for line in result.stderr.splitlines() if "Warning: " in line]
    assert all("FigureCanvasAgg is non-interactive" in line for line in complaints), complaints
    return result.stdout


def numbers(pattern, text):
    """Return the groups of the only place where the pattern is found, as numbers."""
    places = re.findall(pattern, text)
    assert len(places) == 1, f"{pattern!r} should be there once:\n{text}"
    groups = places[0] if isinstance(places[0], tuple) else places
    return [float(group.replace(",", "")) for group in groups]


def accuracies(text):
    """Return the accuracies in the lines after the title, by name; the first where there are two."""
    lines = re.findall(r"(?m)^([a-zA-Z, ]+?) +([01]\.\d{3})\b", text.split("Accuracy on test")[1])
    return {name: float(accuracy) for name, accuracy in lines}


def finds(text, precision, recall, by=""):
    found = numbers(rf"Wrong labels found{by}: precision (\S+), recall (\d\.\d+)", text)
    assert found[0] > precision and found[1] > recall


def estimates_the_rate(text):
    rate, low, high = numbers(r"Estimated noise rate ([\d.]+)%, between ([\d.]+)% and ([\d.]+)%", text)
    (planted,) = numbers(r"made wrong on purpose \(([\d.]+)%\)", text)
    assert low <= rate <= high and planted / 2 < rate < 2 * planted


def of_cifar_audit(text):
    assert "digits" in text and "in the place of CIFAR-10" in text
    estimates_the_rate(text)
    (planted,) = numbers(r"([\d,]+) labels made wrong", text)
    flagged, hits = numbers(r"([\d,]+) labels flagged, ([\d,]+) of them rightly", text)
    assert planted > 150 and hits > 0.7 * planted and hits > 0.85 * flagged
    suspects = re.findall(r"labeled (\d), looks like (\d), is (\d)", text)
    assert len(suspects) == 10
    assert sum(given != suggested == truth for given, suggested, truth in suspects) >= 8


def of_table_audit(text):
    assert "29 missing" in text and "4 categories, a column each" in text
    estimates_the_rate(text)
    finds(text, precision=0.65, recall=0.65)
    accuracy = accuracies(text)
    assert accuracy["noisy labels"] < accuracy["filtered labels"]


def of_embeddings(text):
    accuracy = accuracies(text)
    for name in ("INNScorer", "judge"):
        finds(text, precision=0.85, recall=0.8, by=f" by {name}")
        assert accuracy["noisy labels"] + 0.01 < accuracy[f"filtered by {name}"] < accuracy["right labels"]


def of_features_pipeline(text):
    finds(text, precision=0.9, recall=0.8)
    accuracy = accuracies(text)
    assert accuracy["noisy labels"] + 0.05 < accuracy["filtered labels"] < accuracy["right labels"]


def of_open_set(text):
    table = {
        name: numbers(rf"(?m)^ +{name} +([\d,]+) +([\d,]+) +([\d,]+)$", text)
        for name in ("clean", "wrong label", "stranger")
    }
    for column, (name, counts) in enumerate(table.items()):
        assert sum(counts) > 250
        assert counts[column] > 0.75 * sum(counts), name
        assert counts[column] > 0.75 * sum(line[column] for line in table.values()), name
    (right,) = numbers(r"([\d.]+)% of the suggestions", text)
    assert right > 85


def of_dividemix_inn_start(text):
    accuracy = accuracies(text)
    assert accuracy["plain training"] + 0.03 < accuracy["filter, plain training"]
    assert accuracy["filter, plain training"] + 0.02 < accuracy["filter, DivideMix"]
    for name in ("the filter", "DivideMix"):
        finds(text, precision=0.85, recall=0.5, by=f" by {name}")
    assert min(numbers(r"Epochs of DivideMix: (\d+) warm-up, (\d+) mixmatch", text)) > 0


LAWS = {
    "cifar_audit.py": of_cifar_audit,
    "table_audit.py": of_table_audit,
    "embeddings.py": of_embeddings,
    "features_pipeline.py": of_features_pipeline,
    "open_set.py": of_open_set,
    "dividemix_inn_start.py": of_dividemix_inn_start,
}


def test_every_quick_form_has_a_law():
    assert sorted(LAWS) == QUICK


@pytest.mark.parametrize("name", QUICK)
def test_the_quick_form_shows_what_is_gained(name, tmp_path):
    LAWS[name](printed(name, tmp_path, "--quick"))
    assert not list(tmp_path.iterdir())


def found(text):
    """Return flagged labels, true hits and wrong labels, for each verdict that was printed."""
    counts = re.findall(r"Verdict: (\d+) of .*; (\d+) of (\d+) wrong labels found", text)
    return [tuple(map(int, line)) for line in counts]


def test_a_plain_torch_loop_feeds_a_filter(tmp_path):
    text = printed("plain_torch.py", tmp_path)
    assert len(found(text)) == 2
    for flagged, hits, wrong in found(text):
        assert wrong > 150 and hits > 0.9 * wrong and flagged < 1.2 * wrong
    assert "signals.path_probs must be recorded for this filter" in text


def test_a_hugging_face_trainer_feeds_a_filter(tmp_path):
    pytest.importorskip("transformers", reason="needs transformers and accelerate, which are no dependencies")
    pytest.importorskip("accelerate", reason="needs transformers and accelerate, which are no dependencies")
    ((flagged, hits, wrong),) = found(printed("hugging_face.py", tmp_path))
    assert wrong > 40 and hits > 0.6 * wrong and flagged < 1.5 * wrong
