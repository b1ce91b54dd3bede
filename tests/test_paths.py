"""The mean prediction along paths, against the sum the paper prints."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter.batches import ArrayRows
from noisefilter.errors import ParameterError
from noisefilter.neighbors import nearest
from noisefilter.paths import mean_path_probs, mean_path_probs_between, quadrature, unique_paths
from noisefilter.scores import given_probability, neighbor_vote

RULES = [("trapezoid", 9), ("trapezoid", 1), ("simpson", 1), ("simpson", 3), ("gauss", 2), ("gauss", 5)]


@pytest.fixture
def f():
    """A network with curved paths, in float64, without gradients."""
    torch.manual_seed(0)
    return (
        torch.nn.Sequential(
            torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4), torch.nn.Softmax(dim=1)
        )
        .double()
        .requires_grad_(False)
    )


def inn_score(f, x, y, neighbors, n_intervals):
    """Section 3.3 to the letter: f at all n_intervals + 1 points of every path, by the trapezoid rule."""
    scores = []
    for i in range(len(x)):
        integrals = []
        for j in neighbors[i]:
            values = []
            for h in range(n_intervals + 1):
                a = 1 - h / n_intervals
                values.append(float(f((a * x[i] + (1 - a) * x[j])[None])[0, y[i]]))
            integrals.append((values[0] / 2 + sum(values[1:-1]) + values[-1] / 2) / n_intervals)
        scores.append(sum(integrals) / len(integrals))
    return scores


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_paper_double_loop(f, batch_size):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 3)), rng.integers(4, size=25)
    neighbors = nearest(x, 6)
    x = torch.from_numpy(x)
    ends = f(x).numpy()
    found = mean_path_probs(
        f, ArrayRows(x), ends, neighbors, quadrature("trapezoid", 9), batch_size=batch_size
    )
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(given_probability(found, y), inn_score(f, x, y, neighbors, 10), rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_sharing_paths_changes_nothing(f, rule):
    rng = np.random.default_rng(1)
    x = torch.from_numpy(np.repeat(rng.normal(size=(10, 3)), 2, axis=0))  # duplicates, too
    neighbors = nearest(x.numpy(), 5)
    ends, rows, rule = f(x).numpy(), ArrayRows(x), quadrature(*rule)
    shared = mean_path_probs(f, rows, ends, neighbors, rule)
    alone = mean_path_probs_between(f, rows, ends, rows, ends, neighbors, rule, batch_size=7)
    np.testing.assert_allclose(shared, alone, rtol=1e-12)


def test_mutual_neighbors_cost_one_path(f):
    evaluated = []

    def predict(x):
        evaluated.append(len(x))
        return f(x)

    x = torch.randn(4, 3, dtype=torch.float64)
    neighbors = np.array([[1, 2], [0, 2], [0, 1], [0, 1]])
    mean_path_probs(predict, ArrayRows(x), f(x).numpy(), neighbors, quadrature("gauss", 3))
    assert sum(evaluated) == 3 * 5


def test_unique_paths():
    paths, asked = unique_paths(np.array([[1, 2], [0, 3], [1, 3], [2, 0]]))
    assert paths.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert asked.tolist() == [[1, 1], [1, 0], [0, 1], [0, 1], [1, 0], [1, 1]]


def integral(rule, function):
    nodes = np.array(rule.nodes)
    return np.dot(rule.weights, function(nodes)) + rule.end_weight * (function(0.0) + function(1.0))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["trapezoid", "simpson", "gauss"]), st.integers(1, 9), st.integers(0, 17))
def test_degree_of_exactness(name, n_interior, power):
    n_interior += name == "simpson" and n_interior % 2 == 0
    rule = quadrature(name, n_interior)
    degree = {"trapezoid": 1, "simpson": 3, "gauss": 2 * n_interior - 1}[name]
    error = abs(integral(rule, lambda a: a**power) - 1 / (power + 1))
    if power <= degree:
        assert error < 1e-13
    elif power == degree + 1:
        assert error > 1e-12  # a rule is not better than it is
    assert sum(rule.weights) + 2 * rule.end_weight == pytest.approx(1)
    np.testing.assert_allclose(np.sort(rule.nodes), 1 - np.sort(rule.nodes)[::-1])


def test_papers_rule():
    rule = quadrature("trapezoid", 9)
    np.testing.assert_allclose(rule.nodes, np.arange(1, 10) / 10)
    np.testing.assert_allclose(rule.weights, 0.1)
    assert rule.end_weight == pytest.approx(0.05)


def test_simpsons_rule():
    np.testing.assert_allclose(quadrature("simpson", 3).weights, [4 / 12, 2 / 12, 4 / 12])
    assert quadrature("simpson", 1).end_weight == pytest.approx(1 / 6)


@pytest.mark.parametrize("rule", RULES)
def test_linear_path_from_one_to_zero_scores_one_half(rule):
    def predict(x):
        return torch.cat([x, 1 - x], dim=1)

    x = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    scores = mean_path_probs(
        predict, ArrayRows(x), predict(x).numpy(), np.array([[1], [0]]), quadrature(*rule)
    )
    np.testing.assert_allclose(scores, 0.5)


@pytest.mark.parametrize("rule", RULES)
def test_perfect_mixup_memorizer_is_the_neighbor_vote(rule):
    # One column per row: x is the identity, and f gives back the mixed one-hot labels (Lemma 1).
    rng = np.random.default_rng(0)
    n, n_classes = 30, 3
    y = rng.integers(n_classes, size=n)
    one_hot = torch.eye(n_classes, dtype=torch.float64)[torch.from_numpy(y)]
    x = torch.eye(n, dtype=torch.float64)
    neighbors = nearest(rng.normal(size=(n, 2)), 7)
    found = mean_path_probs(
        lambda x: x @ one_hot, ArrayRows(x), one_hot.numpy(), neighbors, quadrature(*rule)
    )
    np.testing.assert_allclose(given_probability(found, y), 0.5 + neighbor_vote(neighbors, y) / 2)


def test_end_points_are_read_by_rules_that_have_them_alone(f):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3)))
    neighbors, unknown = nearest(x.numpy(), 3), np.full((12, 4), np.nan)
    for name, n_interior in RULES:
        found = mean_path_probs(f, ArrayRows(x), unknown, neighbors, quadrature(name, n_interior))
        assert np.isnan(found).all() if name != "gauss" else np.isfinite(found).all()


def test_images_of_bytes_are_mixed_as_numbers():
    x = torch.tensor([[[[0]]], [[[255]]]], dtype=torch.uint8)
    seen = []

    def predict(x):
        seen.append(x.flatten().tolist())
        return torch.ones(len(x), 2) / 2

    mean_path_probs(
        predict, ArrayRows(x, True), np.ones((2, 2)) / 2, np.array([[1], [0]]), quadrature("gauss", 1)
    )
    assert seen == [[127.5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_new_rows_may_have_another_dtype(f, dtype):
    rng = np.random.default_rng(0)
    x, new = (
        torch.from_numpy(rng.normal(size=(10, 3))),
        torch.from_numpy(rng.integers(3, size=(4, 3))).to(dtype),
    )
    neighbors = nearest(x.numpy(), 3, queries=new.numpy())
    found = mean_path_probs_between(
        f,
        ArrayRows(new),
        f(new.double()).numpy(),
        ArrayRows(x),
        f(x).numpy(),
        neighbors,
        quadrature("trapezoid", 3),
    )
    for i in range(4):
        values = [
            float(f((h / 4 * new[i].double() + (1 - h / 4) * x[j])[None])[0, 2])
            * (0.5 if h in (0, 4) else 1)
            / 4
            for j in neighbors[i]
            for h in range(5)
        ]
        assert found[i, 2] == pytest.approx(sum(values) / 3)


@pytest.mark.parametrize(
    ("rule", "n_interior", "message"),
    [
        ("trapezoid", 0, "n_interior"),
        ("gauss", 2.5, "n_interior"),
        ("simpson", 2, "odd"),
        ("romberg", 1, "quadrature"),
    ],
)
def test_bad_rules(rule, n_interior, message):
    with pytest.raises(ParameterError, match=message):
        quadrature(rule, n_interior)
