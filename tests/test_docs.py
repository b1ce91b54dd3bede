"""What the README says runs, and the documentation builds without a warning."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_code_runs(tmp_path, monkeypatch):
    """Run the python blocks from top to bottom in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL))
    assert blocks
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        line = README.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], ROOT / "README.md", "exec"), namespace)


def test_ci_runs_the_command_of_the_readme():
    """`.ci/run` takes its command from the README; here is what it has to find there."""
    block = re.search(r"<!-- ci: test -->\n```bash\n(.*)\n```$", README, flags=re.MULTILINE)
    assert block
    assert block[1].startswith("python3 -m venv .venv && ")
    assert block[1].endswith(" -m pytest -n auto")


def test_promises_name_tests_that_exist():
    page = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    files = list((ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"\btest_\w+(?:\.py)?", page)
    assert len(names) > 80
    assert {name for name in names if name.endswith(".py")} <= {file.name for file in files}
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    defined = set(re.findall(r"^def (test_\w+)\(", text, flags=re.MULTILINE))
    assert {name for name in names if not name.endswith(".py")} <= defined


@pytest.fixture
def sources(tmp_path):
    """Copy what the documentation is made from, so that nothing generated earlier takes part."""
    for folder in ("docs", "examples"):
        ignore = shutil.ignore_patterns("_build", "generated", "auto_examples")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    (tmp_path / "benchmarks").mkdir()
    for file in ("CHANGELOG.md", "pyproject.toml", "benchmarks/README.md"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_documentation_builds_without_warnings(sources):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "html"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    result = subprocess.run(command, cwd=sources, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {page.stem for page in (sources / "html" / "generated").glob("*.html")}
    import noisefilter

    api = (sources / "docs" / "api.rst").read_text(encoding="utf-8")
    for name in noisefilter.__all__:
        has_page = f"noisefilter.{name}" in pages
        assert has_page if callable(getattr(noisefilter, name)) else f"``{name}``" in api, name
