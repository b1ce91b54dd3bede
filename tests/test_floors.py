"""The house: imports point down, torch stays on its floor, every function fits a screen."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "noisefilter"

# From the ground up. Filters and trainers are both floor 3: trainers may use filters, never the reverse.
FLOORS = (
    {
        "errors",
        "scores",
        "splits",
        "estimates",
        "confident",
        "mixtures",
        "verdict",
        "noise",
        "metrics",
        "balance",
        "budgets",
        "displays",
        "variation",
    },
    {
        "networks",
        "augment",
        "batches",
        "losses",
        "paths",
        "neighbors",
        "progress",
        "inputs",
        "atomic",
        "checkpoint",
        "states",
        "tensorfile",
        "weights",
        "rewind",
        "fingerprints",
        "net",
        "models",
        "backbones",
        "contrastive",
        "semisupervised",
        "seen",
        "twonets",
        "clustered",
        "cotraining",
        "criteria",
        "pairs",
        "pretrain",
        "single",
    },
    {
        "base",
        "handover",
        "pairtrainer",
        "recorded",
        "robust",
        "selfsupervised",
        "step",
        "trained",
        "trainer",
    },
    {"filters"},
    {"trainers"},
    {"compose", "judging", "persistence", "voting", "datasets", "audit", "training", "cli", "__main__"},
)
ENGINE = 1
ENGINE_PACKAGES = {
    "torch",
    "skorch",
    "faiss",
}  # torchvision too, but its data sets are loaded on the top floor
SCREEN = 50

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def floor_of(room: str) -> int:
    """Return the floor of a module or folder directly inside the package."""
    for floor, rooms in enumerate(FLOORS):
        if room in rooms:
            return floor
    raise AssertionError(f"noisefilter/{room} has no floor: add it to the map in tests/test_floors.py")


def imports(source: str, package: tuple[str, ...]) -> list[str]:
    """List what `source`, a module of `package`, imports, as absolute dotted names.

    >>> imports("from ..scores import margin", ("noisefilter", "filters"))
    ['noisefilter.scores.margin']
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def imports_of(path: Path) -> list[str]:
    return imports(path.read_text(encoding="utf-8"), ("noisefilter", *path.relative_to(PACKAGE).parent.parts))


def test_relative_imports_are_resolved():
    assert imports("from ..net import Net", ("noisefilter", "filters")) == ["noisefilter.net.Net"]
    assert imports("from . import scores", ("noisefilter",)) == ["noisefilter.scores"]
    assert imports("import torch.nn as nn", ("noisefilter",)) == ["torch.nn"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    floor = floor_of(name_of(path).split("/")[0])
    rooms = [name.split(".")[1] for name in imports_of(path) if name.startswith("noisefilter.")]
    above = {room for room in rooms if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()}
    above = {room for room in above if floor_of(room) > floor}
    assert not above, f"{name_of(path)} stands on floor {floor} and imports from above: {sorted(above)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_engine_imports_torch(path):
    if floor_of(name_of(path).split("/")[0]) == ENGINE:
        return
    packages = {name.split(".")[0] for name in imports_of(path)} & ENGINE_PACKAGES
    assert not packages, f"{name_of(path)} is not on floor 1 and imports {sorted(packages)}"


def test_mathematics_load_without_torch():
    modules = ["noisefilter", *(f"noisefilter.{room}" for room in sorted(FLOORS[0]))]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {*ENGINE_PACKAGES, "torchvision"} & set(loaded.split())


@pytest.mark.parametrize("path", [PACKAGE / "__init__.py", *FILES], ids=name_of)
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            # The parameters of an estimator stand twice in its constructor; there only the body counts.
            first = node.body[0].lineno if node.name == "__init__" else node.lineno
            lines = node.end_lineno - first + 1 - (docstring.count("\n") + 1 if docstring else 0)
            assert lines <= SCREEN, f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines"


def test_no_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert not {part.strip("_") for path in FILES for part in name_of(path).split("/")} & drawers
