import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import truncnorm

from noisefilter.errors import InputError, InputTypeError, LabelError, ParameterError
from noisefilter.noise import (
    CIFAR10_ASYMMETRIC,
    CIFAR100_SUPERCLASSES,
    KINDS,
    binary_imbalanced,
    plant_noise,
)

TEN = np.repeat(np.arange(10), 2000)
HUNDRED = np.repeat(np.arange(100), 200)
ORDERED = {"pair", "superclass_block", "superclass", "superclass_swap", "open_set", "open_set_pair"}
SPREAD = 0.02  # five standard deviations of a rate over 20,000 rows are 0.018 at most


def extras(kind, labels, X=None):
    """Return what a kind needs beside labels and rate."""
    labels = list(labels)
    if kind == "asymmetric":
        return {"mapping": {labels[0]: labels[1], labels[2]: labels[0]}}
    if kind.startswith("superclass") and kind != "superclass_block":
        return {"superclass_of": {name: place % 2 for place, name in enumerate(labels)}}
    if kind in ("instance", "annotator"):
        return {"X": X}
    return {}


CENTERS = 3 * np.column_stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)])


@pytest.fixture(scope="module")
def blobs():
    """Six classes in a ring, so that neighbors are the ones confused."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.arange(600) % 6)
    return CENTERS[codes] + rng.standard_normal((600, 2)), codes


def plant(kind, codes, X, rate=0.4, names=None, **options):
    names = np.arange(6) if names is None else names
    return plant_noise(names[codes], kind, rate, **{"random_state": 0} | extras(kind, names, X) | options)


# What each kind does.


@pytest.mark.parametrize(
    ("kind", "y", "rate", "options", "realised"),
    [
        ("symmetric", TEN, 0.8, {}, 0.72),
        ("symmetric_excluding", TEN, 0.8, {}, 0.8),
        ("asymmetric", TEN, 0.4, {"mapping": CIFAR10_ASYMMETRIC}, 0.2),
        ("pair", TEN, 0.4, {}, 0.4),
        ("superclass_block", HUNDRED, 0.4, {}, 0.4),
        ("superclass", HUNDRED, 0.4, {"superclass_of": CIFAR100_SUPERCLASSES}, 0.4),
        ("superclass_swap", HUNDRED, 0.4, {"superclass_of": CIFAR100_SUPERCLASSES}, 0.16),
        ("open_set", HUNDRED, 0.2, {}, 0.36),
        ("open_set", HUNDRED, 0.0, {}, 0.2),
        ("open_set_pair", HUNDRED, 0.2, {}, 0.36),
        ("annotator", TEN[::20], 0.1, {"X": np.random.default_rng(1).normal(size=(1000, 3))}, 0.1),
        ("instance", TEN, 0.4, {"X": np.random.default_rng(1).normal(size=(20000, 3))}, 0.4),
        ("instance", TEN, 0.03, {"X": np.random.default_rng(1).normal(size=(20000, 3))}, 0.03),
    ],
)
def test_realised_rates(kind, y, rate, options, realised):
    noisy, info = plant_noise(y, kind, rate, random_state=0, **options)
    assert info.rate == pytest.approx(realised, abs=SPREAD if rate > 0.03 else 0.008)
    assert info.rate == np.mean(noisy != y)


@pytest.mark.parametrize(
    ("kind", "options", "rate", "expected"),
    [
        ("symmetric", {}, 0.5, np.full((10, 10), 0.05) + 0.5 * np.eye(10)),
        ("symmetric_excluding", {}, 0.45, np.full((10, 10), 0.05) + 0.5 * np.eye(10)),
        ("pair", {}, 0.3, 0.7 * np.eye(10) + 0.3 * np.roll(np.eye(10), 1, axis=1)),
        (
            "superclass_block",
            {},
            0.3,
            0.7 * np.eye(10) + 0.3 * np.kron(np.eye(2), np.roll(np.eye(5), 1, axis=1)),
        ),
        (
            "superclass",
            {"superclass_of": [0] * 9 + [1]},
            0.3,
            np.pad(0.7 * np.eye(9) + 0.3 * np.roll(np.eye(9), 1, axis=1), (0, 1)) + np.diag([0.0] * 9 + [1]),
        ),
    ],
)
def test_realised_matrix(kind, options, rate, expected):
    _, info = plant_noise(TEN, kind, rate, random_state=0, **options)
    np.testing.assert_allclose(info.transition_matrix, expected, atol=0.05)  # 2000 rows a class
    zero = expected == 0
    assert (info.transition_matrix[zero] == 0).all()


def test_asymmetric_follows_the_mapping_and_leaves_the_rest():
    names = np.array(["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
    mapping = {names[old]: names[new] for old, new in CIFAR10_ASYMMETRIC.items()}
    noisy, info = plant_noise(names[TEN], "asymmetric", 0.4, mapping=mapping, random_state=0)
    went = {(str(a), str(b)) for a, b in zip(info.truth[info.mask], noisy[info.mask], strict=True)}
    assert went == {
        ("truck", "car"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"), ("dog", "cat"),
    }  # fmt: skip


def test_superclass_swap_swaps_two_classes_of_each_superclass():
    _, info = plant_noise(
        HUNDRED, "superclass_swap", 0.4, superclass_of=CIFAR100_SUPERCLASSES, random_state=0
    )
    goes = (info.transition_matrix > 0) & ~np.eye(100, dtype=bool)
    assert (goes == goes.T).all()
    groups = np.array(CIFAR100_SUPERCLASSES)
    movers = np.flatnonzero(goes.any(axis=1))
    assert np.bincount(groups[movers]).tolist() == [2] * 20
    assert (groups[goes.argmax(axis=1)] == groups)[movers].all()


def test_superclasses_are_five_each_and_block_noise_leaves_them():
    groups = np.array(CIFAR100_SUPERCLASSES)
    assert np.bincount(groups).tolist() == [5] * 20
    assert groups[[4, 30, 55, 72, 95]].tolist() == [0] * 5  # beaver, dolphin, otter, seal, whale
    honest, _ = plant_noise(HUNDRED, "superclass", 0.4, superclass_of=groups, random_state=0)
    block, info = plant_noise(HUNDRED, "superclass_block", 0.4, random_state=0)
    assert (groups[honest] == groups[HUNDRED]).all()
    assert (block // 5 == HUNDRED // 5).all()
    assert (groups[block] != groups[HUNDRED])[info.mask].mean() > 0.5


@pytest.mark.parametrize("kind", ["open_set", "open_set_pair"])
def test_strangers_are_the_last_fifth_of_the_classes(kind):
    y = np.arange(7000) % 7  # ceil(7 / 5) = 2 classes of strangers
    noisy, info = plant_noise(y, kind, 0.2, random_state=0)
    np.testing.assert_array_equal(info.ood_mask, y >= 5)
    np.testing.assert_allclose(info.transition_matrix[5:], [[0.2] * 5 + [0, 0]] * 2, atol=0.07)
    assert noisy.max() == 4
    known = info.transition_matrix[:5, :5]
    if kind == "open_set_pair":
        assert (known > 0).sum() == 10 and known[4, 0] == pytest.approx(0.2, abs=0.07)
    else:
        np.testing.assert_allclose(known[~np.eye(5, dtype=bool)], 0.05, atol=0.04)


def test_instance_noise_sends_similar_rows_to_the_same_class():
    centers = np.random.default_rng(0).normal(size=(8, 400))
    place = np.arange(8000) % 8
    noisy, info = plant_noise(np.arange(8000) // 4000, "instance", 0.4, X=centers[place], random_state=0)
    assert (noisy != info.truth).sum() == info.mask.sum()
    y = np.random.default_rng(1).integers(6, size=8000)
    noisy, info = plant_noise(y, "instance", 0.4, X=centers[place], random_state=0)
    top_shares = []
    for p in range(8):
        for c in range(6):
            targets = noisy[info.mask & (place == p) & (y == c)]
            top_shares.append(np.bincount(targets).max() / len(targets))
    assert np.mean(top_shares) > 0.9  # uniform targets would give about 0.3


def test_instance_noise_does_not_depend_on_the_scale_of_the_input(blobs):
    X, codes = blobs
    one, _ = plant("instance", codes, X)
    other, _ = plant("instance", codes, X * 256 + 7)
    assert np.mean(one == other) > 0.99


def test_instance_targets_match_the_formula():
    """One point, so one softmax: the shares of its targets are those of the random projection."""
    y = np.arange(30000) % 3
    X = np.tile([[1.0], [-1.0]], (15000, 1))
    _, info = plant_noise(y, "instance", 0.5, X=X, random_state=4)
    rng = np.random.default_rng(4)
    q = truncnorm.rvs(-5, 5, loc=0.5, scale=0.1, size=30000, random_state=rng)
    flipped = rng.random(30000) < q
    expected = np.zeros((3, 3))
    for code in range(3):
        weights = rng.standard_normal((1, 3), dtype=np.float32)[0].astype(float)
        rows = np.flatnonzero(flipped & (y == code))
        rng.gumbel(size=(len(rows), 3))
        for sign in (1, -1):
            odds = np.exp(sign * weights)
            odds[code] = 0
            expected[code] += 0.5 * odds / odds.sum() / 2
        expected[code, code] = 0.5
    np.testing.assert_array_equal(info.mask, flipped)
    np.testing.assert_allclose(info.transition_matrix, expected, atol=0.02)


def test_annotators_confuse_neighbors_and_flip_the_hard_rows(blobs):
    X, codes = blobs
    noisy, info = plant("annotator", codes, X, rate=0.2)
    assert info.mask.sum() == 120
    steps = (noisy - codes)[info.mask] % 6
    assert np.isin(steps, [1, 5]).mean() > 0.8  # 0.4 for uniform targets
    distance = np.linalg.norm(X[:, None] - CENTERS, axis=2)
    hard = distance.argmin(axis=1) != codes
    assert hard[info.mask].mean() > 0.4 > 10 * hard[~info.mask].mean()


def test_annotators_who_agree_with_the_truth_still_reach_the_rate():
    codes = np.arange(400) % 4
    corners = 100 * np.array([[0, 0], [1, 1], [1, 0], [0, 1]])  # 0 is opposite to 1, and 2 to 3
    X = corners[codes] + np.random.default_rng(0).normal(size=(400, 2))
    noisy, info = plant_noise(codes, "annotator", 0.5, X=X, random_state=0)
    assert info.mask.sum() == 200
    assert (noisy // 2 != codes // 2)[info.mask].all()  # the next likely class is never the opposite one


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 5), (12, 1), (40, 100)], ids=lambda value: str(value))
def test_annotators_on_few_rows_or_columns(n, d):
    X = np.random.default_rng(0).normal(size=(n, d))
    _, info = plant_noise(np.arange(n) % 2, "annotator", 0.5, X=X, random_state=0)
    assert info.mask.sum() == round(n / 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["instance", "annotator"])
def test_constant_rows_images_and_bytes(kind):
    y = np.arange(60) % 3
    constant = np.full((60, 4), 0.1)
    assert plant_noise(y, kind, 0.4, X=constant, random_state=0)[1].rate > 0.1
    images = np.random.default_rng(0).integers(256, size=(60, 5, 5, 3), dtype=np.uint8)
    flat = images.reshape(60, -1).astype(float)
    np.testing.assert_array_equal(
        plant_noise(y, kind, 0.4, X=images, random_state=0)[0],
        plant_noise(y, kind, 0.4, X=flat, random_state=0)[0],
    )


# Exactly how many.


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 200), st.floats(0, 0.99), st.integers(0, 2**32))
def test_exact_counts(n, rate, seed):
    y = np.arange(n) % 10
    options = {"count": "exact", "random_state": seed}
    wrong = plant_noise(y, "symmetric_excluding", rate, **options)[1].mask.sum()
    assert wrong == int(rate * n)
    assert plant_noise(y, "pair", rate, **options)[1].mask.sum() == int(rate * n)
    assert plant_noise(y, "symmetric", rate, random_state=seed)[1].mask.sum() <= int(rate * n)
    mapped = sum(np.isin(y, list(CIFAR10_ASYMMETRIC)))
    _, info = plant_noise(y, "asymmetric", rate, mapping=CIFAR10_ASYMMETRIC, **options)
    assert info.mask.sum() == int(rate * mapped)
    X = y[:, None] + np.random.default_rng(seed).normal(size=(n, 2))
    assert plant_noise(y, "annotator", rate, X=X, random_state=seed)[1].mask.sum() == round(rate * n)


def test_counts_vary_under_bernoulli_and_only_there():
    y = np.arange(1000) % 500  # with 500 classes a draw hardly ever returns the label itself
    counts = {
        count: {plant_noise(y, "symmetric", 0.5, count=count, random_state=s)[1].mask.sum() for s in range(9)}
        for count in ("exact", "bernoulli")
    }
    assert max(counts["exact"]) <= 500 and min(counts["exact"]) >= 490
    assert max(counts["bernoulli"]) - min(counts["bernoulli"]) > 15


# Laws for every kind.


@pytest.mark.parametrize("kind", KINDS)
def test_rate_zero_gives_a_copy(kind, blobs):
    X, codes = blobs
    noisy, info = plant(kind, codes, X, rate=0)
    wrong = codes >= 4 if kind.startswith("open_set") else np.zeros(600, bool)
    np.testing.assert_array_equal(noisy != codes, wrong)
    np.testing.assert_array_equal(info.mask, wrong)
    noisy[:] = 0
    np.testing.assert_array_equal(info.truth, codes)


@pytest.mark.parametrize("kind", KINDS)
def test_info_says_what_happened_and_the_arguments_stay(kind, blobs):
    X, codes = blobs
    y, X_before = codes.copy(), X.copy()
    noisy, info = plant_noise(y, kind, 0.4, random_state=0, **extras(kind, range(6), X))
    np.testing.assert_array_equal(y, codes)
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(info.truth, codes)
    assert info.truth is not y and not np.shares_memory(info.truth, y)
    np.testing.assert_array_equal(info.mask, noisy != codes)
    assert info.rate == info.mask.mean() > 0
    naive = [[np.mean(noisy[codes == i] == j) for j in range(6)] for i in range(6)]
    np.testing.assert_allclose(info.transition_matrix, naive)
    assert info.classes.tolist() == [0, 1, 2, 3, 4, 5]
    assert (info.kind, info.requested_rate) == (kind, 0.4)
    assert (info.ood_mask is not None) == kind.startswith("open_set")


@pytest.mark.parametrize("kind", KINDS)
def test_relabelling_keeps_the_noise(kind, blobs):
    """Any names where the order of the classes means nothing, names in the same order elsewhere."""
    X, codes = blobs
    names = np.array(["a", "bb", "ccc", "dddd", "eeeee", "f"])
    if kind not in ORDERED:
        names = names[[3, 5, 0, 4, 1, 2]]
    plain, info = plant(kind, codes, X)
    named, named_info = plant(kind, codes, X, names=names)
    np.testing.assert_array_equal(named, names[plain])
    np.testing.assert_array_equal(named_info.mask, info.mask)
    order = np.argsort(names)
    np.testing.assert_array_equal(named_info.transition_matrix, info.transition_matrix[np.ix_(order, order)])
    np.testing.assert_array_equal(named_info.classes, names[order])


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_the_global_generator_is_left_alone(kind, blobs):
    X, codes = blobs
    np.random.seed(3)  # noqa: NPY002
    first = plant(kind, codes, X, random_state=5)[0]
    np.random.seed(4)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(plant(kind, codes, X, random_state=5)[0], first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert (plant(kind, codes, X, random_state=6)[0] != first).any()


def test_every_sort_of_random_state():
    y = np.arange(200) % 4
    plain = plant_noise(y, "symmetric", 0.5, random_state=7)[0]
    generator = np.random.default_rng(7)
    np.testing.assert_array_equal(plant_noise(y, "symmetric", 0.5, random_state=np.int64(7))[0], plain)
    np.testing.assert_array_equal(plant_noise(y, "symmetric", 0.5, random_state=generator)[0], plain)
    assert (plant_noise(y, "symmetric", 0.5, random_state=generator)[0] != plain).any()
    old = [plant_noise(y, "symmetric", 0.5, random_state=np.random.RandomState(7))[0] for _ in range(2)]
    np.testing.assert_array_equal(*old)
    shared = np.random.RandomState(7)
    moved = [plant_noise(y, "symmetric", 0.5, random_state=shared)[0] for _ in range(2)]
    assert (moved[0] != moved[1]).any()
    assert (plant_noise(y, "symmetric", 0.5)[0] != plant_noise(y, "symmetric", 0.5)[0]).any()


@pytest.mark.parametrize(
    "y",
    [
        np.array(["a", "a long name", "b"] * 20),
        np.array(["a", "a long name", "b"] * 20, dtype=object),
        np.array([-7, 100, 3] * 20, dtype=np.int16),
        np.array([True, False] * 30),
        np.array([1.0, 2.0, 9.0] * 20, dtype=np.float32),
        np.array(["2020-01-01", "2021-01-01"] * 30, dtype="datetime64[D]"),
        pd.Series(["a", "b", "c"] * 20, index=np.arange(60)[::-1], dtype="category", name="label"),
        pd.Series([5, 6, 7] * 20, dtype="Int64"),
        pd.Series(["a", "b", "c"] * 20, index=[1] * 60),
        pd.Categorical(["b", "a"] * 30, categories=["c", "b", "a"]),
    ],
    ids=["str", "object", "int16", "bool", "float32", "date", "category", "Int64", "Series", "Categorical"],
)
def test_dtype_is_kept(y):
    noisy, info = plant_noise(y, "symmetric_excluding", 0.5, random_state=0)
    assert type(noisy) is type(info.truth) is type(y)
    assert noisy.dtype == info.truth.dtype == y.dtype
    assert set(noisy) == set(y)
    if isinstance(y, pd.Series):
        pd.testing.assert_series_equal(info.truth, y)
        assert noisy.index.equals(y.index) and noisy.name == y.name
    np.testing.assert_array_equal(np.asarray(info.truth), np.asarray(y))
    np.testing.assert_array_equal(np.asarray(noisy) != np.asarray(y), info.mask)
    assert 10 < info.mask.sum() < 50


def test_lists_come_back_as_arrays():
    noisy, info = plant_noise(["x", "yy"] * 50, "pair", 0.3, random_state=0)
    assert isinstance(noisy, np.ndarray) and isinstance(info.truth, np.ndarray)
    assert set(noisy) == {"x", "yy"}


# The imbalanced pair.


def test_binary_imbalanced_keeps_one_class_and_a_tenth_of_the_other():
    y = np.random.default_rng(0).permutation(np.repeat(["cat", "deer", "ox"], 3000))
    rows, noisy, info = binary_imbalanced(y, "deer", "cat", random_state=0)
    assert (np.diff(rows) > 0).all()
    assert set(np.flatnonzero(y == "deer")) <= set(rows)
    np.testing.assert_array_equal(info.truth, y[rows] == "cat")
    assert info.truth.sum() == 300 and len(rows) == 3300
    assert noisy.dtype == rows.dtype == np.int64
    np.testing.assert_array_equal(noisy != info.truth, info.mask)
    np.testing.assert_allclose(info.transition_matrix, [[0.7, 0.3], [0.3, 0.7]], atol=0.1)
    same, other = (binary_imbalanced(y, "deer", "cat", random_state=seed)[0] for seed in (0, 1))
    assert same.tolist() == rows.tolist() != other.tolist()


def test_binary_imbalanced_keeps_one_row_at_least_and_all_at_one():
    y = [0] * 5 + [1] * 3
    assert binary_imbalanced(y, 0, 1, keep=0.01, random_state=0)[2].truth.sum() == 1
    assert binary_imbalanced(y, 0, 1, keep=1, rate=0, random_state=0)[0].tolist() == list(range(8))


# Bad input, one sentence each.

Y = [0, 0, 1, 1, 2, 2]
ROWS = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Y, "uniform", 0.1), {}, ParameterError, "kind must be one of symmetric, .* got 'uniform'"),
        ((Y, "pair", 1), {}, ParameterError, r"rate must be in \[0, 1\), got 1"),
        ((Y, "pair", -0.1), {}, ParameterError, "got -0.1"),
        ((Y, "pair", np.nan), {}, ParameterError, "got nan"),
        ((Y, "pair", "0.1"), {}, InputTypeError, "rate must be a number"),
        ((Y, "pair", 0.1), {"random_state": "0"}, InputTypeError, "random_state must be"),
        ((Y, "pair", 0.1), {"random_state": -1}, ParameterError, "random_state must be 0 or more, got -1"),
        ((Y, "pair", 0.1), {"count": "poisson"}, ParameterError, "count must be .* got 'poisson'"),
        ((Y, "instance", 0.1), {"X": ROWS, "count": "exact"}, ParameterError, "count must be 'bernoulli'"),
        ((Y, "annotator", 0.1), {"X": ROWS, "count": "bernoulli"}, ParameterError, "count must be 'exact'"),
        (([1, 1], "pair", 0.1), {}, LabelError, "at least two classes, got 1"),
        (([], "pair", 0.1), {}, LabelError, "at least two classes, got 0"),
        (([0, 1], "open_set", 0.1), {}, LabelError, "at least three classes for kind 'open_set', got 2"),
        (([[0], [1]], "pair", 0.1), {}, LabelError, "one-dimensional, got shape"),
        (([0.5, 1.0], "pair", 0.1), {}, LabelError, "continuous values such as 0.5"),
        (([np.inf, 1.0], "pair", 0.1), {}, LabelError, "continuous values such as inf"),
        (([np.nan, 1.0, 2.0], "pair", 0.1), {}, LabelError, "without missing values"),
        ((np.array(["a", None], object), "pair", 0.1), {}, LabelError, "without missing values"),
        ((np.array(["a", 1], object), "pair", 0.1), {}, LabelError, "of one kind"),
        ((pd.Series([1, None, 2], dtype="Int64"), "pair", 0.1), {}, LabelError, "without missing values"),
        ((pd.Categorical(["a", None, "b"]), "pair", 0.1), {}, LabelError, "without missing values"),
        ((Y, "asymmetric", 0.1), {}, ParameterError, "mapping must be given for kind 'asymmetric'"),
        ((Y, "asymmetric", 0.0), {}, ParameterError, "mapping must be given"),
        ((Y, "asymmetric", 0.1), {"mapping": [1, 0]}, InputTypeError, "mapping must be a mapping"),
        ((Y, "asymmetric", 0.1), {"mapping": {0: 9}}, ParameterError, "labels of y, got 0 to 9"),
        ((Y, "pair", 0.1), {"mapping": {0: 1}}, ParameterError, "mapping must be None for kind 'pair'"),
        ((Y, "pair", 0.1), {"superclass_of": [0, 0, 1]}, ParameterError, "superclass_of must be None"),
        ((Y, "superclass", 0.1), {}, ParameterError, "superclass_of must be given for kind 'superclass'"),
        ((Y, "superclass", 0.1), {"superclass_of": [0, 0]}, ParameterError, "each of 3 labels, got 2"),
        ((Y, "superclass", 0.1), {"superclass_of": {0: 1, 1: 1}}, ParameterError, "got none for 2"),
        ((Y, "instance", 0.1), {}, ParameterError, "X must be given for kind 'instance'"),
        ((Y, "instance", 0.1), {"X": ROWS[:5]}, InputError, "X must have one row .* each of 6 labels"),
        ((Y, "instance", 0.1), {"X": ROWS[:, 0]}, InputError, "X must have one row"),
        ((Y, "annotator", 0.1), {"X": np.full((6, 2), np.nan)}, InputError, "X must be finite"),
        ((Y, "annotator", 0.1), {"X": np.full((6, 2), "a")}, InputTypeError, "array of numbers"),
    ],
)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error, match=message):
        plant_noise(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Y, 0, 0), {}, "two different labels of y, got 0 and 0"),
        ((Y, 0, 7), {}, "two different labels of y, got 0 and 7"),
        ((Y, 0, 1), {"keep": 0}, r"keep must be a number in \(0, 1\], got 0"),
        ((Y, 0, 1), {"keep": "all"}, "keep must be a number"),
        ((Y, 0, 1), {"rate": 1.5}, "rate must be in"),
    ],
)
def test_binary_imbalanced_bad_arguments(arguments, options, message):
    with pytest.raises(ParameterError, match=message):
        binary_imbalanced(*arguments, **options)
