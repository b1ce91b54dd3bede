"""Confident learning over probabilities: cleanlab's masks, from arrays and from a memory map."""

from functools import partial

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter import confident
from noisefilter.confident import RULES, count_confident, label_issues
from noisefilter.errors import InputError, ParameterError
from noisefilter.scores import normalized_margin

PRUNING = RULES[:3]
theirs = partial(find_label_issues, n_jobs=1)
pytestmark = pytest.mark.filterwarnings("ignore:May not flag all label issues in class")  # cleanlab
every_rule = pytest.mark.parametrize("rule", RULES)


def drawn(seed, n, n_classes, sharp, grid):
    """Probabilities, on a coarse grid where there is one, and labels partly drawn from them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(n_classes, sharp), n)
    if grid:
        probs = np.rint(probs * grid)
        probs[:, 0] += probs.sum(axis=1) == 0
        probs /= probs.sum(axis=1, keepdims=True)
    codes = np.array([rng.choice(n_classes, p=row) for row in probs])
    random = rng.random(n) < rng.choice([0.0, 0.3, 1.0])
    codes[random] = rng.integers(0, n_classes, random.sum())
    codes[:2] = [0, 1]  # cleanlab refuses labels of one class
    return probs, codes


def untied(probs, seed=0):
    """No two rows alike, by less than what counts as equal: ties between classes stay, and so do counts."""
    probs = probs + 1e-9 * np.random.default_rng(seed).random(probs.shape)
    return probs / probs.sum(axis=1, keepdims=True)


shapes = st.builds(
    drawn,
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(4, 80),
    n_classes=st.integers(2, 8),
    sharp=st.sampled_from([0.1, 0.3, 1.0, 3.0]),
    grid=st.sampled_from([0, 2, 4, 10, 20]),
)


@every_rule
@settings(max_examples=60, deadline=None)
@given(case=shapes)
def test_equals_cleanlab(rule, case):
    probs, codes = untied(case[0]), case[1]
    assert np.array_equal(label_issues(probs, codes, rule), theirs(codes, probs, filter_by=rule))


@every_rule
@settings(max_examples=30, deadline=None)
@given(case=shapes)
def test_rows_that_tie_change_which_are_flagged_and_not_how_many(rule, case):
    """Among equal rows cleanlab's choice is that of an unstable sort; of classes it is the same as ours."""
    probs, codes = case
    codes = np.tile(codes, 3)
    probs = np.tile(probs, (3, 1))
    ours, other = label_issues(probs, codes, rule), theirs(codes, probs, filter_by=rule)
    own = probs[np.arange(len(codes)), codes]
    key = {"low_normalized_margin": normalized_margin(probs, codes)}.get(rule, own)
    if rule in ("prune_by_class", "low_self_confidence", "low_normalized_margin"):
        group = codes if rule == "prune_by_class" else np.zeros_like(codes)
        for one in np.unique(group[ours != other]):  # all at the one value where the quota ends
            assert np.ptp(key[(ours != other) & (group == one)]) < 1e-12
    if rule == "confident_learning":
        assert np.array_equal(ours, other)
    if rule.startswith("low_"):
        assert ours.sum() == other.sum()


@every_rule
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_cleanlab_on_many_rows_and_in_any_batch(rule, dtype, monkeypatch):
    probs, codes = drawn(0, 3000, 12, 0.3, 0)
    probs = probs.astype(dtype)
    expected = theirs(codes, probs, filter_by=rule)
    assert 100 < expected.sum() < 2900
    assert np.array_equal(label_issues(probs, codes, rule), expected)
    monkeypatch.setattr(confident, "_BATCH", 500)  # quotas end, and candidates are dropped, in many batches
    order = np.argsort(probs[:, 0])  # the best candidates come last
    for rows in (np.arange(3000), order):
        assert np.array_equal(label_issues(probs[rows], codes[rows], rule), expected[rows])


@every_rule
def test_a_memory_map_gives_the_same_bits(rule, tmp_path, monkeypatch):
    probs, codes = drawn(1, 2000, 5, 0.3, 4)
    mapped = np.lib.format.open_memmap(tmp_path / "probs.npy", "w+", dtype=np.float64, shape=probs.shape)
    mapped[:] = probs
    monkeypatch.setattr(confident, "_BATCH", 700)
    batched = label_issues(np.load(tmp_path / "probs.npy", mmap_mode="r"), codes, rule)
    monkeypatch.undo()
    assert np.array_equal(batched, label_issues(probs, codes, rule)) and batched.any()


def test_of_rows_that_tie_the_first_are_flagged():
    """Ten rows labeled 0 are surely 1 by the same probabilities; the other ten leave three of them room."""
    probs = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 5 + [[0.05, 0.95]] * 5)
    codes = np.repeat([0, 1], [15, 5])
    counts = confident.ConfidentCounts(np.array([[12, 3], [0, 5]]), np.zeros(20, dtype=np.int32))
    found = label_issues(probs, codes, "prune_by_class", counts)
    assert np.flatnonzero(found).tolist() == [10, 11, 12]


def test_a_row_that_reaches_several_thresholds_is_counted_for_its_most_probable_class():
    """The fourth row reaches those of classes 1 and 2 only, 0.3 and 0.25, and is counted for class 0."""
    rows = [[0.9, 0.05, 0.05]] * 3 + [[0.4, 0.35, 0.25]] + [[0.7, 0.3, 0.0]] * 3 + [[0.7, 0.05, 0.25]] * 3
    counts = count_confident(np.array(rows), np.repeat([0, 1, 2], [4, 3, 3]))
    assert counts.surest.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert counts.joint.tolist() == [[4, 0, 0], [0, 3, 0], [0, 0, 3]]


def test_a_class_that_would_lose_every_row_keeps_one():
    joint = np.array([[0, 2, 1, 0], [0, 4, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert confident._quotas(joint).tolist() == [[1, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_normalized_margin_by_hand():
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    np.testing.assert_allclose(normalized_margin(probs, np.array([0, 1])), [0.75, 0.35])


def test_errors_name_what_is_wrong():
    probs, codes = drawn(0, 10, 3, 1.0, 0)
    with pytest.raises(ParameterError, match=r"rule must be one of .* got 'predicted'"):
        label_issues(probs, codes, "predicted")
    with pytest.raises(InputError, match="finite and at least 0"):
        label_issues(probs - 1, codes)
