"""The examples that take no minutes run, and find what they plant."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed(name, folder):
    command = [sys.executable, str(EXAMPLES / name)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def found(text):
    """Return flagged labels, true hits and wrong labels, for each verdict that was printed."""
    counts = re.findall(r"Verdict: (\d+) of .*; (\d+) of (\d+) wrong labels found", text)
    return [tuple(map(int, numbers)) for numbers in counts]


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
