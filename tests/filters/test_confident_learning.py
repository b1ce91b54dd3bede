"""ConfidentLearningSelector: out-of-sample probabilities, and cleanlab's decision on them."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from noisefilter import ConfidentLearningSelector, Net, Signals, judge
from noisefilter.confident import RULES
from noisefilter.errors import InputError, MissingSignalError, ParameterError
from noisefilter.filters.confident_learning import _dealt
from noisefilter.networks import MLP

pytestmark = pytest.mark.filterwarnings("ignore:May not flag all label issues in class")  # cleanlab


@pytest.fixture
def probs():
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.full(4, 0.4), 400)


@pytest.fixture
def names(probs):
    """Labels whose first appearance is not their sorted order, drawn from the probabilities."""
    rng = np.random.default_rng(1)
    codes = np.array([rng.choice(4, p=row) for row in probs])
    codes[:4] = [2, 0, 3, 1]
    return np.array(["ant", "bee", "cat", "dog"])[codes]


def sorted_order(names):
    return np.unique(names, return_inverse=True)[1]


@pytest.mark.parametrize("split", RULES)
def test_the_mask_is_cleanlabs(split, probs, names):
    expected = find_label_issues(sorted_order(names), probs, filter_by=split, n_jobs=1)
    verdict = ConfidentLearningSelector(split=split).fit_signals(Signals(probs=probs), names).verdict_
    assert 20 < expected.sum() < 300 and np.array_equal(~verdict.clean_mask, expected)
    judged = judge(probs, names, rule=split)
    assert np.array_equal(~judged.clean_mask, expected)
    assert np.array_equal(judged.transition_matrix, verdict.transition_matrix)
    assert judged.estimated_noise_rate == verdict.estimated_noise_rate


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_where_classes_tie_judge_goes_by_their_order_and_the_filter_by_first_appearance(seed):
    rng = np.random.default_rng(seed)
    probs = rng.multinomial(10, np.full(4, 0.25), size=30) / 10 + 1e-9 * rng.random((30, 4))
    codes = rng.integers(0, 4, 30)
    codes[:4] = rng.permutation(4)
    expected = find_label_issues(codes, probs, n_jobs=1)
    assert np.array_equal(~judge(probs, codes).clean_mask, expected)
    number = np.argsort(codes[:4])  # of each class by first appearance
    first = find_label_issues(number[codes], probs[:, codes[:4]], n_jobs=1)
    fitted = ConfidentLearningSelector().fit_signals(Signals(probs=probs), codes)
    assert np.array_equal(~fitted.clean_mask_, first)


def test_scores_are_cleanlabs(probs, names):
    from cleanlab.rank import get_label_quality_scores

    codes = sorted_order(names)
    for row_score in ("self_confidence", "normalized_margin"):
        found = ConfidentLearningSelector(row_score=row_score).fit_signals(Signals(probs=probs), names)
        theirs = get_label_quality_scores(codes, probs, method=row_score)
        np.testing.assert_allclose(found.scores_, theirs, rtol=1e-12)


def test_no_row_is_judged_by_a_classifier_that_has_seen_it(blobs):
    """One nearest neighbor believes every label it has learned: no row would score 0."""
    model = KNeighborsClassifier(1)
    assert (model.fit(blobs.X, blobs.y).predict(blobs.X) == blobs.y).all()
    fitted = ConfidentLearningSelector(model, n_folds=3, random_state=0).fit(blobs.X, blobs.y)
    assert (fitted.scores_[blobs.wrong] == 0).mean() > 0.7


def test_probabilities_are_those_of_each_fold(blobs):
    """Every row has those of one of four classifiers that differ; rows that come later have their mean."""
    fitted = ConfidentLearningSelector(LogisticRegression(), n_folds=4, random_state=0).fit(blobs.X, blobs.y)
    order = np.argsort(blobs.y[np.sort(np.unique(blobs.y, return_index=True)[1])])  # by first appearance
    told = [model.evaluate(fitted._rows(blobs.X), False)[0][:, order] for model in fitted._fitted.models]
    matches = np.isclose(np.stack(told), fitted.signals_.probs, rtol=1e-9).all(axis=2)  # (4, n)
    assert (matches.sum(axis=0) == 1).all() and matches.sum(axis=1).tolist() == [75] * 4
    own = np.mean(told, axis=0)[np.arange(300), blobs.y]
    np.testing.assert_allclose(fitted.score_new(blobs.X, blobs.y), own)


@pytest.mark.parametrize("n_folds", [2, 5, 7])
def test_folds_are_stratified_and_of_one_size(n_folds):
    codes = np.repeat([0, 1, 2, 3], [50, 21, 3, 1])
    fold_of = _dealt(codes, n_folds, np.random.RandomState(0))
    table = np.array([[((codes == k) & (fold_of == f)).sum() for f in range(n_folds)] for k in range(4)])
    assert (np.ptp(table, axis=1) <= 1).all() and np.ptp(table.sum(axis=0)) <= 1
    assert not np.array_equal(fold_of, _dealt(codes, n_folds, np.random.RandomState(1)))


def test_a_class_of_fewer_rows_than_folds(blobs):
    y = blobs.y.copy()
    y[5], y[7:9] = 77, 78
    for model in (LogisticRegression(max_iter=1000), None):
        fitted = ConfidentLearningSelector(model, max_epochs=1 if model is None else None, random_state=0)
        fitted.fit(blobs.X, y)
        assert fitted.scores_[5] < 0.4 and fitted.clean_mask_[5]  # the only row of a class is kept
        assert np.isfinite(fitted.verdict_.transition_matrix).all()


def test_a_fold_that_leaves_one_class(blobs):
    X, y = blobs.X[:12], np.array([0] + [1] * 11)
    fitted = ConfidentLearningSelector(DecisionTreeClassifier(), n_folds=3, random_state=0).fit(X, y)
    assert len(fitted._fitted.models) == 2 and fitted.scores_[0] == 0
    with pytest.raises(InputError, match=r"y must leave two classes .* got classes of \[1, 1\] rows"):
        ConfidentLearningSelector(DecisionTreeClassifier(), n_folds=2).fit(X[:2], y[:2])


def test_more_folds_than_rows_are_clipped(blobs):
    X, y = blobs.X[:6], np.array([0, 1, 0, 1, 0, 1])
    with pytest.warns(UserWarning, match=r"n_folds must be at most the 6 rows, got 9; 6 are used"):
        fitted = ConfidentLearningSelector(LogisticRegression(), n_folds=9).fit(X, y)
    assert len(fitted._fitted.models) == 6


def test_every_fold_starts_from_new_weights(blobs, images):
    prototype = Net(MLP, module__n_inputs=5, module__n_classes=3, max_epochs=1, lr=1e-9)
    fitted = ConfidentLearningSelector(prototype, n_folds=3, random_state=0).fit(blobs.X, blobs.y)
    weights = [next(model.net.module_.parameters()).detach().numpy() for model in fitted._fitted.models]
    assert not hasattr(prototype, "module_")
    assert not np.allclose(weights[0], weights[1]) and not np.allclose(weights[1], weights[2])


def test_bad_parameters_and_signals_are_named(blobs, probs, names):
    for n_folds in (1, 2.5, "5"):
        with pytest.raises(ParameterError, match=r"n_folds must be a whole number of at least 2, got"):
            ConfidentLearningSelector(n_folds=n_folds).fit(blobs.X, blobs.y)
    with pytest.raises(ParameterError, match=r"split must be one of .* got 'joint'"):
        ConfidentLearningSelector(split="joint").fit(blobs.X, blobs.y)
    with pytest.raises(ParameterError, match=r"row_score must be one of"):
        ConfidentLearningSelector(row_score="aum").fit(blobs.X, blobs.y)
    with pytest.raises(MissingSignalError, match=r"signals\.probs must be recorded"):
        ConfidentLearningSelector().fit_signals(Signals(mean_probs=probs), names)
