"""The tools that read the code; run as tests, so that one command checks everything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["codespell_lib"]],
    ids=["lint", "format", "types", "spelling"],
)
def test_tool_finds_nothing(command):
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_sections_of_docstrings_are_underlined_on_a_line_of_their_own():
    """A tool that wraps text makes one paragraph of "Notes" and its dashes, and numpydoc lets it pass."""
    sections = re.compile(
        r"^\s*(Parameters|Attributes|Returns|Yields|Raises|Notes|References|Examples) -{3,}", re.M
    )
    found = [
        path.name for path in sorted(ROOT.glob("noisefilter/**/*.py")) if sections.search(path.read_text())
    ]
    assert not found
