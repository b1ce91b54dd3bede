"""Laws of every public trainer beside those of `test_trainer.py`; most of them read one fit, made once.

Labels of other kinds, a clone of a used trainer and a Pipeline that predicts are in `test_peers_faults.py`.
"""

import inspect
import re
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score

import noisefilter
from noisefilter import Verdict
from noisefilter.trainer import BaseTrainer

PUBLIC = [getattr(noisefilter, name) for name in noisefilter.__all__]
TRAINERS = [kind for kind in PUBLIC if inspect.isclass(kind) and issubclass(kind, BaseTrainer)]
pytestmark = pytest.mark.filterwarnings(
    "ignore:max_epochs must leave"
)  # plain training is what is wanted here
every_trainer = pytest.mark.parametrize("kind", TRAINERS, ids=lambda kind: kind.__name__)
ARRAYS = ("labels", "classes", "scores", "partition", "alternatives", "clean_proba", "transition_matrix")


@cache
def rows():
    """81 rows in three blobs, 9 of them under a wrong label; eight to a batch, the last batch has one."""
    X, truth = make_blobs(81, n_features=5, centers=3, cluster_std=1.0, random_state=0)
    wrong = np.zeros(81, dtype=bool)
    wrong[np.random.default_rng(0).choice(81, 9, replace=False)] = True
    y = np.where(wrong, (truth + 1 + np.arange(81) % 2) % 3, truth)
    for array in (X, truth, wrong, y):
        array.flags.writeable = False
    return SimpleNamespace(X=X.astype(np.float32), y=y, truth=truth, wrong=wrong)


def short(kind, **parameters):
    """Make a trainer that trains for a moment, and by its method: few epochs end in plain training."""
    at_once = {"warmup_epochs": 1, "least_epochs": 0}
    own = {name: value for name, value in at_once.items() if name in kind().get_params()}
    return kind(**{"max_epochs": 3, "random_state": 0} | own | parameters)


@cache
def fitted(kind):
    """Fit it once; whoever asks only reads it."""
    return short(kind).fit(rows().X, rows().y)


@cache
def learned(kind):
    """Fit it for as many epochs as it takes to learn blobs, in batches of which the last has one row."""
    return kind(max_epochs=15, batch_size=8, random_state=0).fit(rows().X, rows().y)


def assert_same_fit(one, other, X=None):
    for name in ARRAYS:
        assert np.array_equal(getattr(one.verdict_, name), getattr(other.verdict_, name)), name
    assert one.history_ == other.history_
    X = rows().X if X is None else X
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))


def test_there_are_trainers():
    names = {"DivideMixClassifier", "INNDivideMixClassifier", "JoSRCClassifier", "VRLVMixClassifier"}
    assert names <= {kind.__name__ for kind in TRAINERS}


# --- the verdict ----------------------------------------------------------------------------------


@every_trainer
def test_parts_are_disjoint_and_cover_and_numbers_are_finite(kind):
    trainer, verdict, y = fitted(kind), fitted(kind).verdict_, rows().y
    parts = np.stack([trainer.clean_mask_, trainer.id_mask_, trainer.ood_mask_])
    assert isinstance(verdict, Verdict) and (parts.sum(axis=0) == 1).all()
    assert np.isfinite(verdict.scores).all() and np.isfinite(verdict.transition_matrix).all()
    np.testing.assert_allclose(verdict.transition_matrix.sum(axis=1), 1)
    assert 0 <= verdict.estimated_noise_rate <= 1 and (verdict.alternatives != verdict.labels).all()
    assert np.array_equal(verdict.labels, y) and np.array_equal(trainer.scores_, verdict.scores)
    assert np.array_equal(verdict.suggested_labels != y, trainer.id_mask_)


@every_trainer
@pytest.mark.parametrize("fraction", [0.0, 0.123, 1.0])
def test_keep_keeps_exactly_the_best(kind, fraction):
    verdict = fitted(kind).verdict_.keep(fraction)
    assert verdict.clean_mask.sum() == round(fraction * 81)
    if 0 < fraction < 1:
        assert verdict.scores[verdict.clean_mask].min() >= verdict.scores[~verdict.clean_mask].max()


@every_trainer
def test_planted_wrong_labels_score_lower_and_are_not_learned_with_a_last_batch_of_one_row(kind):
    assert roc_auc_score(~rows().wrong, learned(kind).scores_) > 0.9
    predicted, wrong = learned(kind).predict(rows().X), rows().wrong
    assert np.mean(predicted[wrong] == rows().truth[wrong]) > 0.7 and np.mean(predicted == rows().truth) > 0.8


@every_trainer
def test_duplicate_rows_are_judged(kind):
    """Every row twice, and one row fifteen times, more often than it can have neighbors."""
    chosen = np.concatenate([np.tile(np.arange(30), 2), np.zeros(15, dtype=int)])
    wrong = np.arange(75) % 10 == 0
    y = (rows().truth[chosen] + wrong) % 3
    trainer = kind(max_epochs=15, batch_size=8, random_state=0).fit(rows().X[chosen], y)
    assert roc_auc_score(~wrong, trainer.scores_) > 0.9


# --- labels ---------------------------------------------------------------------------------------


@every_trainer
def test_categories_are_labels(kind):
    names = pd.Categorical(["c", "a", "b"], categories=["b", "c", "unused", "a"], ordered=True)
    plain, renamed = fitted(kind), short(kind).fit(rows().X, pd.Series(names[rows().y]))
    names = np.asarray(names)
    for name in ("scores", "partition", "clean_proba"):
        assert np.array_equal(getattr(plain.verdict_, name), getattr(renamed.verdict_, name)), name
    assert np.array_equal(names[plain.verdict_.suggested_labels], renamed.verdict_.suggested_labels)
    assert plain.history_ == renamed.history_ and renamed.classes_.tolist() == ["a", "b", "c"]
    assert np.array_equal(names[plain.predict(rows().X)], renamed.predict(rows().X))


@every_trainer
def test_truth_values_are_labels(kind):
    two = rows().truth < 2
    X, y = rows().X[two], rows().truth[two]
    plain, renamed = short(kind).fit(X, y), short(kind).fit(X, y == 0)
    assert np.array_equal(renamed.scores_, plain.scores_)
    assert np.array_equal(renamed.predict(X), plain.predict(X) == 0)


# --- no hidden state ------------------------------------------------------------------------------


@every_trainer
def test_set_params_equals_the_constructor(kind):
    changes = {"batch_size": 20, "lr": 0.01, "max_epochs": 4, "random_state": 3}
    made, told = kind(**changes), kind().set_params(**changes)
    assert made.get_params() == told.get_params()
    assert_same_fit(made.fit(rows().X, rows().y), told.fit(rows().X, rows().y))


# --- rows -----------------------------------------------------------------------------------------


class Listed:
    """A map-style Dataset."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i]


@every_trainer
def test_tensors_and_datasets_give_the_same(kind):
    for X in (torch.from_numpy(rows().X), Listed(rows().X)):
        other = short(kind).fit(X, rows().y)
        assert_same_fit(other, fitted(kind))
        assert np.array_equal(other.predict(X), fitted(kind).predict(rows().X))


# --- papers ---------------------------------------------------------------------------------------


@every_trainer
def test_every_trainer_names_its_paper_and_its_deviations(kind):
    text = inspect.getdoc(kind)
    references = text.split("References\n----------")[1].split("Examples\n--------")[0]
    assert re.search(r"\b(19|20)\d\d\b", references) and re.search(r"arXiv:\d{4}\.\d{4,5}|doi", references)
    assert "Deviations from" in text and f">>> from noisefilter import {kind.__name__}" in text
    published = kind.as_published()
    assert isinstance(published, kind) and published.get_params().keys() == kind().get_params().keys()
