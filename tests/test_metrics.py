from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter import metrics
from noisefilter.errors import InputError, InputTypeError

pairs = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


def naive_auc(scores, wrong):
    wins = [(c > w) + 0.5 * (c == w) for c in scores[~wrong] for w in scores[wrong]]
    return np.mean(wins) if wins else np.nan


def naive_false_negatives(scores, wrong):
    m = sum(wrong)
    worst = sorted(range(len(scores)), key=lambda i: (scores[i], i))[:m]
    return sum(1 for i in range(len(wrong)) if wrong[i] and i not in worst) / m if m else np.nan


@settings(deadline=None)
@given(pairs)
def test_order_metrics_match_their_definitions(rows):
    scores = np.array([score for score, _ in rows], dtype=float)
    wrong = np.array([flag for _, flag in rows])
    np.testing.assert_allclose(metrics.clean_auc(scores, wrong), naive_auc(scores, wrong))
    np.testing.assert_allclose(
        metrics.false_negative_rate_at_true_count(scores, wrong), naive_false_negatives(scores, wrong)
    )


def test_higher_scores_mean_cleaner():
    wrong = np.array([True, False, False])
    assert metrics.clean_auc([0.0, 1.0, 2.0], wrong) == 1
    assert metrics.false_negative_rate_at_true_count([0.0, 1.0, 2.0], wrong) == 0
    assert metrics.false_negative_rate_at_true_count([2.0, 1.0, 0.0], wrong) == 1


def ratio(a, b):
    return a / b if b else np.nan


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_flagged_quality_matches_counts(rows):
    flagged, wrong = (np.array(column) for column in zip(*rows, strict=True))
    hits = sum(flagged & wrong)
    expected = (
        ratio(hits, sum(flagged)),
        ratio(hits, sum(wrong)),
        ratio(2 * hits, sum(flagged) + sum(wrong)),
    )
    np.testing.assert_allclose(metrics.precision_recall_f1(flagged, wrong), expected)


def test_transition_matrix_has_a_row_for_each_true_class_and_leaves_strangers_out():
    truth = np.array(["cat", "cat", "cat", "dog", "ox", "cat"])
    labels = np.array(["cat", "dog", "cat", "dog", "cat", "elk"])
    matrix = metrics.transition_matrix(labels, truth, ["dog", "cat", "emu"])
    np.testing.assert_allclose(matrix, [[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 0]])
    np.testing.assert_array_equal(metrics.transition_matrix(labels, truth, ["a", "b"]), np.zeros((2, 2)))


def test_noise_rate_counts_the_labels_that_differ():
    assert metrics.noise_rate(["a", "b", "b", "a"], ["a", "a", "b", "a"]) == 0.25


def verdict(**changes):
    fields = {
        "labels": np.array(["b", "a", "b", "a"]),
        "classes": np.array(["a", "b"]),
        "scores": np.array([0.1, 0.8, 0.9, 0.2]),
        "partition": np.array([1, 0, 0, 2], dtype=np.int8),
        "estimated_noise_rate": 0.5,
        "transition_matrix": np.array([[0.5, 0.5], [0.0, 1.0]]),
    }
    return SimpleNamespace(**fields | changes)


def test_verdict_report_by_hand():
    report = metrics.verdict_report(verdict(), ["a", "a", "b", "a"])
    assert report == pytest.approx(
        {
            "noise_rate": 0.25,
            "flagged_rate": 0.5,
            "auc": 1.0,
            "precision": 0.5,
            "recall": 1.0,
            "f1": 2 / 3,
            "false_negative_rate_at_true_count": 0.0,
            "estimated_noise_rate": 0.5,
            "noise_rate_error": 0.25,
            "transition_error": (1 / 6 + 0) / 2,
        }
    )


def test_verdict_report_on_clean_data_and_with_strangers():
    clean = metrics.verdict_report(verdict(), verdict().labels)
    assert np.isnan([clean["auc"], clean["recall"], clean["false_negative_rate_at_true_count"]]).all()
    assert clean["precision"] == clean["f1"] == clean["noise_rate"] == 0
    strangers = metrics.verdict_report(verdict(), ["x", "a", "b", "x"])
    assert strangers["noise_rate"] == 0.5
    assert strangers["precision"] == strangers["recall"] == 1
    assert strangers["transition_error"] == pytest.approx(0.25)
    one_true_class = metrics.verdict_report(verdict(), ["a"] * 4)
    assert one_true_class["transition_error"] == 0
    assert np.isnan(metrics.verdict_report(verdict(), ["x"] * 4)["transition_error"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.clean_auc([0.0, np.nan], [True, False]), InputError, "scores must be finite"),
        (lambda: metrics.clean_auc([0.0], [True, False]), InputError, "of one length, got shapes"),
        (lambda: metrics.clean_auc([0.0, 1.0], [1, 0]), InputTypeError, "wrong must be a mask of bool"),
        (lambda: metrics.precision_recall_f1([1], [True]), InputTypeError, "flagged must be a mask of bool"),
        (lambda: metrics.precision_recall_f1([True], [True, False]), InputError, "flagged and wrong"),
        (
            lambda: metrics.false_negative_rate_at_true_count([0.0], np.zeros(0, bool)),
            InputError,
            "not empty",
        ),
        (lambda: metrics.noise_rate([1, 2], [1]), InputError, "given and truth"),
        (lambda: metrics.noise_rate([], []), InputError, "not empty"),
        (lambda: metrics.transition_matrix([[1]], [[1]], [1]), InputError, "one-dimensional"),
        (lambda: metrics.verdict_report(verdict(), ["a"]), InputError, "truth and labels"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
