"""SimCLR and SCANClusterer as scikit-learn has estimators."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

from noisefilter import Net, SCANClusterer, SimCLR, selfsupervised
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.networks import PreActResNet18, SevenLayerCNN
from noisefilter.pretrain import scan_weights


def jitter(x, generator):
    """Views of tables, which are nobody's but ours."""
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.fixture(scope="module")
def digits():
    images, codes = load_digits(return_X_y=True)
    return images[:200].reshape(-1, 8, 8), codes[:200]


def short(kind, **parameters):
    simclr = {"max_epochs": 1, "random_state": 0}
    if kind is SimCLR:
        return SimCLR(**simclr | parameters)
    return SCANClusterer(**{"max_epochs": 1, "random_state": 0, "simclr": SimCLR(**simclr)} | parameters)


def told(estimator, X):
    return estimator.transform(X) if isinstance(estimator, SimCLR) else estimator.predict_proba(X)


every = pytest.mark.parametrize("kind", [SimCLR, SCANClusterer], ids=lambda kind: kind.__name__)


# --- scikit-learn's own laws ----------------------------------------------------------------------

ESTIMATORS = (
    SimCLR(max_epochs=1, views=jitter, random_state=0),
    SCANClusterer(n_clusters=3, max_epochs=40, lr=0.05, random_state=0),
)


@pytest.mark.filterwarnings("ignore:n_neighbors must be less", "ignore:The clusters must be of some size")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(copy, check, id=f"{type(copy).__name__}-{getattr(check, 'func', check).__name__}-{i}")
        for estimator in ESTIMATORS
        for i, (copy, check) in enumerate(estimator_checks_generator(estimator))
    ],
)
def test_check_estimator(estimator, check):
    check(estimator)


def test_check_estimator_runs_in_full():
    assert all(len(list(estimator_checks_generator(each))) > 30 for each in ESTIMATORS)


# --- what we promise beyond -----------------------------------------------------------------------


@every
def test_images_in_any_layout_are_the_same(kind, digits, tmp_path):
    images = np.repeat(digits[0][:40, :, :, None], 3, axis=3).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    expected = told(short(kind).fit(images), images)
    assert expected.shape == (40, 128 if kind is SimCLR else 10) and np.isfinite(expected).all()
    for other in (
        images.transpose(0, 3, 1, 2),
        torch.from_numpy(images),
        np.load(tmp_path / "images.npy", mmap_mode="r"),
        [*images],
    ):
        np.testing.assert_array_equal(told(short(kind).fit(other), images), expected)


@every
def test_equal_seeds_give_equal_bits_and_global_generators_are_left_alone(kind, digits):
    X = digits[0][:40]
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    one, again, other = (told(short(kind, random_state=seed).fit(X), X) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@every
def test_a_clone_a_refit_and_a_pickle_are_the_same(kind, digits):
    X = digits[0][:40]
    fitted = short(kind).fit(X)
    expected = told(fitted, X)
    np.testing.assert_array_equal(told(clone(fitted).fit(X), X), expected)
    np.testing.assert_array_equal(told(fitted.fit(X[:30]).fit(X), X), expected)
    np.testing.assert_array_equal(told(pickle.loads(pickle.dumps(fitted)), X), expected)
    assert len(pickle.dumps(fitted)) < 2e6


@every
def test_a_fit_that_fails_leaves_everything_as_it_was(kind, digits):
    X = digits[0][:40]
    fitted = short(kind).fit(X)
    expected = told(fitted, X)
    spoiled = X.copy()
    spoiled[3] = np.nan
    for wrong, message in ((spoiled, "X must be finite"), (X[:1], "got 1 sample")):
        with pytest.raises(InputError, match=message):
            fitted.fit(wrong)
    with pytest.raises(InputError, match=r"rows of shape \(1, 8, 8\) as in fit, got \(1, 8, 6\)"):
        told(fitted, X[:, :, :6])
    np.testing.assert_array_equal(told(fitted, X), expected)
    with pytest.raises(NotFittedError):
        told(short(kind), X)


@every
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be a whole number of at least 2, got 1"),
        ({"lr": -1.0}, "lr must be greater than 0 and finite, got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0 and finite, got -1.0"),
        ({"channels": "middle"}, "channels must be 'first', 'last' or None, got 'middle'"),
        ({"device": "toaster"}, "device must be 'auto' or a device"),
        ({"random_state": "seven"}, "random_state must be an int, a RandomState or None, got 'seven'"),
        ({"checkpoint_dir": 3}, "checkpoint_dir must be a path or None, got 3"),
        (
            {"checkpoint_dir": "here", "random_state": None},
            "random_state must be a number with checkpoint_dir",
        ),
    ],
)
def test_bad_parameters(kind, parameters, message, digits):
    with pytest.raises(ParameterError, match=message):
        short(kind, **parameters).fit(digits[0][:40])


@pytest.mark.parametrize(
    ("estimator", "kind", "message"),
    [
        (SimCLR(temperature=0.0), ParameterError, "temperature must be greater than 0"),
        (SimCLR(network=SevenLayerCNN(1, 2, 8)), ParameterError, "network must be a class"),
        (SimCLR(LogisticRegression()), InputTypeError, "estimator must be a skorch NeuralNetClassifier"),
        (SCANClusterer(simclr="yes"), InputTypeError, "simclr must be a SimCLR or None"),
        (SCANClusterer(n_clusters=0), ParameterError, "n_clusters must be a whole number of at least 1"),
        (SCANClusterer(n_clusters=50), InputError, "n_clusters=50 of them, got 40"),
        (SCANClusterer(entropy_weight=-1), ParameterError, "entropy_weight must be at least 0"),
        (SCANClusterer(n_neighbors=0), ParameterError, "n_neighbors must be a whole number of at least 1"),
    ],
)
def test_bad_parameters_of_one(estimator, kind, message, digits):
    with pytest.raises(kind, match=message):
        estimator.fit(digits[0][:40])


def test_tables_have_no_views_and_are_refused_with_a_remedy(digits):
    table = digits[0].reshape(200, 64)
    with pytest.raises(InputError, match=r"X must be images.*no published views.*embedding") as caught:
        SimCLR().fit(table)
    assert str(caught.value).count(". ") == 1  # a sentence and the remedy
    with pytest.raises(InputError, match="X must be images"):
        SCANClusterer(simclr=SimCLR()).fit(table)
    own = SimCLR(max_epochs=1, views=jitter, random_state=0).set_output(transform="pandas")
    features = own.fit_transform(pd.DataFrame(table))
    assert list(features.columns[:2]) == ["simclr0", "simclr1"] and features.shape == (200, 256)
    assert own.n_features_in_ == 64


def test_a_linear_model_on_features_of_images(digits):
    X, y = digits
    model = make_pipeline(short(SimCLR), LogisticRegression(max_iter=500)).fit(X[:150], y[:150])
    assert model.score(X[150:], y[150:]) > 0.7
    own = SimCLR(
        Net(SevenLayerCNN, module__n_channels=1, module__n_classes=3, module__image_size=8), max_epochs=1
    )
    assert own.fit_transform(X[:20, None]).shape == (20, 16)
    assert short(SimCLR, network=SevenLayerCNN, max_epochs=1).fit_transform(X[:20]).shape == (20, 16)


def test_clusters_of_an_embedding_are_better_than_chance_by_far(digits):
    X, y = digits
    fitted = SCANClusterer(random_state=0, max_epochs=60, lr=0.03).fit(X.reshape(200, 64))
    assert adjusted_rand_score(y, fitted.labels_) > 0.5 and fitted.entropy_ > 0.9
    np.testing.assert_array_equal(fitted.predict(X.reshape(200, 64)), fitted.labels_)
    assert fitted.neighbors_.shape == (200, 20)
    np.testing.assert_allclose(fitted.predict_proba(X.reshape(200, 64)).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The clusters must be of some size")  # one epoch is all they get
def test_few_rows_are_clustered_for_more_epochs(digits, monkeypatch):
    asked = []

    def clusters(net, rows, *args, epochs, lr, **kwargs):
        asked.append((epochs, lr))
        return scan_weights(net, rows, *args, epochs=1, lr=lr, **kwargs)

    monkeypatch.setattr(selfsupervised, "scan_weights", clusters)
    X, features = digits[0], digits[0].reshape(200, 64)
    for settings in ({}, {"batch_size": 4}, {"max_epochs": 7, "lr": 0.1}):
        SCANClusterer(random_state=0, **settings).fit(X, features=features)
        SCANClusterer(random_state=0, **settings).fit(features)
    assert asked == [(1000, 1e-4), (250, 1e-2), (50, 1e-4), (10, 1e-2), (7, 0.1), (7, 0.1)]


def test_neighbors_come_from_the_features_given(digits):
    X, y = digits
    features = np.eye(10)[y] + 0.01 * np.random.default_rng(0).normal(size=(200, 10))
    fitted = short(SCANClusterer, n_neighbors=5).fit(X, features=features)
    assert (y[fitted.neighbors_] == y[:, None]).all()
    table = SCANClusterer(random_state=0, n_neighbors=5, max_epochs=60, lr=0.03)
    table.fit(X.reshape(200, 64), features=features)
    assert adjusted_rand_score(y, table.labels_) > 0.8
    with pytest.raises(InputError, match="features must be numbers"):
        short(SCANClusterer).fit(X, features=features[:-1])


@every
def test_a_fit_is_taken_up_again_and_read_back(kind, digits, tmp_path, monkeypatch):
    X = digits[0][:40]
    plain, folder = {"max_epochs": 3}, {"checkpoint_dir": tmp_path / "own", "max_epochs": 3}
    if kind is SCANClusterer:
        plain["simclr"] = SimCLR(max_epochs=2, random_state=0)
        folder["simclr"] = SimCLR(max_epochs=2, random_state=0, checkpoint_dir=tmp_path / "before")
    expected = told(short(kind, **plain).fit(X), X)

    def stop(self, folder, tensors, record):
        save(self, folder, tensors, record)
        raise KeyboardInterrupt

    from noisefilter.checkpoint import Checkpoints

    save = Checkpoints.save
    for _ in range(3 if kind is SimCLR else 5):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Checkpoints, "save", stop)
            short(kind, **folder).fit(X)
    monkeypatch.delattr(Checkpoints, "save")  # all epochs are there: none is trained again
    np.testing.assert_array_equal(told(short(kind, **folder).fit(X), X), expected)


def test_published_settings_are_spelled_out():
    published = SCANClusterer.as_published(random_state=3)
    assert published.get_params()["simclr__network"] is PreActResNet18
    assert (published.max_epochs, published.lr, published.entropy_weight, published.n_neighbors) == (
        50,
        1e-4,
        5,
        20,
    )
    simclr = SimCLR.as_published(max_epochs=100)
    assert (simclr.max_epochs, simclr.batch_size, simclr.lr, simclr.temperature) == (100, 512, 0.4, 0.1)
