"""What a filter reads from a disk it reads in batches, and judges as it judges what lies in memory."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import noisefilter
from noisefilter import FilteredClassifier, INNScorer, SmallLossSelector, VoteFilter, inputs
from noisefilter.base import BaseFilter

PUBLIC = [getattr(noisefilter, name) for name in noisefilter.__all__]
FILTERS = [kind for kind in PUBLIC if isinstance(kind, type) and issubclass(kind, BaseFilter)]
ARRAYS = ("scores", "partition", "alternatives", "clean_proba", "transition_matrix")
SHORT = {"max_epochs": 3, "random_state": 0}


def vote():
    return VoteFilter([("inn", INNScorer(**SHORT)), ("small_loss", SmallLossSelector(**SHORT))])


def filtered():
    return FilteredClassifier(SmallLossSelector(**SHORT), LogisticRegression())


MAKERS = {kind.__name__: lambda kind=kind: kind(**SHORT) for kind in FILTERS}
EVERY = [*MAKERS, "VoteFilter", "FilteredClassifier"]


def made(name):
    return (MAKERS | {"VoteFilter": vote, "FilteredClassifier": filtered})[name]()


def on_disk(folder, X):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


def assert_same_bits(one, other):
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.threshold == other.threshold and one.estimated_noise_rate == other.estimated_noise_rate


@pytest.mark.parametrize("name", EVERY)
def test_a_memory_map_is_judged_as_the_same_rows_in_memory(name, blobs, tmp_path):
    mapped = on_disk(tmp_path, blobs.X)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    in_memory, from_disk = (made(name).fit(X, blobs.y) for X in (blobs.X, mapped))
    assert in_memory.verdict_.clean_mask.any() and not in_memory.verdict_.clean_mask.all()
    assert_same_bits(in_memory.verdict_, from_disk.verdict_)


@pytest.mark.parametrize("name", [*MAKERS, "VoteFilter"])
def test_images_on_disk_are_judged_as_in_memory(name, images, tmp_path):
    pixels = (255 * images.X).astype(np.uint8)
    in_memory, from_disk = (made(name).fit(X, images.y) for X in (pixels, on_disk(tmp_path, pixels)))
    assert_same_bits(in_memory.verdict_, from_disk.verdict_)


@pytest.mark.parametrize("name", [*MAKERS, "VoteFilter"])
def test_no_filter_reads_all_rows_at_once(name, tmp_path, monkeypatch):
    """Of 1,500 wide rows no more than 1,000 are read at a time."""
    rng = np.random.default_rng(0)
    y = np.arange(1500) % 2
    mapped = on_disk(tmp_path, (rng.normal(size=(1500, 4500)) + 0.1 * y[:, None]).astype(np.float32))
    read, items = [], inputs._items
    monkeypatch.setattr(inputs, "_items", lambda X, index: (read.append(len(index)), items(X, index))[1])
    made(name).fit(mapped, y)
    assert sum(read) > 2 * 1500 and max(read) <= 1000
