"""Laws of the two frozen records."""

import copy
import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter.errors import InputError, InputTypeError, MissingSignalError, ParameterError
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Signals, Verdict


def verdict(**changes):
    fields = {
        "labels": np.array(["cat", "dog", "cat", "dog"]),
        "classes": np.array(["cat", "dog"]),
        "scores": np.array([3.0, -1.0, 2.0, -4.0]),
        "partition": np.array([CLEAN, ID_NOISE, CLEAN, OOD_NOISE]),
        "alternatives": np.array(["dog", "cat", "dog", "cat"]),
        "threshold": 0.0,
        "clean_proba": np.array([0.9, 0.2, 0.8, 0.1]),
        "open_set": True,
        "estimated_noise_rate": 0.25,
        "transition_matrix": np.eye(2),
        "method": "Test",
    }
    return Verdict(**(fields | changes))


def test_masks_and_rate():
    v = verdict()
    np.testing.assert_array_equal(v.clean_mask, [True, False, True, False])
    np.testing.assert_array_equal(v.id_mask, [False, True, False, False])
    np.testing.assert_array_equal(v.ood_mask, [False, False, False, True])
    assert v.noise_rate == 0.5
    assert len(v) == 4


def test_suggested_labels_change_only_wrong_labels():
    v = verdict()
    assert v.suggested_labels.tolist() == ["cat", "cat", "cat", "dog"]
    assert v.suggested_labels.dtype == v.labels.dtype


@pytest.mark.parametrize(
    "labels",
    [
        np.array([5, 7, 5], np.int16),
        np.array([True, False, True]),
        np.array([0.0, 2.0, 0.0], np.float32),
        np.array(["a", "bb", "a"], dtype=object),
        np.array(["2020-01-01", "2021-01-01", "2020-01-01"], "M8[D]"),
    ],
    ids=lambda labels: labels.dtype.name,
)
def test_suggested_labels_have_the_dtype_given(labels):
    v = Verdict(labels, np.unique(labels), np.zeros(3), np.array([1, 0, 0]), labels[[1, 0, 1]])
    assert v.suggested_labels.dtype == labels.dtype
    assert v.suggested_labels.tolist() == labels[[1, 1, 2]].tolist()


def test_suggestions_of_a_wider_dtype_are_narrowed():
    v = Verdict(np.array([1, 2], np.int16), np.array([1, 2]), np.zeros(2), np.array([1, 0]), np.array([2, 1]))
    assert v.suggested_labels.dtype == np.int16


def test_keep_rounds():
    assert verdict().keep(0.7).clean_mask.sum() == 3
    assert verdict().keep(0.3).clean_mask.sum() == 1


def test_a_longer_suggestion_is_not_cut():
    names = np.array(["hippopotamus", "ox"])
    v = Verdict(np.array(["ox", "ox"]), names, np.zeros(2), np.array([1, 0]), names[[0, 0]])
    assert v.suggested_labels.tolist() == ["hippopotamus", "ox"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.floats(0, 1))
def test_keep_is_exact_and_ties_go_by_row(scores, fraction):
    n = len(scores)
    v = Verdict(np.zeros(n), np.array([0, 1]), np.array(scores), np.ones(n), np.ones(n))
    kept = v.keep(fraction)
    best = sorted(range(n), key=lambda i: (-scores[i], i))[: round(fraction * n)]
    assert np.flatnonzero(kept.clean_mask).tolist() == sorted(best)
    assert kept.threshold is None
    masks = np.stack([kept.clean_mask, kept.id_mask, kept.ood_mask])
    assert (masks.sum(axis=0) == 1).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.data())
def test_with_threshold_keeps_what_scores_at_least_that(scores, data):
    threshold = data.draw(st.one_of(st.sampled_from(scores), st.floats(-6, 6)))
    n = len(scores)
    v = Verdict(np.zeros(n), np.array([0, 1]), np.array(scores), np.zeros(n), np.ones(n))
    decided = v.with_threshold(threshold)
    assert decided.clean_mask.tolist() == [score >= threshold for score in scores]
    assert decided.threshold == threshold


def test_deciding_again_remembers_strangers_and_changes_nothing_else():
    v = verdict()
    again = v.with_threshold(100)
    assert again.partition.tolist() == [ID_NOISE, ID_NOISE, ID_NOISE, OOD_NOISE]
    assert v.keep(1).noise_rate == 0
    assert v.partition.tolist() == [0, 1, 0, 2]
    for name in ("scores", "labels", "alternatives", "clean_proba", "transition_matrix"):
        np.testing.assert_array_equal(getattr(again, name), getattr(v, name))
    assert (again.method, again.open_set, again.estimated_noise_rate) == ("Test", True, 0.25)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_keep_refuses(fraction):
    with pytest.raises(ParameterError, match=r"fraction must be in \[0, 1\]"):
        verdict().keep(fraction)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_with_threshold_refuses(threshold):
    with pytest.raises(ParameterError, match="threshold must be a finite number"):
        verdict().with_threshold(threshold)


ARRAYS = ["labels", "classes", "scores", "partition", "alternatives", "clean_proba", "transition_matrix"]


@pytest.mark.parametrize(
    "renew",
    [lambda v: v, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))],
    ids=["new", "copied", "pickled"],
)
def test_nothing_can_be_changed(renew):
    v = renew(verdict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        v.threshold = 1.0
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(v, name)[0] = getattr(v, name)[1]
        np.testing.assert_array_equal(getattr(v, name), getattr(verdict(), name))
    assert repr(v) == repr(verdict())


def test_mending_y_in_place_leaves_the_verdict_alone():
    y = np.array([0, 1, 0, 1])
    v = verdict(labels=y, classes=[0, 1], alternatives=1 - y)
    y[v.id_mask] = v.suggested_labels[v.id_mask]
    assert y.tolist() == [0, 0, 0, 1]
    assert v.labels.tolist() == [0, 1, 0, 1]


def test_repr():
    assert (
        repr(verdict()) == "Verdict: 2 of 4 labels judged wrong (50.0%), estimated noise rate 25.0%, by Test"
    )
    assert repr(verdict(method="", estimated_noise_rate=float("nan"))) == (
        "Verdict: 2 of 4 labels judged wrong (50.0%)"
    )


def test_to_frame():
    frame = verdict().to_frame()
    assert list(frame.columns) == ["label", "score", "clean_proba", "verdict", "suggested_label"]
    assert frame["verdict"].tolist() == ["clean", "wrong label", "clean", "out of distribution"]
    assert isinstance(frame["verdict"].dtype, pd.CategoricalDtype)
    assert frame["suggested_label"].tolist() == ["cat", "cat", "cat", "dog"]
    assert frame["score"].tolist() == [3, -1, 2, -4]
    assert "clean_proba" not in verdict(clean_proba=None).to_frame()


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": [1, np.nan, 0, 0]},
        {"scores": [1, np.inf, 0, 0]},
        {"scores": np.zeros((4, 1))},
        {"labels": ["cat"]},
        {"partition": [0, 0]},
        {"partition": [0, 1, 2, 3]},
        {"partition": [0, 1, 2, 256]},
        {"partition": [0, 1, 0.5, 2]},
        {"alternatives": ["cat"]},
        {"clean_proba": [0.5]},
    ],
    ids=str,
)
def test_bad_arrays_are_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        verdict(**changes)


# Signals


def signals(n=4, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    probs = {
        name: rng.dirichlet(np.ones(n_classes), n)
        for name in ("probs", "mean_probs", "path_probs", "teacher_probs")
    }
    return Signals(
        **probs,
        losses=rng.random((2, n)),
        margins=rng.random((2, n)),
        predictions=rng.integers(n_classes, size=(2, n)),
        learning_rates=np.array([0.1, 0.01]),
        view_probs=rng.dirichlet(np.ones(n_classes), (2, n)),
        features=rng.random((n, 5)),
        feature_norms=rng.random(n),
        neighbors=np.stack([(np.arange(n) + 1) % n, (np.arange(n) + 2) % n], axis=1),
        probe_probs=rng.dirichlet(np.ones(n_classes), 2),
        probe_codes=np.array([0, 2]),
        probe_rows=np.array([1, 3]),
    )


NAMES = [field.name for field in dataclasses.fields(Signals) if field.name != "peer"]


def test_class_order_there_and_back():
    order = np.array([2, 0, 1])
    given = signals()
    changed = given.with_class_order(order)
    np.testing.assert_array_equal(changed.probs[:, 0], given.probs[:, 2])
    np.testing.assert_array_equal(changed.view_probs[..., 1], given.view_probs[..., 0])
    np.testing.assert_array_equal(order[changed.predictions], given.predictions)
    np.testing.assert_array_equal(order[changed.probe_codes], given.probe_codes)
    back = changed.with_class_order(np.argsort(order))
    for name in NAMES:
        np.testing.assert_array_equal(getattr(back, name), getattr(given, name))
    unchanged = set(NAMES) - {
        "probs",
        "mean_probs",
        "path_probs",
        "teacher_probs",
        "view_probs",
        "probe_probs",
        "predictions",
        "probe_codes",
    }
    for name in unchanged:
        np.testing.assert_array_equal(getattr(changed, name), getattr(given, name))


def test_a_peer_follows_the_order_of_the_classes_and_is_checked():
    order = np.array([2, 0, 1])
    both = dataclasses.replace(signals(), peer=signals(seed=1))
    changed = both.with_class_order(order)
    np.testing.assert_array_equal(changed.peer.probs, both.peer.probs[:, order])
    np.testing.assert_array_equal(order[changed.peer.predictions], both.peer.predictions)
    assert signals().with_class_order(order).peer is None
    both.check(4, 3)
    stranger = dataclasses.replace(signals(), peer=Signals(losses=np.zeros((9, 5))))
    with pytest.raises(
        InputError, match=r"signals\.peer\.losses must have one entry for each of the 4 labels"
    ):
        stranger.check(4, 3)
    with pytest.raises(InputError, match=r"signals\.peer\.predictions must hold whole numbers"):
        Signals(peer=Signals(predictions=np.full((2, 4), 3))).check(4, 3)
    with pytest.raises(InputTypeError, match="peer must be Signals or None, got dict"):
        Signals(peer={"losses": np.zeros((2, 4))})


def test_has_and_require():
    s = Signals(probs=[[0.5, 0.5]])
    assert s.has("probs")
    assert not s.has("probs", "losses")
    assert isinstance(s.require("probs")[0], np.ndarray)
    with pytest.raises(MissingSignalError, match=r"signals\.losses must be recorded.*pass losses="):
        s.require("probs", "losses")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probs": np.ones((5, 3)) / 3}, "same number of rows"),
        ({"losses": np.ones((3, 4))}, "same number of epochs"),
        ({"mean_probs": np.ones((4, 2)) / 2}, "same number of classes"),
        ({"probe_codes": np.array([1])}, "same number of probes"),
        ({"losses": np.ones(4)}, r"losses must have the axes \(E, n\)"),
        ({"view_probs": np.ones((3, 4, 3)) / 3}, r"view_probs must have the axes \(2, n, K\)"),
    ],
)
def test_signals_that_do_not_fit_together(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(signals(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"features": np.full((4, 5), np.nan)}, "features must be finite"),
        ({"losses": np.full((2, 4), np.inf)}, "losses must be finite"),
        ({"predictions": np.full((2, 4), 3)}, "predictions must hold whole numbers from 0 to 2"),
        ({"predictions": np.full((2, 4), -1)}, "predictions must hold whole numbers"),
        ({"predictions": np.array([[2, 2, 2, -1]] * 2)}, "predictions must hold whole numbers"),
        ({"probe_codes": np.array([0.0, 1.0])}, "probe_codes must hold whole numbers"),
        ({"neighbors": np.full((4, 2), 4)}, "neighbors must hold whole numbers from 0 to 3"),
        ({"probe_rows": np.array([0, 4])}, "probe_rows must hold whole numbers from 0 to 3"),
    ],
)
def test_check_numbers(changes, message):
    s = dataclasses.replace(signals(), **changes)
    if message is None:
        s.check(4, 3)
    else:
        with pytest.raises(InputError, match=message):
            s.check(4, 3)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("probe") and n != "learning_rates"])
def test_check_names_the_field_of_other_rows(name):
    s = Signals(**{name: getattr(signals(), name)})
    with pytest.raises(
        InputError, match=rf"signals\.{name} must have one entry for each of the 7 labels, got 4"
    ):
        s.check(7, 3)


@pytest.mark.parametrize(
    "name", ["probs", "mean_probs", "path_probs", "teacher_probs", "view_probs", "probe_probs"]
)
def test_check_names_the_field_of_other_classes(name):
    s = Signals(**{name: getattr(signals(), name)})
    with pytest.raises(InputError, match=rf"signals\.{name} must have one column for each of the 4 classes"):
        s.check(4, 4)
