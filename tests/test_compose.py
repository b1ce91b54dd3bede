"""FilteredClassifier and FilterSampler, with a filter that needs no network."""

import copy

import imblearn.pipeline as imblearn_pipeline
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from noisefilter.compose import FilteredClassifier, FilterSampler
from noisefilter.errors import InputError, InputTypeError, LabelError, NoiseFilterError, ParameterError
from noisefilter.verdict import ID_NOISE, OOD_NOISE, Verdict


class Judge(BaseEstimator):
    """Rejects the rows whose label a cross-validated linear model finds less likely than `threshold`."""

    def __init__(self, threshold=0.3):
        self.threshold = threshold

    def fit(self, X, y, features=None):
        if y is None:
            validate_data(self, X, y)  # raises
        X = validate_data(self, X, allow_nd=True, dtype=np.float64)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if len(y) != len(X):
            raise ValueError(f"y must have {len(X)} entries, got {len(y)}: inconsistent numbers of samples.")
        if len(classes) < 2:
            raise ValueError(f"y must have at least two classes, got one class {classes[0]!r}.")
        seen = (X if features is None else np.asarray(features)).reshape(len(X), -1)
        self.n_columns_seen_ = seen.shape[1]
        folds = int(min(3, np.bincount(codes).min()))
        judge = LogisticRegression()
        if folds > 1:
            given = {"cv": folds, "params": {}}  # scikit-learn 1.6 with routing stumbles over None
            probs = cross_val_predict(judge, seen, codes, method="predict_proba", **given)
        else:
            probs = judge.fit(seen, codes).predict_proba(seen)
        rows = np.arange(len(y))
        scores = probs[rows, codes].copy()
        probs[rows, codes] = -1
        partition, others = ID_NOISE * (scores < self.threshold), classes[probs.argmax(axis=1)]
        self.verdict_ = Verdict(y, classes, scores, partition, others, method="Judge")
        self.clean_mask_ = self.verdict_.clean_mask
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class Told(BaseEstimator):
    """Judges as it is told."""

    def __init__(self, partition, clean_proba=None):
        self.partition = partition
        self.clean_proba = clean_proba

    def fit(self, X, y, features=None, note=None):
        labels = np.asarray(y)
        classes = np.unique(labels)
        others = classes[(np.searchsorted(classes, labels) + 1) % len(classes)]
        self.told_, self.note_, self.n_features_in_ = features, note, X.shape[1]
        self.verdict_ = Verdict(
            labels, classes, np.zeros(len(labels)), self.partition, others, clean_proba=self.clean_proba
        )
        return self


class Probe(ClassifierMixin, BaseEstimator):
    """Remembers what it was given."""

    def fit(self, X, y, sample_weight=None, groups=None, note=None):
        self.X_, self.y_, self.classes_ = X, y, np.unique(y)
        self.sample_weight_, self.groups_, self.note_ = sample_weight, groups, note
        return self

    def predict(self, X, flip=False):
        return np.full(len(X), self.classes_[-1 if flip else 0])

    def score(self, X, y, sample_weight=None):
        return 42.0 if sample_weight is None else float(np.sum(sample_weight))


def blobs(n=90, n_classes=3, seed=0, rate=0.2):
    """Return X, noisy y, true y."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % n_classes
    X = rng.normal(size=(n, 4)) + 4 * np.eye(n_classes, 4)[truth]
    y = np.where(rng.random(n) < rate, (truth + 1) % n_classes, truth)
    return X, y, truth


PARTITION = np.tile([0, 1, 0, 0, 2, 0], 15)
CLEAN = PARTITION == 0


# What check_estimator asks

NOT_WEIGHTS = "the filter judges rows, whatever they weigh: a row of weight 0 still tells about its neighbors"


@parametrize_with_checks(
    [FilteredClassifier(Judge(), LogisticRegression())],
    expected_failed_checks=lambda _: {"check_sample_weight_equivalence_on_dense_data": NOT_WEIGHTS},
)
def test_estimator_checks(estimator, check):
    check(estimator)


def test_parameters_are_never_changed():
    model = FilteredClassifier(Judge(threshold=0.2), LogisticRegression(C=3.0), mode="weight")
    before = copy.deepcopy(model.get_params())
    X, y, _ = blobs()
    model.fit(X, y)
    assert str(model.get_params()) == str(before)
    assert not hasattr(model.filter, "verdict_") and not hasattr(model.classifier, "coef_")
    again = clone(model)
    assert again.get_params()["filter__threshold"] == 0.2 and again.get_params()["classifier__C"] == 3.0
    assert not hasattr(again, "verdict_")


def test_a_fit_that_fails_leaves_everything_as_it_was():
    X, y, _ = blobs()
    fresh = FilteredClassifier(Told(np.where(y == 0, 0, 1)), LogisticRegression())
    with pytest.raises(LabelError, match="at least two classes"):
        fresh.fit(X, y)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    sampler = FilterSampler(fresh.filter)
    with pytest.raises(LabelError, match="at least two classes"):
        sampler.fit_resample(X, y)
    assert not hasattr(sampler, "verdict_") and not hasattr(sampler, "filter_")

    fitted = FilteredClassifier(Judge(), LogisticRegression()).fit(X, y)
    before = dict(vars(fitted))
    fitted.set_params(filter=fresh.filter)
    with pytest.raises(LabelError):
        fitted.fit(X, np.array(["c", "b", "a"])[y])
    assert {**vars(fitted), "filter": before["filter"]} == before


@pytest.mark.parametrize("mode", ["drop", "weight", "relabel"])
def test_weights_of_another_length_are_refused(mode):
    """As many weights as rows are kept fit the classifier, and the wrong rows."""
    X, y, _ = blobs()
    for n_weights in (CLEAN.sum(), 91):
        model = FilteredClassifier(Told(PARTITION), Probe(), mode=mode)
        with pytest.raises(InputError, match=f"one entry for each of the 90 rows, got {n_weights}"):
            model.fit(X, y, sample_weight=np.ones(n_weights))
        assert not hasattr(model, "verdict_")


# Modes


def test_drop_learns_from_clean_rows_only():
    X, y, _ = blobs()
    model = FilteredClassifier(Told(PARTITION), Probe()).fit(X, y)
    np.testing.assert_array_equal(model.classifier_.X_, X[CLEAN])
    np.testing.assert_array_equal(model.classifier_.y_, y[CLEAN])
    assert model.classifier_.sample_weight_ is None
    np.testing.assert_array_equal(model.verdict_.partition, PARTITION)
    assert model.filter_.verdict_ is model.verdict_


def test_drop_beats_learning_from_noise():
    X, y, truth = blobs(n=300, rate=0.3)
    nearest = KNeighborsClassifier(1)
    filtered = FilteredClassifier(Judge(0.5), nearest).fit(X, y).predict(X)
    assert np.mean(filtered == truth) > 0.9 > 0.8 > np.mean(nearest.fit(X, y).predict(X) == truth)


def test_relabel_takes_suggestions_and_leaves_strangers_out():
    X, y, _ = blobs()
    model = FilteredClassifier(Told(PARTITION), Probe(), mode="relabel").fit(X, y)
    known = PARTITION != OOD_NOISE
    np.testing.assert_array_equal(model.classifier_.X_, X[known])
    np.testing.assert_array_equal(
        model.classifier_.y_, np.where(PARTITION == ID_NOISE, (y + 1) % 3, y)[known]
    )


def test_weight_is_the_probability_to_be_clean():
    X, y, _ = blobs()
    proba = np.linspace(0, 1, 90)
    model = FilteredClassifier(Told(PARTITION, proba), Probe(), mode="weight").fit(X, y)
    left = (PARTITION != OOD_NOISE) & (proba > 0)  # a stranger's label is never right
    assert not left[0] and (PARTITION == OOD_NOISE).any()
    np.testing.assert_array_equal(model.classifier_.sample_weight_, proba[left])
    np.testing.assert_array_equal(model.classifier_.X_, X[left])
    given = np.arange(90.0)
    model.fit(X, y, sample_weight=given)
    np.testing.assert_array_equal(model.classifier_.sample_weight_, (proba * given)[left])


def test_weight_without_probabilities_is_the_partition():
    X, y, _ = blobs()
    model = FilteredClassifier(Told(PARTITION), Probe(), mode="weight").fit(X, y, sample_weight=[2.0] * 90)
    np.testing.assert_array_equal(model.classifier_.sample_weight_, np.full(CLEAN.sum(), 2.0))


def test_weight_needs_a_classifier_that_takes_weights():
    X, y, _ = blobs()
    for classifier in (KNeighborsClassifier(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(ParameterError, match="must take sample_weight"):
            FilteredClassifier(Told(PARTITION), classifier, mode="weight").fit(X, y)


def test_weight_reaches_into_a_pipeline_with_routing():
    X, y, _ = blobs()
    with config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        inner = make_pipeline(scaler, Probe().set_fit_request(sample_weight=True))
        model = FilteredClassifier(Told(PARTITION), inner, mode="weight").fit(X, y)
    np.testing.assert_array_equal(model.classifier_[-1].sample_weight_, np.ones(CLEAN.sum()))


def test_refusals():
    X, y, _ = blobs()
    with pytest.raises(ParameterError, match="mode must be one of 'drop', 'weight', 'relabel', got 'keep'"):
        FilteredClassifier(Judge(), Probe(), mode="keep").fit(X, y)
    with pytest.raises(ParameterError, match="mode must be one of 'drop', 'relabel', got 'weight'"):
        FilterSampler(Judge(), mode="weight").fit_resample(X, y)
    for user in (FilteredClassifier(GaussianNB(), Probe()).fit, FilterSampler(GaussianNB()).fit_resample):
        with pytest.raises(InputTypeError, match="filter must have a verdict_ after fit, got GaussianNB"):
            user(X, y)
    with pytest.raises(NotFittedError):
        FilteredClassifier(Judge(), Probe()).predict(X)
    assert not hasattr(FilteredClassifier(Judge(), Probe()), "n_features_in_")


# Classes


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_class_gets_probability_zero(lost):
    X, y, _ = blobs()
    names = np.array(["ant", "bee", "cat"])
    partition = np.where(y == lost, ID_NOISE, 0)
    with pytest.warns(UserWarning, match=rf"no row of the classes \['{names[lost]}'\]"):
        model = FilteredClassifier(Told(partition), LogisticRegression()).fit(X, names[y])
    left = [k for k in range(3) if k != lost]
    inner = model.classifier_
    assert model.classes_.tolist() == names.tolist()
    expected = np.zeros((90, 3))
    expected[:, left] = inner.predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    np.testing.assert_array_equal(model.classes_[model.predict_proba(X).argmax(axis=1)], model.predict(X))
    np.testing.assert_array_equal(model.classes_[model.decision_function(X).argmax(axis=1)], model.predict(X))
    assert (model.decision_function(X)[:, lost] == np.finfo(float).min).all()
    assert np.isneginf(model.predict_log_proba(X)[:, lost]).all()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), expected)
    assert model.score(X, names[y]) == np.mean(model.predict(X) == names[y])


class Five(Probe):
    def decision_function(self, X):
        return np.zeros((len(X), 5))


@pytest.mark.filterwarnings("ignore:The filter left no row")
@pytest.mark.parametrize("classifier", [SVC(decision_function_shape="ovo"), Five()], ids=str)
def test_decision_values_that_are_not_per_class_are_refused_if_one_is_lost(classifier):
    X, y, _ = blobs(n_classes=4)
    whole = FilteredClassifier(Told(np.zeros(90)), classifier).fit(X, y)
    np.testing.assert_array_equal(whole.decision_function(X), whole.classifier_.decision_function(X))
    lossy = FilteredClassifier(Told(y == 0), classifier).fit(X, y)  # three classes have three pairs
    with pytest.raises(NoiseFilterError, match="one column per class"):
        lossy.decision_function(X)
    two_left = FilteredClassifier(Told(y < 2), SVC(decision_function_shape="ovo")).fit(X, y)
    assert two_left.decision_function(X).shape == (90, 4)


@pytest.mark.parametrize("mode", ["drop", "weight", "relabel"])
def test_fewer_than_two_classes_left_is_one_error(mode):
    X, y, _ = blobs(n_classes=2)
    partition = np.where(y == 1, OOD_NOISE, 0)
    with pytest.raises(LabelError, match=r"at least two classes, got \[0\] of \[0, 1\]"):
        FilteredClassifier(Told(partition), Probe(), mode).fit(X, y)
    with pytest.raises(LabelError, match=r"at least two classes, got \[\] of \[0, 1\]"):
        FilteredClassifier(Told(np.full(90, OOD_NOISE)), Probe(), mode).fit(X, y)


@pytest.mark.parametrize(
    "names", [["x", "y", "z"], [-1, 0, 1], [5, 7, 100], [0.0, 1.0, 2.0], np.array(["p", "q", "r"], object)],
    ids=str,
)  # fmt: skip
def test_labels_of_any_kind(names):
    X, y, _ = blobs()
    names = np.asarray(names)
    model = FilteredClassifier(Judge(), LogisticRegression(), "relabel").fit(X, names[y])
    plain = FilteredClassifier(Judge(), LogisticRegression(), "relabel").fit(X, y)
    assert model.classes_.tolist() == names.tolist() and model.classes_.dtype == names.dtype
    np.testing.assert_array_equal(model.predict(X), names[plain.predict(X)])


# Arguments of fit


def test_arguments_per_row_are_cut_with_the_rows():
    X, y, _ = blobs()
    weight = np.arange(90.0)
    given = [f"group {i}" for i in range(90)]
    for groups in (given, np.array(given), pd.Series(given, index=np.arange(90)[::-1])):
        model = FilteredClassifier(Told(PARTITION), Probe())
        model.fit(X, y, sample_weight=weight, groups=groups, note="one text of some length")
        np.testing.assert_array_equal(model.classifier_.sample_weight_, weight[CLEAN])
        np.testing.assert_array_equal(model.classifier_.groups_, np.array(given)[CLEAN])
        assert type(model.classifier_.groups_) is type(groups)
        assert model.classifier_.note_ == "one text of some length"
    for whole in ("n" * 90, {i: 0 for i in range(90)}, np.array(3.0), np.zeros((2, 90)), 7, [1, 2]):
        assert model.fit(X, y, note=whole).classifier_.note_ is whole


def test_arguments_for_the_filter_have_its_prefix():
    X, y, _ = blobs()
    embedding = np.zeros((90, 2))
    model = FilteredClassifier(Told(PARTITION), Probe())
    model.fit(X, y, filter__features=embedding, filter__note="for the filter", note="for the classifier")
    assert model.filter_.told_ is embedding and model.filter_.note_ == "for the filter"
    assert model.classifier_.note_ == "for the classifier"
    with pytest.raises(TypeError, match="unknown"):
        model.fit(X, y, unknown=1)


def test_arguments_through_an_outer_pipeline():
    X, y, _ = blobs()
    weight, embedding = np.arange(90.0), np.zeros((90, 2))
    pipeline = Pipeline([("scale", StandardScaler()), ("last", FilteredClassifier(Told(PARTITION), Probe()))])
    pipeline.fit(X, y, last__sample_weight=weight, last__filter__features=embedding)
    np.testing.assert_array_equal(pipeline[-1].classifier_.sample_weight_, weight[CLEAN])
    assert pipeline[-1].filter_.told_ is embedding


def test_metadata_routing():
    X, y, _ = blobs()
    weight, embedding = np.arange(90.0), np.zeros((90, 2))
    with config_context(enable_metadata_routing=True):
        filter = Told(PARTITION).set_fit_request(features=True, note="remark")
        probe = Probe().set_fit_request(sample_weight=True, groups="g", note=False)
        probe.set_score_request(sample_weight=True).set_predict_request(flip=True)
        model = FilteredClassifier(filter, probe)
        arguments = {"sample_weight": weight, "features": embedding, "remark": "hello", "g": weight}
        for fitted in (model.fit(X, y, **arguments), Pipeline([("m", model)]).fit(X, y, **arguments)[-1]):
            assert fitted.filter_.told_ is embedding and fitted.filter_.note_ == "hello"
            np.testing.assert_array_equal(fitted.classifier_.sample_weight_, weight[CLEAN])
            np.testing.assert_array_equal(fitted.classifier_.groups_, weight[CLEAN])
            assert fitted.classifier_.note_ is None
        assert model.score(X, y) == 42 and model.score(X, y, sample_weight=[1, 2]) == 3
        assert model.predict(X[:2], flip=True).tolist() == [2, 2]
        with pytest.raises(TypeError, match="unexpected"):
            model.fit(X, y, unknown=1)
        with pytest.raises(ValueError, match=r"sample_weight.*not explicitly set"):
            FilteredClassifier(Told(PARTITION), Probe()).fit(X, y, sample_weight=weight)


def test_routed_per_row_arguments_follow_cross_validation():
    X, y, _ = blobs()
    embedding = np.random.default_rng(1).normal(size=(90, 7))
    with config_context(enable_metadata_routing=True):
        filter = Judge().set_fit_request(features=True)
        classifier = LogisticRegression().set_fit_request(sample_weight=True)
        model = FilteredClassifier(filter, classifier.set_score_request(sample_weight=False))
        search = GridSearchCV(model, {"filter__threshold": [0.0, 0.3]}, cv=GroupKFold(3), error_score="raise")
        search.fit(X, y, features=embedding, sample_weight=np.ones(90), groups=np.arange(90) // 3)
    assert search.best_estimator_.filter_.n_columns_seen_ == 7


# Inputs


def test_frame_stays_a_frame_for_the_classifier():
    X, y, _ = blobs()
    table = pd.DataFrame(X, columns=list("abcd"), index=np.arange(90) + 1000)
    labels = pd.Series(y, index=table.index)
    model = FilteredClassifier(Judge(), LogisticRegression()).fit(table, labels)
    assert model.classifier_.feature_names_in_.tolist() == list("abcd") == model.feature_names_in_.tolist()
    assert model.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[list("dcba")])
    probe = FilteredClassifier(Told(PARTITION), Probe()).fit(table, labels).classifier_
    pd.testing.assert_frame_equal(probe.X_, table[CLEAN])


def test_images_and_lists():
    X, y, _ = blobs()
    images = np.tile(X[:, None, :, None], (1, 3, 1, 4))
    flat = make_pipeline(FunctionTransformer(lambda X: X.reshape(len(X), -1)), LogisticRegression())
    model = FilteredClassifier(Judge(), flat).fit(images, y)
    assert model.score(images, y) > 0.6 and model.predict_proba(images).shape == (90, 3)
    probe = FilteredClassifier(Told(PARTITION), Probe()).fit(images, y).classifier_
    np.testing.assert_array_equal(probe.X_, images[CLEAN])
    listed = FilteredClassifier(Judge(), LogisticRegression()).fit(X.tolist(), y.tolist())
    arrays = FilteredClassifier(Judge(), LogisticRegression()).fit(X, y)
    np.testing.assert_array_equal(listed.predict_proba(X.tolist()), arrays.predict_proba(X))


def test_classifier_sees_what_the_filter_transforms():
    class Embedder(Told):
        def transform(self, X):
            return X[:, :2] * 10

    X, y, _ = blobs()
    model = FilteredClassifier(Embedder(PARTITION), LogisticRegression()).fit(X, y)
    alone = LogisticRegression().fit(10 * X[CLEAN, :2], y[CLEAN])
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(10 * X[:, :2]))
    assert model.n_features_in_ == 4 and model.classifier_.n_features_in_ == 2


# Verbs


def test_verbs_are_those_of_the_classifier():
    X, y, _ = blobs()
    verbs = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score")
    for classifier in (LogisticRegression(), GaussianNB(), SVC(), NearestCentroid(), Probe()):
        model = FilteredClassifier(Judge(), classifier)
        for each in (model, clone(model).fit(X, y)):
            assert [hasattr(each, verb) for verb in verbs] == [hasattr(classifier, verb) for verb in verbs]
    fitted = FilteredClassifier(Judge(0.0), SVC()).fit(X, y)
    np.testing.assert_array_equal(fitted.decision_function(X), SVC().fit(X, y).decision_function(X))
    assert FilteredClassifier(Told(PARTITION), Probe()).fit(X, y).score(X, y) == 42
    check_is_fitted(fitted)


def test_grid_search_over_the_filter():
    X, y, _ = blobs(n=240, rate=0.3)
    model = FilteredClassifier(Judge(), KNeighborsClassifier(1))
    grid = {"filter__threshold": [0.0, 0.4], "classifier__p": [2]}
    search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(X, y)
    assert search.best_params_["filter__threshold"] == 0.4
    assert search.best_estimator_.verdict_.noise_rate > 0.1


def test_memory_of_an_outer_pipeline(tmp_path):
    X, y, _ = blobs()
    steps = [("scale", StandardScaler()), ("last", FilteredClassifier(Judge(), LogisticRegression()))]
    plain = Pipeline(steps).fit(X, y).predict_proba(X)
    for _ in range(2):
        cached = Pipeline(steps, memory=str(tmp_path)).fit(X, y)
        np.testing.assert_array_equal(cached.predict_proba(X), plain)


# FilterSampler


def test_sampler_returns_the_rows_left_in_their_kind():
    X, y, _ = blobs()
    sampler = FilterSampler(Told(PARTITION))
    rows, labels = sampler.fit_resample(X, y)
    np.testing.assert_array_equal(sampler.sample_indices_, np.flatnonzero(CLEAN))
    np.testing.assert_array_equal(rows, X[CLEAN])
    np.testing.assert_array_equal(labels, y[CLEAN])
    images = np.zeros((90, 3, 5, 5))
    assert sampler.fit_resample(images, y)[0].shape == (CLEAN.sum(), 3, 5, 5)
    table, series = (
        pd.DataFrame(X, index=np.arange(90) + 7),
        pd.Series(y, index=np.arange(90) + 7, name="kind"),
    )
    rows, labels = sampler.fit_resample(table, series)
    pd.testing.assert_frame_equal(rows, table[CLEAN])
    pd.testing.assert_series_equal(labels, series[CLEAN])


@pytest.mark.parametrize("dtype", [None, "category", "string"])
def test_sampler_relabels(dtype):
    X, y, _ = blobs()
    names = pd.Series(np.array(["ant", "bee", "cat"])[y], dtype=dtype)
    sampler = FilterSampler(Told(PARTITION), mode="relabel")
    _, labels = sampler.fit_resample(X, names)
    known = np.flatnonzero(PARTITION != OOD_NOISE)
    np.testing.assert_array_equal(sampler.sample_indices_, known)
    suggested = np.where(PARTITION == ID_NOISE, (y + 1) % 3, y)[known]
    assert labels.tolist() == np.array(["ant", "bee", "cat"])[suggested].tolist()
    assert labels.dtype == names.dtype and labels.index.tolist() == known.tolist()
    assert names.tolist() == np.array(["ant", "bee", "cat"])[y].tolist()  # the caller's labels are untouched


@pytest.mark.parametrize("memory", [False, True])
def test_sampler_in_the_pipeline_of_imbalanced_learn(tmp_path, memory):
    X, y, _ = blobs()
    pipeline = imblearn_pipeline.Pipeline(
        [("scale", StandardScaler()), ("filter", FilterSampler(Judge())), ("end", LogisticRegression())],
        memory=str(tmp_path) if memory else None,
    )
    dropped = FilteredClassifier(Judge(), LogisticRegression())
    alone = Pipeline([("scale", StandardScaler()), ("end", dropped)]).fit(X, y)
    for _ in range(2):
        pipeline.fit(X, y)
        np.testing.assert_array_equal(pipeline.predict_proba(X), alone.predict_proba(X))
        assert 0 < len(pipeline["filter"].sample_indices_) < 90
    search = GridSearchCV(pipeline, {"filter__filter__threshold": [0.0, 0.3]}, cv=3, error_score="raise")
    assert search.fit(X, y).best_params_["filter__filter__threshold"] in (0.0, 0.3)


def test_sampler_hands_arguments_to_its_filter():
    X, y, _ = blobs()
    embedding = np.zeros((90, 2))
    sampler = FilterSampler(Told(PARTITION))
    sampler.fit_resample(X, y, features=embedding)
    assert sampler.filter_.told_ is embedding
    with config_context(enable_metadata_routing=True):
        sampler = FilterSampler(Told(PARTITION).set_fit_request(features=True))
        pipeline = imblearn_pipeline.Pipeline([("filter", sampler), ("end", Probe())])
        pipeline.fit(X, y, features=embedding)
    assert pipeline["filter"].filter_.told_ is embedding
    assert len(pipeline["end"].X_) == CLEAN.sum()


def test_sampler_warns_and_refuses_as_the_classifier_does():
    X, y, _ = blobs()
    with pytest.warns(UserWarning, match=r"no row of the classes \[2\]"):
        FilterSampler(Told(np.where(y == 2, 1, 0))).fit_resample(X, y)
    with pytest.raises(LabelError, match=r"got \[0\] of"):
        FilterSampler(Told(np.where(y == 0, 0, 1))).fit_resample(X, y)
    assert not hasattr(FilterSampler(Judge()), "transform") and not hasattr(FilterSampler(Judge()), "fit")
    assert clone(FilterSampler(Judge(0.1))).get_params()["filter__threshold"] == 0.1


def test_sampler_without_imbalanced_learn_knows_no_routes(monkeypatch):
    from sklearn.utils import _metadata_requests as requests

    for name in ("METHODS", "SIMPLE_METHODS"):
        if hasattr(requests, name):
            kept = [verb for verb in getattr(requests, name) if verb != "fit_resample"]
            monkeypatch.setattr(requests, name, kept)
    assert list(FilterSampler(Judge()).get_metadata_routing()) == []
