"""MixMatch as DivideMix has it: rows with labels, rows without, and one epoch of a network over both.

D. Berthelot et al., "MixMatch: a holistic approach to semi-supervised learning", NeurIPS 2019; J. Li,
R. Socher & S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR 2020
(arXiv:2002.07394). Equation numbers are DivideMix's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noisefilter import losses
from noisefilter.augment import Augment
from noisefilter.batches import Rows, shuffled
from noisefilter.contrastive import MeanTeacher
from noisefilter.errors import InputError, ParameterError
from noisefilter.estimates import finite
from noisefilter.net import Net, check_finite_loss
from noisefilter.progress import Progress

__all__ = [
    "Blends",
    "Halves",
    "floored",
    "guessed",
    "mixed",
    "mixmatch_epoch",
    "passes",
    "ramp",
    "refined",
    "sharpened",
]

_LEAST_SHARE = 0.005  # of the rows are labeled, and
_LEAST_PER_CLASS = 5  # rows of each class
TRAINED = 3  # passes that training on a row costs: forward, and backward twice as much
_TRIED = 8  # rows to find out what an embedding is fed


class Halves(NamedTuple):
    """Row numbers of the two halves of a set, or of a batch.

    Attributes
    ----------
    labeled, unlabeled : (a,) and (b,) int64 Tensor
        Rows whose labels are believed, rows whose labels are guessed.
    """

    labeled: Tensor
    unlabeled: Tensor


class Blends(NamedTuple):
    """Labeled rows that are made of two others: ``share * x[first] + (1 - share) * x[second]``.

    They are blended after augmentation. Label, belief and weight are those of the first.

    Attributes
    ----------
    first, second : (m,) int64 Tensor
        Row numbers; the same twice makes a row count once more.
    share : (m,) Tensor
        In [0, 1].
    """

    first: Tensor
    second: Tensor
    share: Tensor


class Beside(Protocol):
    """A loss of unlabeled rows that is learned beside that of MixMatch; it may have parameters of its own."""

    def loss(self, net: Net, views: tuple[Tensor, ...]) -> Tensor:
        """Return the loss, with its weight, of views (b, ...) of the unlabeled rows of a step."""

    def step(self) -> None:
        """Move its own parameters down the gradients at hand."""


# --- targets --------------------------------------------------------------------------------------


def sharpened(probs: Tensor, temperature: float) -> Tensor:
    """Return ``probs ** (1 / temperature)``, (b, K), scaled to sum to one: Eq. (4).

    Computed as a softmax of logarithms: powers of small numbers would all be rounded to zero at low
    temperatures.
    """
    return torch.softmax(probs.log() / temperature, dim=1)


def refined(probs: Tensor, onehot: Tensor, clean_proba: Tensor, temperature: float) -> Tensor:
    """Return targets (b, K) of labeled rows: the label so far as it is believed, else the prediction.

    Co-refinement, Eq. (3) and (4).

    Parameters
    ----------
    probs : (b, K) Tensor
        Mean prediction over the views of a row by the network in training.
    onehot : (b, K) Tensor
        The given labels.
    clean_proba : (b,) Tensor
        Probability that the label is right, in [0, 1].
    temperature : float
        Greater than 0; below 1 it sharpens.
    """
    believed = clean_proba[:, None]
    return sharpened(believed * onehot + (1.0 - believed) * probs, temperature)


def guessed(several: Tensor, temperature: float) -> Tensor:
    """Return targets (b, K) of unlabeled rows: the mean of m predictions (m, b, K), sharpened.

    Co-guessing of DivideMix, section 3.2, where m = 4: two networks, two views.
    """
    return sharpened(several.mean(0), temperature)


def mixed(x: Tensor, targets: Tensor, weight: float, order: Tensor) -> tuple[Tensor, Tensor]:
    """Mix a batch with a permutation of itself, so that each row stays the larger part of its mixture.

    Eq. (5) to (8), with one weight for the whole batch as in the official code.

    Parameters
    ----------
    x : (b, ...) Tensor
        Rows; integers, such as the pixels of images, become float32.
    targets : (b, K) Tensor
        What they are to be called.
    weight : float
        In [0, 1]; the larger of it and ``1 - weight`` goes to the row itself.
    order : (b,) int64 Tensor
        The permutation.
    """
    weight = max(weight, 1.0 - weight)
    x = _float(x)
    return torch.lerp(x[order], x, weight), torch.lerp(targets[order], targets, weight)


def ramp(step: float, start: float, length: float) -> float:
    """Return how far a straight line from 0 at `start` to 1 after `length` more has come at `step`.

    In [0, 1]. DivideMix multiplies the weight of L_U by it: 0 when the warm-up ends, 1 after 16 more epochs.
    """
    if length <= 0:
        return float(step >= start)
    return min(1.0, max(0.0, (step - start) / length))


# --- the division ---------------------------------------------------------------------------------


def believed(
    clean: NDArray[np.bool_],
    clean_proba: NDArray[np.floating] | None,
    codes: NDArray[np.integer],
    n_classes: int,
    batch_size: int,
) -> NDArray[np.bool_]:
    """Return the rows (n,) that a verdict believes, and where these are too few the next likely ones.

    What is too few is said in :func:`floored`.
    """
    rejected = 0.0 if clean_proba is None else np.clip(clean_proba, 0.0, 1.0) / 2.0
    return floored(np.where(clean, 1.0, rejected), codes, n_classes, 0.5, batch_size)


def floored(
    clean_proba: NDArray[np.floating],
    codes: NDArray[np.integer],
    n_classes: int,
    threshold: float,
    batch_size: int,
) -> NDArray[np.bool_]:
    """Take rows for labeled whose label is right with more than a given probability, but never too few.

    A division that leaves next to nothing on the labeled side ends a training: the network learns its own
    guesses. So the rows most likely right are labeled, whatever the threshold, until there are as many as two
    batches, half a percent of the rows and five per class (but no more than half of all rows), and until
    each class has five rows of its own (no more than half of those labeled so). That is a deviation from
    DivideMix, which has no such floor. A row added has a low probability, so its target is mostly what the
    network says of it. Nothing is demanded of the unlabeled side, which may be empty.

    Parameters
    ----------
    clean_proba : (n,) array
        Probability that the given label is right, in [0, 1].
    codes : (n,) int array
        Given labels, 0..K-1.
    n_classes : int
        K.
    threshold : float
        In [0, 1].
    batch_size : int
        Labeled rows of a batch.

    Returns
    -------
    (n,) bool array
        Labeled rows. Among equals, those that come first are added.

    Raises
    ------
    InputError
        If a probability is not finite.
    """
    proba = finite(clean_proba, "clean_proba")
    n = len(proba)
    labeled = proba > threshold
    best_first = np.argsort(-proba, kind="stable")
    ordered = codes[best_first]
    for code in range(n_classes):
        own = best_first[ordered == code]
        labeled[own[: min(_LEAST_PER_CLASS, -(-len(own) // 2))]] = True
    needed = min(n // 2, max(2 * batch_size, -(-n // round(1 / _LEAST_SHARE)), _LEAST_PER_CLASS * n_classes))
    missing = max(0, needed - int(labeled.sum()))
    labeled[best_first[~labeled[best_first]][:missing]] = True
    return np.asarray(labeled)


# --- one epoch ------------------------------------------------------------------------------------


def mixmatch_epoch(
    net: Net,
    peer: Net,
    rows: Rows,
    codes: Tensor,
    clean_proba: Tensor,
    labeled: Tensor,
    *,
    batch_size: int,
    temperature: float,
    mixup_alpha: float,
    unlabeled_weight: Callable[[int], float],
    generator: torch.Generator,
    bar: Progress | None = None,
    average: MeanTeacher | None = None,
    penalty: float = 1.0,
    row_weights: Tensor | None = None,
    blends: Blends | None = None,
    unlabeled_ratio: float = 1.0,
    learned_views: Augment | None = None,
    beside: Beside | None = None,
) -> dict[str, float]:
    r"""Train a network for one pass over the labeled rows, with unlabeled ones beside them.

    A step looks at two views of up to `batch_size` labeled rows, and of as many unlabeled ones or
    `unlabeled_ratio` times as many. Labeled rows are to be called what :func:`refined` makes of the network's
    mean prediction over both views, unlabeled ones what :func:`guessed` makes of the network's and its peer's
    predictions of both views. All views are mixed with a permutation of themselves, and one update follows
    the slope of

    .. math:: L = L_X + \lambda_u L_U + \lambda_r L_{reg},

    Eq. (12): :func:`noisefilter.losses.soft_cross_entropy` of the mixtures whose larger part is labeled,
    :func:`~noisefilter.losses.brier` of the others, :func:`~noisefilter.losses.uniform_penalty` of all.

    Per labeled row, with as many unlabeled ones and no loss beside, that takes 4 rows forward and backward
    and 6 forward only, in three calls: the network in evaluation mode on all views, the peer on the views of
    unlabeled rows, the network in training mode on the mixtures. Where a guess is not needed it is not made:
    with `peer` the network itself it is asked once, and if every labeled row has a `clean_proba` of 1 its
    label alone is the target and it is not looked at. Without ``net.augment`` both views are the row as it
    is. They differ in training by what is random inside the network, but not in evaluation mode, where they
    are looked at once.

    Deviations from the official code: guesses are made in evaluation mode by both networks (there, `net`
    guesses in training mode, which lets the guesses move its running statistics); an unlabeled batch is as
    large as the labeled one, or as asked for, or as the whole unlabeled half where that is smaller, and is
    drawn from one reshuffled pass after the other without a break; a last labeled batch of fewer than 8 rows
    joins the one before it; with an empty unlabeled half steps are of labeled rows alone.

    Of the net's own training, optimizer, augmentation, precision and ``on_grad_computed`` callbacks (gradient
    clipping) apply. Of its criterion only the kind is read. Its learning rate, history and other callbacks
    are left to the caller, and so are the global generators that dropout draws from.

    Parameters
    ----------
    net : Net
        Initialized; it is trained.
    peer : Net
        Asked for guesses, and not changed; may be `net`.
    rows : Rows
        All n rows, labeled or not.
    codes : (n,) int64 Tensor
        Given labels, on the rows' device; read of labeled rows only.
    clean_proba : (n,) Tensor
        Probability that a label is right, in [0, 1]; read of labeled rows only.
    labeled : (n,) bool Tensor
        At least one.
    batch_size : int
        Labeled rows of a step, at least 1.
    temperature : float
        T of Eq. (4), greater than 0.
    mixup_alpha : float
        Mixtures are weighted by Beta(alpha, alpha); greater than 0.
    unlabeled_weight : callable
        :math:`\lambda_u` in step 0, 1, ... of this epoch. There are
        ``batches.count_batches(n_labeled, batch_size)`` of them.
    generator : torch.Generator
        Of the rows' device. Order, views and mixtures are drawn from it.
    bar : Progress, optional
        Told of every step, which costs as many as it would take to train ``2 * batch_size`` rows in passing.
    average : MeanTeacher, optional
        Moved towards the network after every step.
    penalty : float, default=1.0
        :math:`\lambda_r`. The penalty assumes classes of about one size.
    row_weights : (n,) Tensor, optional
        Weights of the labeled rows in the labeled loss, where they are mixed as rows are; an unlabeled row
        that a labeled one is mixed with weighs 1. Without them all weigh 1.
    blends : Blends, optional
        Labeled rows beside those of `labeled`, made of two rows each, which may be of either half.
    unlabeled_ratio : float, default=1.0
        Unlabeled rows of a step for each labeled one, greater than 0.
    learned_views : callable, optional
        ``learned_views(batch, generator) -> batch``, asked twice for each batch: what is mixed and learned,
        where that is not to be the views that targets are made of.
    beside : Beside, optional
        Its loss of the views to learn of the unlabeled rows is added, in a call of the network of its own.

    Returns
    -------
    dict
        ``loss``, ``labeled_loss``, ``unlabeled_loss`` (before its weight), ``penalty`` (before its weight),
        means over the labeled rows, and ``n_steps``.

    Raises
    ------
    ParameterError
        For a number outside its range, a criterion other than CrossEntropyLoss and NLLLoss, or a network
        that looks its rows up in an embedding.
    InputError
        If no row is labeled.
    TrainingDivergedError
        If the loss stops being finite.
    """
    _check(net, rows, batch_size, temperature, mixup_alpha, unlabeled_ratio)
    labeled = torch.as_tensor(labeled, device=rows.device)
    entries = _Entries(rows, labeled, blends)
    halves = entries.halves
    if not len(halves.labeled):
        raise InputError("labeled must hold at least one row, got none. floored() sees to that.")
    believed = torch.as_tensor(clean_proba, dtype=torch.float32, device=rows.device)
    guesses = _Guesses(net, peer, entries.of(codes), entries.of(believed), temperature, halves)
    weighing = None if row_weights is None else entries.of(row_weights.to(rows.device, torch.float32))
    batches = _paired(halves, batch_size, unlabeled_ratio, generator)
    weights = _mixture_weights(mixup_alpha, len(batches), generator)
    total = torch.zeros(4, device=rows.device)
    with _in_mode(net.module_, training=True), _in_mode(peer.module_, training=peer is net):
        for step, (batch, weight) in enumerate(zip(batches, weights, strict=True)):
            views = entries.views(net.two_views, batch, generator)
            targets = guesses.targets(views, batch)
            cost = guesses.passes(batch, len(views), beside is not None)
            if learned_views is not None:
                views = entries.views(_twice(learned_views), batch, generator)
            x, wanted, counted = _mixtures(views, targets, weight, batch, weighing, generator)
            also = None if beside is None else (beside, views)
            n_labeled, lam = len(batch.labeled), unlabeled_weight(step)
            total += n_labeled * _update(net, x, wanted, n_labeled, lam, penalty, counted, also)
            if average is not None:
                average.update(net.module_)
            if bar is not None:
                bar.step(cost / (2 * TRAINED * batch_size))
    return _means(total / len(halves.labeled)) | {"n_steps": len(batches)}


def _means(terms: Tensor) -> dict[str, float]:
    loss, of_labeled, of_unlabeled, uneven = terms.tolist()
    check_finite_loss(loss)
    return {"loss": loss, "labeled_loss": of_labeled, "unlabeled_loss": of_unlabeled, "penalty": uneven}


def passes(
    n_labeled: int,
    n_unlabeled: int,
    n_views: int,
    refines: bool = True,
    alone: bool = False,
    beside: bool = False,
) -> int:
    """Return how many rows go forward through a network in a step; one that is trained on counts thrice.

    Parameters
    ----------
    n_labeled, n_unlabeled : int
        Rows of the step, or of all steps of an epoch together.
    n_views : int
        1 or 2: in evaluation mode.
    refines : bool, default=True
        Whether labeled rows are looked at as well.
    alone : bool, default=False
        Whether a network guesses without its peer.
    beside : bool, default=False
        Whether unlabeled rows have another loss beside.
    """
    looks = n_labeled * refines + n_unlabeled * (1 if alone else 2)
    return n_views * looks + 2 * TRAINED * (n_labeled + n_unlabeled * (2 if beside else 1))


_Look = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


class _Entries:
    """What stands in batches: the rows by their numbers 0..n-1, and the blends behind them."""

    def __init__(self, rows: Rows, labeled: Tensor, blends: Blends | None):
        self.rows = rows
        self.blends = blends
        known, unknown = labeled.nonzero()[:, 0], (~labeled).nonzero()[:, 0]
        if blends is not None:
            each = torch.arange(len(rows), device=rows.device)
            self.first, self.second = torch.cat([each, blends.first]), torch.cat([each, blends.second])
            self.share = torch.cat([torch.ones(len(rows), device=rows.device), blends.share])
            known = torch.cat([known, len(rows) + torch.arange(len(blends.first), device=rows.device)])
        self.halves = Halves(known, unknown)

    def of(self, values: Tensor) -> Tensor:
        """Return values (n,) of the rows for all that stands in batches."""
        return values if self.blends is None else values[self.first]

    def views(self, look: _Look, batch: Halves, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return two views of a batch, or one where nothing outside the network makes two."""
        if self.blends is None:
            return _views(look, self.rows.take(torch.cat(batch)), generator)
        n = len(batch.labeled)
        # All labeled rows have a partner, most of them themselves: picking out the others would have to wait
        # for the device.
        own = _views(look, self.rows.take(self.first[torch.cat(batch)]), generator)
        partners = _views(look, self.rows.take(self.second[batch.labeled]), generator)
        share = self.share[batch.labeled].view(-1, *(1,) * len(self.rows.shape))
        return tuple(
            torch.cat([_lerp(partner, view[:n], share), _float(view[n:])])
            for view, partner in zip(own, partners, strict=True)
        )


def _float(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.float()


def _lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    start, end = _float(start), _float(end)
    return torch.lerp(start, end, share.to(end.dtype))


def _mixed_weights(row_weights: Tensor, batch: Halves, weight: float, order: Tensor) -> Tensor:
    """Return weights of the mixtures of both views of a batch, (2 b,), mixed as the rows are."""
    each = torch.cat([row_weights[batch.labeled], row_weights.new_ones(len(batch.unlabeled))]).repeat(2)
    return torch.lerp(each[order], each, max(weight, 1.0 - weight))


class _Guesses:
    """What networks in evaluation mode make of a batch: the targets of its rows."""

    def __init__(
        self, net: Net, peer: Net, codes: Tensor, clean_proba: Tensor, temperature: float, halves: Halves
    ):
        self.net = net
        self.peer = peer
        self.codes = codes
        self.clean_proba = clean_proba
        self.temperature = temperature
        self.half = net._half_training()
        alone = not len(halves.unlabeled)
        self.refines = alone or bool((clean_proba[halves.labeled] < 1.0).any())

    def passes(self, batch: Halves, n_views: int, beside: bool) -> int:
        """Return what a step costs."""
        n_labeled, n_unlabeled = len(batch.labeled), len(batch.unlabeled)
        return passes(n_labeled, n_unlabeled, n_views, self.refines, self.peer is self.net, beside)

    def targets(self, views: tuple[Tensor, ...], batch: Halves) -> Tensor:
        """Return targets (b, K) of the rows of a batch, labeled rows first."""
        n = len(batch.labeled)
        seen = views if self.refines else tuple(view[n:] for view in views)
        own = self._looked(self.net, seen)  # (views, b, K), or of the unlabeled rows alone
        onehot = losses.smoothed(self.codes[batch.labeled], own.shape[2], 0.0)
        if not self.refines:
            return torch.cat([onehot, self._guessed(own, views, n)])
        trusted = refined(own[:, :n].mean(0), onehot, self.clean_proba[batch.labeled], self.temperature)
        if not len(batch.unlabeled):
            return trusted
        return torch.cat([trusted, self._guessed(own[:, n:], views, n)])

    def _guessed(self, own: Tensor, views: tuple[Tensor, ...], n_labeled: int) -> Tensor:
        if self.peer is self.net:
            return guessed(own, self.temperature)
        other = self._looked(self.peer, tuple(view[n_labeled:] for view in views))
        return guessed(torch.cat([own, other]), self.temperature)

    def _looked(self, net: Net, views: tuple[Tensor, ...]) -> Tensor:
        """Return probabilities (views, b, K) from one call."""
        with _in_mode(net.module_, training=False), torch.no_grad():
            probs = net.log_probs(net.outputs(torch.cat(views), self.half)).exp()
        return probs.unflatten(0, (len(views), -1))


def _mixtures(
    views: tuple[Tensor, ...],
    targets: Tensor,
    weight: float,
    batch: Halves,
    row_weights: Tensor | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mix both views of a batch with a permutation of them; returns rows, targets and weights."""
    order = torch.randperm(2 * len(targets), generator=generator, device=generator.device)
    x, wanted = mixed(torch.cat([views[0], views[-1]]), targets.repeat(2, 1), weight, order)
    return x, wanted, None if row_weights is None else _mixed_weights(row_weights, batch, weight, order)


def _update(
    net: Net,
    x: Tensor,
    targets: Tensor,
    n_labeled: int,
    weight: float,
    penalty: float,
    row_weights: Tensor | None,
    beside: tuple[Beside, tuple[Tensor, ...]] | None,
) -> Tensor:
    """Update once; returns the loss and its three parts, (4,)."""
    net.zero_gradients()
    log_probs = net.log_probs(net.outputs(x, net._half_training()))
    both = log_probs.unflatten(0, (2, -1))  # twice the same rows, labeled ones first
    wanted = targets.unflatten(0, (2, -1))
    fits = losses.soft_cross_entropy(both[:, :n_labeled].flatten(0, 1), wanted[:, :n_labeled].flatten(0, 1))
    if row_weights is not None:
        fits = fits * row_weights.unflatten(0, (2, -1))[:, :n_labeled].flatten()
    fit = fits.mean()
    guess = log_probs.new_zeros(())
    if both.shape[1] > n_labeled:
        free = both[:, n_labeled:].flatten(0, 1).exp()
        guess = losses.brier(free, wanted[:, n_labeled:].flatten(0, 1)).mean()
    uneven = losses.uniform_penalty(log_probs)
    loss = fit + weight * guess + penalty * uneven
    if beside is not None and both.shape[1] > n_labeled:
        loss = loss + beside[0].loss(net, tuple(view[n_labeled:] for view in beside[1]))
    loss.backward()
    net.descend(x, targets)
    if beside is not None:
        beside[0].step()
    return torch.stack([loss, fit, guess, uneven]).detach()


def _views(look: _Look, x: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return two views of a batch, or one where they are the same."""
    views = look(x, generator)
    return views[:1] if views[0] is views[1] else views


def _twice(views: Augment) -> _Look:
    return lambda x, generator: (views(x, generator), views(x, generator))


def _paired(halves: Halves, batch_size: int, ratio: float, generator: torch.Generator) -> list[Halves]:
    """Return the batches of an epoch: each labeled row once, unlabeled ones from pass after pass."""
    order = shuffled(len(halves.labeled), batch_size, generator)
    n_others = len(halves.unlabeled)
    sizes = [min(max(1, round(ratio * len(part))), n_others) for part in order]
    passes = [
        torch.randperm(n_others, generator=generator, device=generator.device)
        for _ in range(-(-sum(sizes) // max(1, n_others)))
    ]
    stream = torch.cat([halves.unlabeled[:0], *passes])[: sum(sizes)]
    others = halves.unlabeled[stream].split(sizes)
    return [Halves(halves.labeled[part], other) for part, other in zip(order, others, strict=True)]


def _mixture_weights(alpha: float, n: int, generator: torch.Generator) -> list[float]:
    """Draw the mixtures' weights of all steps at once: one at a time, each step would wait for the device."""
    seed = torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device)
    on_cpu = torch.Generator().manual_seed(int(seed))  # the Dirichlet sampler has none for CUDA
    pairs = torch._sample_dirichlet(torch.full((n, 2), alpha, dtype=torch.float64), generator=on_cpu)
    weights: list[float] = pairs[:, 0].tolist()
    return weights


@contextmanager
def _in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put a module into training or evaluation mode, and back into the one it was in behind the block."""
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)


def _check(net: Net, rows: Rows, batch_size: int, temperature: float, alpha: float, ratio: float) -> None:
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size!r}.")
    positive = {"temperature": temperature, "mixup_alpha": alpha, "unlabeled_ratio": ratio}
    for name, value in positive.items():
        if not value > 0:
            raise ParameterError(f"{name} must be greater than 0, got {value!r}.")
    if not isinstance(net.criterion_, nn.CrossEntropyLoss | nn.NLLLoss):
        raise ParameterError(
            "criterion must be CrossEntropyLoss or NLLLoss where MixMatch's loss is trained, "
            f"got {type(net.criterion_).__name__}."
        )
    if _looks_up(net, rows):
        raise ParameterError(
            "network must be fed numbers of which mixtures make sense, got rows that it looks up in an "
            "embedding. Embed them first and train on the vectors."
        )


def _looks_up(net: Net, rows: Rows) -> bool:
    """Whether an embedding of the network is fed what depends on the rows, as no embedding of places is."""
    layers = [part for part in net.module_.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)]
    if not layers:
        return False
    fed: list[Tensor] = []
    hooks = [part.register_forward_pre_hook(lambda _, given: fed.append(given[0])) for part in layers]
    n = min(_TRIED, len(rows) // 2)
    first = torch.arange(n, device=rows.device)
    try:
        net.predict_batch(rows.take(first))
        seen, fed[:] = list(fed), []
        net.predict_batch(rows.take(len(rows) - n + first))
    finally:
        for hook in hooks:
            hook.remove()
    return any(not torch.equal(one, other) for one, other in zip(seen, fed, strict=True))
