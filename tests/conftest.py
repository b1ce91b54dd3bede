"""What many tests share: data small enough to train on in a second, and the command line."""

import os
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from noisefilter.cli import main


class Noisy(NamedTuple):
    """Rows, the labels a user would hand over, the true labels, and where the two differ."""

    X: np.ndarray
    y: np.ndarray
    truth: np.ndarray
    wrong: np.ndarray


def _with_wrong_labels(X, truth, n_wrong, n_classes):
    """Move the labels of `n_wrong` random rows to another class."""
    rng = np.random.default_rng(0)
    wrong = np.zeros(len(truth), dtype=bool)
    wrong[rng.choice(len(truth), n_wrong, replace=False)] = True
    shift = rng.integers(1, n_classes, size=len(truth))
    return Noisy(X, np.where(wrong, (truth + shift) % n_classes, truth), truth, wrong)


@pytest.fixture
def blobs() -> Noisy:
    """300 rows in three well-separated blobs of 5 columns; 45 labels are wrong."""
    X, truth = make_blobs(300, n_features=5, centers=3, cluster_std=1.0, random_state=0)
    return _with_wrong_labels(X.astype(np.float32), truth, n_wrong=45, n_classes=3)


@pytest.fixture
def images() -> Noisy:
    """120 grey images (8 x 8, 0 to 1), bright in the left or in the right half; 12 labels are wrong."""
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 2
    X = rng.uniform(0, 0.4, size=(120, 8, 8)).astype(np.float32)
    X[truth == 0, :, :4] += 0.6
    X[truth == 1, :, 4:] += 0.6
    return _with_wrong_labels(X, truth, n_wrong=12, n_classes=2)


@pytest.fixture
def script():
    """Import a script of the benchmarks as they import each other: by its name alone."""

    def script(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
            return import_module(name)

    return script


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line; return its exit code, what it printed and what it complained about."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


def pytest_configure(config):
    """Where tests run in several processes, give each one thread: with more they wait for each other."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Skip tests marked `gpu` on a machine without one; torch is only imported when there are such tests."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
