"""judge: out-of-sample probabilities to a verdict."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from noisefilter import judge, plant_noise, splits
from noisefilter.errors import InputError, InputTypeError, LabelError, ParameterError


@pytest.fixture
def probs(blobs):
    return cross_val_predict(LogisticRegression(), blobs.X, blobs.y, method="predict_proba")


def test_three_rows_by_hand():
    """Both rows labeled b and one labeled a are surely a; the thresholds are the mean self-confidences."""
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9]])
    verdict = judge(probs, ["a", "a", "b", "b"])
    assert verdict.clean_mask.tolist() == [True, True, False, True]
    assert verdict.suggested_labels.tolist() == ["a", "a", "a", "b"]
    # Of the rows labeled b one is counted as a (0.9 >= 0.85) and one as b; of those labeled a, one as a.
    np.testing.assert_allclose(verdict.transition_matrix, [[2 / 3, 1 / 3], [0, 1]])
    assert verdict.estimated_noise_rate == 0.25
    assert verdict.method == "confident joint" and not verdict.open_set


def test_flags_what_cleanlab_flags(blobs, probs):
    cleanlab_filter = pytest.importorskip("cleanlab.filter")
    issues = cleanlab_filter.find_label_issues(blobs.y, probs, n_jobs=1)
    verdict = judge(probs, blobs.y)
    assert np.array_equal(~verdict.clean_mask, issues) and 20 < issues.sum() < 60


@pytest.mark.parametrize("score", ["corrected", "margin", "self_confidence"])
def test_scores_put_wrong_labels_first(blobs, probs, score):
    verdict = judge(probs, blobs.y, score=score)
    assert roc_auc_score(~blobs.wrong, verdict.scores) > 0.9
    assert np.array_equal(~verdict.clean_mask, ~splits.joint(probs, blobs.y).clean)
    if score == "self_confidence":
        np.testing.assert_allclose(verdict.scores, probs[np.arange(300), blobs.y], rtol=1e-6)
    assert verdict.keep(0.5).clean_mask.sum() == 150


@pytest.mark.parametrize("kind", ["symmetric_excluding", "annotator"])
def test_pairs_that_the_joint_has_not_met_are_possible(kind):
    """400 rows of ten classes: most pairs are met by no row, and some of these hold a wrong label."""
    X, truth = (part[:400] for part in load_digits(return_X_y=True))
    found = {"corrected": [], "margin": []}
    for seed in range(2):
        y, info = plant_noise(truth, kind, 0.1, random_state=seed, X=X)
        model = LogisticRegression(C=0.1, max_iter=200)
        probs = cross_val_predict(model, X / 16, y, cv=3, method="predict_proba")
        for score, aucs in found.items():
            verdict = judge(probs, y, score=score)
            aucs.append(roc_auc_score(~info.mask, verdict.scores))
        assert (verdict.transition_matrix == 0).mean() > 0.3
    assert np.mean(found["corrected"]) > np.mean(found["margin"]) - 0.03


def test_names_of_classes_change_nothing_but_names(blobs, probs):
    plain = judge(probs, blobs.y)
    names = np.array(["q", "b", "x"])
    order = np.argsort(names)
    renamed = judge(pd.DataFrame(probs[:, order]), pd.Series(names[blobs.y], dtype="category"))
    assert np.array_equal(plain.scores, renamed.scores)
    assert np.array_equal(plain.partition, renamed.partition)
    assert np.array_equal(names[plain.suggested_labels], renamed.suggested_labels)
    assert renamed.classes.tolist() == ["b", "q", "x"]
    assert np.array_equal(plain.transition_matrix[np.ix_(order, order)], renamed.transition_matrix)


def test_tensors_are_arrays(blobs, probs):
    told = judge(torch.tensor(probs, requires_grad=True), torch.tensor(blobs.y))
    assert np.array_equal(told.scores, judge(probs, blobs.y).scores)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: p[:-1], InputError, r"one row for each of the 300 labels .* got shape \(299, 3\)"),
        (lambda p: p[:, 0], InputError, r"got shape \(300,\)"),
        (lambda p: p[:, :2], InputError, "one column for each of the 3 classes in y, in sorted order, got 2"),
        (lambda p: np.where(p == p[4, 1], np.nan, p), InputError, "must be finite, got NaN .* in row 4"),
        (
            lambda p: 3 * p,
            InputError,
            "rows that sum to one, got .* a sum of 3 in row 0. Logits must pass a softmax",
        ),
        (lambda p: p - 0.5 + 1 / 6, InputError, "at least 0 in rows that sum to one, got -"),
        (lambda p: p.astype(str), InputTypeError, "pred_probs must be numbers, got <U"),
    ],
)
def test_wrong_probabilities_are_one_sentence(blobs, probs, change, error, message):
    with pytest.raises(error, match=message):
        judge(change(probs), blobs.y)


def test_wrong_labels_and_parameters_are_named(blobs, probs):
    with pytest.raises(LabelError, match="two classes"):
        judge(probs, np.zeros(300))
    with pytest.raises(ParameterError, match="score must be one of"):
        judge(probs, blobs.y, score="entropy")
