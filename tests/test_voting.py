"""VoteFilter: one verdict of several filters, and trainings shared where that changes nothing."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline

from noisefilter import FilteredClassifier, FilterSampler, INNScorer, Verdict, VoteFilter
from noisefilter.base import BaseFilter
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE

FIELDS = ("scores", "partition", "alternatives", "clean_proba", "transition_matrix", "labels", "classes")


def inn(**parameters):
    return INNScorer(**{"max_epochs": 3} | parameters)


def vote(*members, random_state=0, **parameters):
    named = [(f"m{i}", member) for i, member in enumerate(members)]
    return VoteFilter(named, random_state=random_state, **parameters)


def assert_same(one, other):
    for name in FIELDS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.threshold == other.threshold and one.estimated_noise_rate == other.estimated_noise_rate


@pytest.fixture
def trainings(monkeypatch):
    """Count how often a filter trains."""
    count = []
    fit = BaseFilter.fit

    def counted(self, *args, **kwargs):
        count.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(BaseFilter, "fit", counted)
    return count


# --- the vote, by hand ----------------------------------------------------------------------------


class Told(INNScorer):
    """A filter that says what it was told to say."""

    def __init__(self, verdict=None, random_state=None):
        super().__init__(random_state=random_state)
        self.verdict = verdict

    def fit(self, X, y=None, features=None):
        self.verdict_, self.classes_ = self.verdict, self.verdict.classes
        return self


def told(scores, partition, alternatives="bbbbb", **fields):
    made = {"labels": list("aaaaa"), "classes": ["a", "b", "c"], "estimated_noise_rate": 0.2} | fields
    made |= {"scores": scores, "partition": partition, "alternatives": list(alternatives), "method": "M"}
    return Told(Verdict(**made))


def test_rank_is_the_mean_of_normalized_ranks_at_the_mean_of_the_rates():
    one = told([1, 2, 3, 4, 5], [1, 1, 0, 0, 0], estimated_noise_rate=0.3, clean_proba=[0, 0, 1, 1, 1])
    other = told([50, 30, 30, 20, 90], [0, 0, 0, 0, 0], clean_proba=[1, 1, 1, 1, 1])
    verdict = vote(one, other).fit(None, None).verdict_
    ranks = (np.array([[1, 2, 3, 4, 5], [4, 2.5, 2.5, 1, 5]]) - 0.5) / 5
    np.testing.assert_allclose(verdict.scores, ranks.mean(axis=0))
    # Two and none of five rows: one is rejected on average, the second, which has the lowest sum of ranks.
    assert verdict.partition.tolist() == [CLEAN, ID_NOISE, CLEAN, CLEAN, CLEAN]
    assert verdict.estimated_noise_rate == 0.25 and verdict.threshold == pytest.approx(0.4)
    np.testing.assert_allclose(verdict.clean_proba, [0.5, 0.5, 1, 1, 1])
    assert verdict.method == "VoteFilter (M, M)" and verdict.transition_matrix is None


@pytest.mark.parametrize(("min_votes", "rejected"), [(None, 2), (1, 3), (2, 2), (3, 1)])
def test_agreement_counts_votes(min_votes, rejected):
    members = [told(np.arange(5), np.arange(5) < flagged) for flagged in (1, 2, 3)]
    verdict = vote(*members, vote="agreement", min_votes=min_votes).fit(None, None).verdict_
    assert (~verdict.clean_mask).tolist() == [i < rejected for i in range(5)]
    assert verdict.threshold is None


def test_half_of_the_votes_is_no_majority():
    members = [told(np.arange(5), partition) for partition in ([1, 1, 0, 0, 0], [1, 0, 0, 0, 0])]
    assert vote(*members, vote="agreement").fit(None, None).id_mask_.tolist() == [True] + [False] * 4


def test_strangers_need_most_of_those_that_look_and_reject():
    looking = [
        told(np.arange(5), [OOD_NOISE, OOD_NOISE, CLEAN, ID_NOISE, CLEAN], open_set=True),
        told(np.arange(5), [OOD_NOISE, ID_NOISE, OOD_NOISE, ID_NOISE, CLEAN], open_set=True),
    ]
    blind = told(np.arange(5), [ID_NOISE] * 4 + [CLEAN])
    verdict = vote(*looking, blind, vote="agreement").fit(None, None).verdict_
    assert verdict.open_set
    assert verdict.partition.tolist() == [OOD_NOISE, ID_NOISE, OOD_NOISE, ID_NOISE, CLEAN]
    assert verdict.suggested_labels.tolist() == list("ababa")
    assert not vote(blind).fit(None, None).verdict_.open_set


def test_suggestions_are_those_of_most_filters_and_else_of_the_first():
    members = [told(np.arange(5), [1] * 5, alternatives=text) for text in ("bcbcc", "cbbcb", "cbbbb")]
    assert "".join(vote(*members).fit(None, None).verdict_.alternatives) == "cbbcb"
    assert "".join(vote(*members[:2]).fit(None, None).verdict_.alternatives) == "bcbcc"


# --- trainings are shared, and only where it makes no difference -----------------------------------


def test_a_shared_training_gives_the_bits_of_trainings_apart(blobs, trainings):
    members = [inn(), inn(row_score="margin", split="gaussian", probes=0.1), inn(row_score="probability"),
               inn(split="probes", open_set=True), inn(probes=0.1)]  # fmt: skip
    voted = vote(*members).fit(blobs.X, blobs.y)
    assert len(trainings) == 2  # with the default probes, and with a tenth
    seed = voted.filters_[0].random_state
    for fitted, member in zip(voted.filters_, members, strict=True):
        apart = clone(member).set_params(random_state=seed).fit(blobs.X, blobs.y)
        assert_same(fitted.verdict_, apart.verdict_)
        assert np.array_equal(fitted.score_new(blobs.X, blobs.y), apart.score_new(blobs.X, blobs.y))
        assert sorted(vars(fitted)) == sorted(vars(apart))
    ranks = [rankdata(fitted.scores_) for fitted in voted.filters_]
    np.testing.assert_allclose(voted.scores_, (np.mean(ranks, axis=0) - 0.5) / 300)


@pytest.mark.parametrize(
    "other",
    [
        {"max_epochs": 4},
        {"random_state": 1},
        {"n_neighbors": 4},
        {"average": False},
        {"probes": 0},
        {"split": "beta", "row_score": "probability"},  # plants nothing
        {"keep_signals": False},
        {"estimator": KNeighborsClassifier(), "max_epochs": None},
    ],
    ids=lambda other: next(iter(other)),
)
def test_filters_that_train_otherwise_train_apart(blobs, trainings, other):
    vote(inn(), inn(**other)).fit(blobs.X, blobs.y)
    assert len(trainings) == 2


def test_one_prototype_is_trained_once(blobs, trainings):
    prototype = KNeighborsClassifier()
    members = [INNScorer(prototype, row_score=score) for score in ("corrected", "margin")]
    voted = vote(*members).fit(blobs.X, blobs.y)
    assert len(trainings) == 1
    assert not hasattr(prototype, "classes_") and voted.filters_[1].estimator is not prototype


def test_seeds_that_are_drawn_are_not_shared(blobs, trainings):
    vote(*(inn(random_state=np.random.RandomState(0)) for _ in range(2))).fit(blobs.X, blobs.y)
    assert len(trainings) == 2


def test_one_seed_for_all_that_have_none(blobs):
    voted = vote(inn(), inn(n_neighbors=4), inn(random_state=5), random_state=None).fit(blobs.X, blobs.y)
    seeds = [fitted.random_state for fitted in voted.filters_]
    assert seeds[0] == seeds[1] != 5 and seeds[2] == 5
    assert [member.random_state for _, member in voted.filters] == [None, None, 5]


# --- the estimator --------------------------------------------------------------------------------


def test_it_finds_wrong_labels_of_any_name_and_says_which_columns_it_saw(blobs):
    y = np.array(["c", "a", "b"])[blobs.y]
    X = pd.DataFrame(blobs.X, columns=list("vwxyz"))
    voted = vote(inn(max_epochs=10), inn(max_epochs=10, n_neighbors=5)).fit(X, y)
    assert (voted.clean_mask_ == ~blobs.wrong).mean() > 0.9
    assert (voted.verdict_.suggested_labels == np.array(["c", "a", "b"])[blobs.truth]).mean() > 0.9
    assert voted.classes_.tolist() == ["a", "b", "c"] and voted.n_features_in_ == 5
    assert voted.get_feature_names_out().tolist() == list("vwxyz")
    assert voted.named_filters_.m1 is voted.filters_[1]


def test_fit_signals_takes_one_record_or_one_each(blobs):
    voted = vote(inn(), inn(n_neighbors=4)).fit(blobs.X, blobs.y)
    each = {name: fitted.signals_ for name, fitted in voted.named_filters_.items()}
    again = vote(inn(), inn(n_neighbors=4)).fit_signals(each, blobs.y)
    assert_same(again.verdict_, voted.verdict_)
    one = vote(inn(), inn(row_score="margin")).fit_signals(each["m0"], blobs.y)
    assert np.array_equal(one.filters_[0].scores_, voted.filters_[0].scores_)
    assert not hasattr(one, "n_features_in_")
    with pytest.raises(InputError, match=r"a mapping with the names \['m0', 'm1'\], got \['m0'\]"):
        again.fit_signals({"m0": each["m0"]}, blobs.y)


def test_new_rows_get_the_mean_rank_their_scores_would_have_had(blobs):
    voted = vote(inn(), inn(n_neighbors=4)).fit(blobs.X, blobs.y)
    new = voted.score_new(blobs.X[:50], blobs.y[:50])
    ranks = []
    for fitted in voted.filters_:
        scores = fitted.score_new(blobs.X[:50], blobs.y[:50])
        lower = (fitted.scores_[None] < scores[:, None]).mean(axis=1)
        ranks.append(lower + (fitted.scores_[None] == scores[:, None]).mean(axis=1) / 2)
    np.testing.assert_allclose(new, np.mean(ranks, axis=0))


def test_parameters_of_the_filters_are_reached_by_name(blobs):
    voted = vote(inn(), inn())
    assert voted.get_params()["m1__max_epochs"] == 3
    voted.set_params(m1__max_epochs=2, m0=inn(lr=0.01), vote="agreement")
    assert voted.filters[1][1].max_epochs == 2 and voted.filters[0][1].lr == 0.01
    pipeline = Pipeline([("filter", vote(inn(), inn(row_score="margin"))), ("clf", LogisticRegression())])
    search = GridSearchCV(pipeline, {"filter__m0__n_neighbors": [2, 5], "filter__vote": ["agreement"]}, cv=2)
    search.fit(blobs.X, blobs.y)
    assert (search.cv_results_["mean_test_score"] > 0.7).all()


def test_rows_of_no_class_never_reach_a_classifier(blobs):
    """In every mode, and in a Pipeline; relabeled are only those that belong to another class."""
    strange = np.arange(0, 300, 10)
    X = blobs.X.copy()
    X[strange] = X[strange].mean(axis=0) + np.random.default_rng(0).normal(size=(30, 5))
    for filter_ in (inn(max_epochs=15, open_set=True, random_state=0),
                    vote(inn(max_epochs=15, open_set=True), inn(max_epochs=15))):  # fmt: skip
        fitted = clone(filter_).fit(X, blobs.y)
        ood = fitted.ood_mask_
        assert ood.any() and fitted.verdict_.open_set
        assert np.array_equal(fitted.verdict_.suggested_labels[ood], blobs.y[ood])
        kept, labels = FilterSampler(filter_, mode="relabel").fit_resample(X, blobs.y)
        assert np.array_equal(kept, X[~ood])
        assert np.array_equal(labels, fitted.verdict_.suggested_labels[~ood])
        dropped, _ = FilterSampler(filter_).fit_resample(X, blobs.y)
        assert np.array_equal(dropped, X[fitted.clean_mask_])
        model = FilteredClassifier(filter_, LogisticRegression(), mode="relabel").fit(X, blobs.y)
        alone = LogisticRegression().fit(kept, labels)
        assert np.array_equal(model.predict_proba(X), alone.predict_proba(X))
        replaced = clone(filter_).fit_transform(X, blobs.y)
        strangers = {row.tobytes() for row in X[ood]}
        assert not strangers & {row.tobytes() for row in replaced}


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"filters": []}, ParameterError, r"list of \(name, filter\) pairs, got \[\]"),
        ({"filters": [inn()]}, ParameterError, r"list of \(name, filter\) pairs, got INNScorer"),
        (
            {"filters": [("a", LogisticRegression())]},
            InputTypeError,
            "trainers of this library, got Logistic",
        ),
        ({"filters": [("a", inn()), ("a", inn())]}, ParameterError, r"must be unique, got \['a', 'a'\]"),
        ({"filters": [("a__b", inn())]}, ParameterError, r"strings without '__', .* got \['a__b'\]"),
        ({"filters": [("vote", inn())]}, ParameterError, r"not parameters themselves, got \['vote'\]"),
        ({"filters": [(1, inn())]}, ParameterError, r"must be strings .* got \[1\]"),
        ({"vote": "mean"}, ParameterError, "vote must be 'rank' or 'agreement', got 'mean'"),
        ({"min_votes": 3, "vote": "agreement"}, ParameterError, "from 1 to the 2 filters, .* got 3"),
        ({"min_votes": 1}, ParameterError, "given with vote='agreement' only, got 1"),
        ({"random_state": "x"}, ParameterError, "random_state must be"),
    ],
)
def test_wrong_parameters_are_one_sentence(blobs, parameters, error, message):
    made = VoteFilter(**{"filters": [("a", inn()), ("b", inn())]} | parameters)
    with pytest.raises(error, match=message):
        made.fit(blobs.X, blobs.y)


def test_a_fit_that_fails_leaves_everything_as_it_was(blobs):
    voted = vote(inn(), inn(n_neighbors=4)).fit(blobs.X, blobs.y)
    before = dict(vars(voted))
    with pytest.raises(ValueError, match="length"):
        voted.fit(blobs.X, blobs.y[:-1])
    assert vars(voted) == before
