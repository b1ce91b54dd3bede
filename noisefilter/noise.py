"""Planted noise: wrong labels by our own hand, so that a filter can be measured.

===================== ==================== ============ ======================================================
kind                  in the literature    made wrong   what happens to a label that is changed
===================== ==================== ============ ======================================================
symmetric             sym_incl             r (K-1) / K  uniform draw over all K classes, its own included
symmetric_excluding   sym_excl             r            uniform draw over the other classes
asymmetric            asym_cifar10         r m          goes where `mapping` says, which names a share m of
                                                        the rows; half of them with `CIFAR10_ASYMMETRIC`
pair                  chain, pairflip      r            next class in sorted order, the last to the first
superclass_block      superclass_block     r            next class in its block of 5 sorted classes, cyclic
superclass            superclass_true      r            next class in its superclass, cyclic
superclass_swap       superclass_swap      2 r / 5      in each superclass (of five) two random classes change
                                                        places
open_set              openset_tail, sym.   s + (1-s) r  the last fifth of the classes (rounded up; a share s
                                                        of the rows) are strangers: labelled uniformly over
                                                        the rest, which suffers symmetric_excluding noise
open_set_pair         openset_tail, chain  s + (1-s) r  the same, and the rest suffers pair noise
instance              part-dependent       about r      depends on the row, by random projections of `X`
annotator             human-like           r            takes a wrong vote of weak classifiers; rows most of
                                                        them get wrong go first
`binary_imbalanced`   INN 4.4              0.3          a recipe for a data set: a function of its own
===================== ==================== ============ ======================================================

r is the requested rate. "40 % asymmetric noise" on CIFAR-10 is 20 % wrong labels: report the realised
`NoiseInfo.rate`. The fine labels of CIFAR-100 are alphabetical, so the blocks of ``superclass_block``, which
many published tables call superclasses, are none: ``superclass`` with `CIFAR100_SUPERCLASSES` is the honest
kind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import truncnorm
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import confusion_matrix

from noisefilter.errors import InputError, InputTypeError, LabelError, ParameterError

__all__ = [
    "CIFAR10_ASYMMETRIC",
    "CIFAR100_SUPERCLASSES",
    "KINDS",
    "NoiseInfo",
    "binary_imbalanced",
    "plant_noise",
]

Codes = NDArray[np.int64]
RandomState = int | np.random.Generator | np.random.RandomState | None

CIFAR10_ASYMMETRIC: Mapping[int, int] = MappingProxyType({9: 1, 2: 0, 4: 7, 3: 5, 5: 3})
"""Truck to automobile, bird to airplane, deer to horse, cat to dog and back."""

# fmt: off
CIFAR100_SUPERCLASSES: tuple[int, ...] = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11,
    6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5,
    5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)
"""The official coarse label of each of the 100 fine labels."""
# fmt: on

BLOCK = 5  # classes a block of superclass_block
VOTERS, ROWS_PER_CLASS, COMPONENTS, RIDGE = 20, 10, 50, 50.0  # the annotators' pool
INSTANCE_SPREAD = 0.1  # standard deviation of the flip rates of instance noise


@dataclass(frozen=True, eq=False)
class NoiseInfo:
    """What was planted.

    Attributes
    ----------
    truth : (n,)
        The labels before, of the same type as the noisy ones.
    mask : ndarray of bool, shape (n,)
        The rows whose label is wrong now.
    rate : float
        Realised share of wrong labels, in [0, 1].
    transition_matrix : ndarray of shape (K, K)
        Realised P(given j | true i); rows and columns in the order of `classes`.
    classes : ndarray of shape (K,)
        The true classes, sorted.
    kind : str
        The kind of noise.
    requested_rate : float
        The rate that was asked for; see the module's table for what it means.
    ood_mask : ndarray of bool, shape (n,), or None
        For open-set kinds the rows whose true class is no longer among the labels.
    """

    truth: Any
    mask: NDArray[np.bool_]
    rate: float
    transition_matrix: NDArray[np.float64]
    classes: NDArray[Any]
    kind: str
    requested_rate: float
    ood_mask: NDArray[np.bool_] | None = None


def plant_noise(
    y: Any,
    kind: str,
    rate: float,
    *,
    random_state: RandomState = None,
    X: ArrayLike | None = None,
    superclass_of: Mapping[Any, Any] | Sequence[Any] | None = None,
    mapping: Mapping[Any, Any] | None = None,
    count: Literal["exact", "bernoulli"] | None = None,
) -> tuple[Any, NoiseInfo]:
    """Make some of the labels wrong.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels of any kind: strings, integers with gaps, bool, a pandas Series or Categorical.
    kind : str
        One of `KINDS`; see the table at the top of this module.
    rate : float
        The r of that table, in [0, 1). At 0 the labels come back as a copy; under the open-set kinds the
        strangers are relabelled even then.
    random_state : int, Generator, RandomState or None, default=None
        No global generator is touched.
    X : array-like of shape (n, ...), default=None
        Finite numbers, needed by "instance" and "annotator", ignored by the others.
    superclass_of : mapping or sequence, default=None
        The superclass of each label: ``{label: superclass}``, or one entry for each label in sorted order.
        Needed by "superclass" and "superclass_swap".
    mapping : mapping, default=None
        ``{from: to}`` in the labels of `y`. Needed by "asymmetric".
    count : {"exact", "bernoulli"}, default=None
        "exact" draws int(r n') rows of the n' rows the kind can change, "bernoulli" draws each of them with
        probability r. The default is the published habit: "exact" for "symmetric", else "bernoulli". Instance
        noise is always bernoulli, annotator noise always exact with round(r n) wrong labels.

    Returns
    -------
    y_noisy : (n,)
        The same dtype as `y`, with its index for a Series; lists come back as an ndarray.
    info : NoiseInfo
        The truth and what became of it.

    Raises
    ------
    LabelError
        Fewer than two classes (three for open-set kinds); missing, continuous or two-dimensional labels.
    ParameterError, InputError, InputTypeError
        A rate outside [0, 1), an unknown kind, an argument that is missing, superfluous or unusable.
    """
    spec = _spec(kind, count)
    rate = _checked_rate(rate)
    rng = _generator(random_state)
    labels = _encode(y, spec.sorted_codes)
    extra = _extra(kind, spec.needs, labels, {"X": X, "superclass_of": superclass_of, "mapping": mapping})
    n_known = labels.n_classes * 4 // 5 if spec.open_set else labels.n_classes
    if n_known < 2:
        raise LabelError(f"y must have at least three classes for kind {kind!r}, got {labels.n_classes}.")
    exact = (count or spec.counts[0]) == "exact"
    noisy = labels.codes
    if rate > 0 or spec.open_set:
        noisy = spec.flip(_Task(labels.codes, labels.n_classes, n_known, rate, exact, extra, rng))
    wrong = noisy != labels.codes
    info = NoiseInfo(
        truth=_take(y, np.arange(len(wrong))),
        mask=wrong,
        rate=float(wrong.mean()),
        transition_matrix=_realised(labels, noisy),
        classes=labels.classes,
        kind=kind,
        requested_rate=rate,
        ood_mask=labels.codes >= n_known if spec.open_set else None,
    )
    return _take(y, labels.example_rows[noisy]), info


def binary_imbalanced(
    y: Any,
    majority: Any,
    minority: Any,
    *,
    keep: float = 0.1,
    rate: float = 0.3,
    random_state: RandomState = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NoiseInfo]:
    """Two classes, one of them rare, every label flipped with the same probability.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels of any kind.
    majority, minority : labels
        All rows of the one are kept, and a random share of the other. The paper's pairs on CIFAR-10, counted
        from 0, are (0, 1), (2, 7), (3, 4) and (6, 8).
    keep : float, default=0.1
        Share of the minority's rows that is kept, in (0, 1]; at least one row stays.
    rate : float, default=0.3
        Probability of a flip, in [0, 1).
    random_state : int, Generator, RandomState or None, default=None
        No global generator is touched.

    Returns
    -------
    rows : ndarray of int64, shape (m,)
        The rows of `y` that are kept, ascending.
    y_noisy : ndarray of int64, shape (m,)
        0 for the majority and 1 for the minority, with noise.
    info : NoiseInfo
        In terms of 0 and 1.

    References
    ----------
    INN, arXiv:2106.15185, section 4.4. It names the pairs (1, 2), (3, 8), (4, 5) and (7, 9); its labels are
    taken to count from 1.
    """
    if not (isinstance(keep, Real) and 0 < keep <= 1):
        raise ParameterError(f"keep must be a number in (0, 1], got {keep!r}.")
    rng = _generator(random_state)
    labels = _encode(y, sorted_codes=True)
    names = list(labels.classes)
    if majority not in names or minority not in names or majority == minority:
        raise ParameterError(
            f"majority and minority must be two different labels of y, got {majority!r} and {minority!r}."
        )
    many = np.flatnonzero(labels.codes == names.index(majority))
    few = np.flatnonzero(labels.codes == names.index(minority))
    few = rng.choice(few, max(1, round(keep * len(few))), replace=False)
    rows = np.sort(np.concatenate([many, few]))
    truth = np.isin(rows, few).astype(np.int64)
    return rows, *plant_noise(truth, "symmetric_excluding", rate, random_state=rng)


# What each kind does: a task in, noisy codes out.


@dataclass(frozen=True, eq=False)
class _Task:
    codes: Codes  # (n,)
    n_classes: int
    n_known: int  # under open-set kinds the codes from here on are strangers
    rate: float
    exact: bool
    extra: NDArray[
        Any
    ]  # what the kind needs: rows (n, d), target or superclass of each class (K,), or nothing
    rng: np.random.Generator

    def draw(self, rows: Codes) -> Codes:
        """Choose among the rows that can be changed."""
        if self.exact:
            return self.rng.choice(rows, int(self.rate * len(rows)), replace=False)
        return rows[self.rng.random(len(rows)) < self.rate]

    def redirect(self, target: Codes) -> Codes:
        """Class k goes to target[k]; classes that go nowhere are not drawn from."""
        noisy = self.codes.copy()
        rows = self.draw(np.flatnonzero(target[noisy] != noisy))
        noisy[rows] = target[noisy[rows]]
        return noisy


def _symmetric(task: _Task) -> Codes:
    noisy = task.codes.copy()
    rows = task.draw(np.arange(len(noisy)))
    noisy[rows] = task.rng.integers(task.n_classes, size=len(rows))
    return noisy


def _symmetric_excluding(task: _Task) -> Codes:
    noisy = task.codes.copy()
    rows = task.draw(np.flatnonzero(noisy < task.n_known))
    noisy[rows] = (noisy[rows] + task.rng.integers(1, task.n_known, size=len(rows))) % task.n_known
    return noisy


def _asymmetric(task: _Task) -> Codes:
    return task.redirect(task.extra)


def _pair(task: _Task) -> Codes:
    target = np.arange(task.n_classes)
    target[: task.n_known] = np.roll(target[: task.n_known], -1)
    return task.redirect(target)


def _superclass_block(task: _Task) -> Codes:
    return task.redirect(_next_in_group(np.arange(task.n_classes) // BLOCK))


def _superclass(task: _Task) -> Codes:
    return task.redirect(_next_in_group(task.extra))


def _superclass_swap(task: _Task) -> Codes:
    target = np.arange(task.n_classes)
    for group in np.unique(task.extra):
        members = np.flatnonzero(task.extra == group)
        if len(members) > 1:
            one, other = task.rng.choice(members, 2, replace=False)
            target[one], target[other] = other, one
    return task.redirect(target)


def _open_set(task: _Task) -> Codes:
    return _label_strangers(task, _symmetric_excluding(task))


def _open_set_pair(task: _Task) -> Codes:
    return _label_strangers(task, _pair(task))


def _label_strangers(task: _Task, noisy: Codes) -> Codes:
    strangers = np.flatnonzero(task.codes >= task.n_known)
    noisy[strangers] = task.rng.integers(task.n_known, size=len(strangers))
    return noisy


def _next_in_group(groups: Codes) -> Codes:
    """For each class the next one of the same group, the last one's being the first."""
    target = np.arange(len(groups))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        target[members] = np.roll(members, -1)
    return target


def _instance(task: _Task) -> Codes:
    """Xia et al., "Part-dependent label noise", NeurIPS 2020, arXiv:2006.07836, its noise generation.

    Each row has its own flip probability q from a normal around r, truncated to [0, 1], and goes to class c
    with probability q softmax(x W_y)_c, its own class left out, with one Gaussian matrix W_y for each class.
    Two deviations: the columns of x are standardised, so that the scale of the input does not matter; the
    spread of q, 0.1 in the paper, is at most half of r and of 1 - r, because for small r the truncation would
    make the realised rate several times r.
    """
    spread = min(INSTANCE_SPREAD, task.rate / 2, (1 - task.rate) / 2)
    low, high = -task.rate / spread, (1 - task.rate) / spread
    q = truncnorm.rvs(low, high, loc=task.rate, scale=spread, size=len(task.codes), random_state=task.rng)
    flipped = task.rng.random(len(task.codes)) < q
    x = _standardised(task.extra)
    noisy = task.codes.copy()
    for code in range(task.n_classes):
        projection = task.rng.standard_normal((x.shape[1], task.n_classes), dtype=np.float32)
        rows = np.flatnonzero(flipped & (task.codes == code))
        logits = (x[rows] @ projection).astype(np.float64)
        logits[:, code] = -np.inf
        # the maximum of logits with Gumbel noise is a draw from their softmax
        noisy[rows] = (logits + task.rng.gumbel(size=logits.shape)).argmax(axis=1)
    return noisy


def _annotator(task: _Task) -> Codes:
    """Rows that most voters get wrong go first; each takes a random one of the wrong votes cast for it.

    Where no vote is wrong, the class that the pool holds for the next likely one.
    """
    votes, decisions = _pool(task)  # (V, n), (n, K)
    is_wrong = votes != task.codes
    shuffled = task.rng.random(len(task.codes))
    most_wrong_first = np.lexsort((shuffled, -is_wrong.sum(axis=0)))
    rows = most_wrong_first[: round(task.rate * len(task.codes))]
    lots = np.where(is_wrong[:, rows], task.rng.random((VOTERS, len(rows))), -1.0)
    wrong_votes = votes[lots.argmax(axis=0), rows]
    decisions[np.arange(len(task.codes)), task.codes] = -np.inf
    noisy = task.codes.copy()
    noisy[rows] = np.where(is_wrong[:, rows].any(axis=0), wrong_votes, decisions[rows].argmax(axis=1))
    return noisy


def _pool(task: _Task) -> tuple[Codes, NDArray[np.float64]]:
    """Return the votes and the mean decision of weak classifiers, each trained on a few clean rows."""
    x = _standardised(task.extra)
    n_components = min(COMPONENTS, len(x) - 1, x.shape[1])
    seed = int(task.rng.integers(2**31))
    pca = PCA(n_components, whiten=True, svd_solver="randomized", random_state=seed)
    z = (pca.fit_transform(x) if x.any() else x[:, :1]).astype(np.float64)
    by_class = [np.flatnonzero(task.codes == code) for code in range(task.n_classes)]
    votes = np.empty((VOTERS, len(z)), dtype=np.int64)
    mean_decision = np.zeros((len(z), task.n_classes))
    for voter in range(VOTERS):
        rows = np.concatenate(
            [
                task.rng.choice(members, min(ROWS_PER_CLASS, len(members)), replace=False)
                for members in by_class
            ]
        )
        model = RidgeClassifier(alpha=RIDGE).fit(z[rows], task.codes[rows])
        decision = model.decision_function(z)
        decision = np.column_stack([-decision, decision]) if decision.ndim == 1 else decision
        votes[voter] = decision.argmax(axis=1)
        mean_decision += decision / VOTERS
    return votes, mean_decision


def _standardised(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Columns with mean 0 and deviation 1 in float32; constant columns become 0."""
    mean = rows.mean(axis=0, dtype=np.float64)
    x = np.empty(rows.shape, dtype=np.float32)
    np.subtract(rows, mean, out=x, casting="same_kind")  # in buffers: no float64 copy of all images
    deviation = np.sqrt(np.einsum("ij,ij->j", x, x, dtype=np.float64) / len(x))
    x /= np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf).astype(np.float32)
    return x


@dataclass(frozen=True)
class _Kind:
    flip: Callable[[_Task], Codes]
    counts: tuple[str, ...] = ("bernoulli", "exact")  # the first is the default
    needs: str | None = None
    sorted_codes: bool = False  # the order of the classes means something
    open_set: bool = False


_KINDS = {
    "symmetric": _Kind(_symmetric, counts=("exact", "bernoulli")),
    "symmetric_excluding": _Kind(_symmetric_excluding),
    "asymmetric": _Kind(_asymmetric, needs="mapping"),
    "pair": _Kind(_pair, sorted_codes=True),
    "superclass_block": _Kind(_superclass_block, sorted_codes=True),
    "superclass": _Kind(_superclass, needs="superclass_of", sorted_codes=True),
    "superclass_swap": _Kind(_superclass_swap, needs="superclass_of", sorted_codes=True),
    "open_set": _Kind(_open_set, sorted_codes=True, open_set=True),
    "open_set_pair": _Kind(_open_set_pair, sorted_codes=True, open_set=True),
    "instance": _Kind(_instance, counts=("bernoulli",), needs="X"),
    "annotator": _Kind(_annotator, counts=("exact",), needs="X"),
}
KINDS: tuple[str, ...] = tuple(_KINDS)


# Labels to codes and back.


@dataclass(frozen=True, eq=False)
class _Labels:
    codes: Codes  # (n,)
    classes: NDArray[Any]  # (K,) sorted
    places: Codes  # (K,) of each code its place in `classes`
    example_rows: Codes  # (K,) of each code a row that has it

    @property
    def n_classes(self) -> int:
        return len(self.classes)


def _encode(y: Any, sorted_codes: bool) -> _Labels:
    """Code by first appearance, so that a relabelling keeps every bit, unless the order means something."""
    values = np.asarray(y)
    if values.ndim != 1:
        raise LabelError(f"y must be one-dimensional, got shape {values.shape}.")
    try:
        # NaN, NaT and pandas.NA differ from themselves or refuse to say, None refuses to be sorted
        missing = bool((values != values).any())
        classes, first, places = np.unique(values, return_index=True, return_inverse=True)
    except TypeError:
        missing = True
    if missing:
        raise LabelError(
            "y must be labels of one kind without missing values, got some that cannot be sorted."
        )
    if classes.dtype.kind == "f":
        odd = classes[~np.isfinite(classes) | (classes != np.floor(classes))]
        if len(odd):
            raise LabelError(f"y must be class labels, got continuous values such as {odd[0]}.")
    if len(classes) < 2:
        raise LabelError(f"y must have at least two classes, got {len(classes)}.")
    order = np.arange(len(classes)) if sorted_codes else np.argsort(first)
    code_of_place = np.argsort(order)
    return _Labels(code_of_place[places], classes, order, first[order])


def _take(y: Any, rows: Codes) -> Any:
    """Return the labels of these rows in the container of `y`, which truncates and casts nothing."""
    if hasattr(y, "iloc"):
        return y.iloc[rows].set_axis(y.index)
    return y[rows] if hasattr(y, "dtype") else np.asarray(y)[rows]


def _realised(labels: _Labels, noisy: Codes) -> NDArray[np.float64]:
    true, given = labels.places[labels.codes], labels.places[noisy]
    matrix: NDArray[np.float64] = confusion_matrix(
        true, given, labels=np.arange(labels.n_classes), normalize="true"
    )
    return matrix


# Arguments.


def _spec(kind: str, count: str | None) -> _Kind:
    if kind not in KINDS:
        raise ParameterError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    spec = _KINDS[kind]
    if count is not None and count not in spec.counts:
        allowed = " or ".join(map(repr, spec.counts))
        raise ParameterError(f"count must be {allowed} or None for kind {kind!r}, got {count!r}.")
    return spec


def _checked_rate(rate: Any) -> float:
    if not isinstance(rate, Real):
        raise InputTypeError(f"rate must be a number in [0, 1), got {rate!r}.")
    value = float(rate)
    if not 0 <= value < 1:
        raise ParameterError(f"rate must be in [0, 1), got {rate}.")
    return value


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**32, size=4, dtype=np.uint32))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    if not isinstance(random_state, Integral):
        raise InputTypeError(
            f"random_state must be an int, a Generator, a RandomState or None, got {random_state!r}."
        )
    if random_state < 0:
        raise ParameterError(f"random_state must be 0 or more, got {random_state}.")
    return np.random.default_rng(int(random_state))


def _extra(kind: str, needs: str | None, labels: _Labels, given: dict[str, Any]) -> NDArray[Any]:
    """Return what the kind needs as an array; refuse its absence and whatever would change nothing."""
    for name in ("superclass_of", "mapping"):
        if name != needs and given[name] is not None:
            raise ParameterError(f"{name} must be None for kind {kind!r}, got {type(given[name]).__name__}.")
    if needs is None:
        return np.empty(0)
    if given[needs] is None:
        raise ParameterError(f"{needs} must be given for kind {kind!r}, got None.")
    if needs == "X":
        return _flat_rows(given["X"], len(labels.codes))
    if needs == "mapping":
        return _targets(given["mapping"], labels)
    return _superclasses(given["superclass_of"], labels)


def _flat_rows(X: Any, n_samples: int) -> NDArray[Any]:
    rows = np.asarray(X)
    if rows.dtype.kind not in "buif":
        raise InputTypeError(f"X must be a dense array of numbers, got {type(X).__name__} of {rows.dtype}.")
    if rows.ndim < 2 or len(rows) != n_samples or rows.size == 0:
        raise InputError(f"X must have one row of features for each of {n_samples} labels, got {rows.shape}.")
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise InputError("X must be finite, got NaN or infinity.")
    return rows.reshape(n_samples, -1)


def _targets(mapping: Any, labels: _Labels) -> Codes:
    if not isinstance(mapping, Mapping):
        raise InputTypeError(f"mapping must be a mapping from label to label, got {type(mapping).__name__}.")
    code_of = {name: code for code, name in enumerate(labels.classes[labels.places])}
    target = np.arange(labels.n_classes)
    for old, new in mapping.items():
        if old not in code_of or new not in code_of:
            raise ParameterError(f"mapping must send labels of y to labels of y, got {old!r} to {new!r}.")
        target[code_of[old]] = code_of[new]
    return target


def _superclasses(superclass_of: Any, labels: _Labels) -> Codes:
    """Return the superclass of each label as a number, in sorted order of the labels."""
    if isinstance(superclass_of, Mapping):
        absent = [name for name in labels.classes if name not in superclass_of]
        if absent:
            raise ParameterError(
                f"superclass_of must have an entry for every label, got none for {absent[0]}."
            )
        named = [superclass_of[name] for name in labels.classes]
    else:
        named = list(superclass_of)
        if len(named) != labels.n_classes:
            raise ParameterError(
                f"superclass_of must have one entry for each of {labels.n_classes} labels, got {len(named)}."
            )
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in named], dtype=np.int64)
