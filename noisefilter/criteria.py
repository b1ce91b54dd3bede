"""Robust losses as criteria: torch modules that take logits and class numbers, for any training loop.

They are what ``criterion=`` of a skorch ``NeuralNetClassifier`` or of :class:`noisefilter.Net` takes. skorch
makes probabilities of logits only where the criterion is a ``CrossEntropyLoss``, so all of them are; of that
class they have nothing but ``reduction``. Formulas are in :mod:`noisefilter.losses`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from noisefilter import losses
from noisefilter.errors import InputError, ParameterError

__all__ = [
    "ConfidencePenaltyLoss",
    "DynamicBootstrappingLoss",
    "ELRLoss",
    "GCELoss",
    "HardBootstrappingLoss",
    "IndexedDataset",
    "IndexedLoss",
    "LabelDistributionLoss",
    "RobustLoss",
    "SoftBootstrappingLoss",
    "SymmetricCELoss",
]

_REDUCTIONS = ("mean", "sum", "none")
_LEAST_PROBABILITY = 1e-4  # that a target of ELR is made of
_SURE = 10.0  # K of PENCIL: how far the given label is ahead of the others, in logits, at first


class RobustLoss(nn.CrossEntropyLoss):
    """A loss of logits (b, K) and class numbers (b,); a subclass writes :meth:`row_losses`.

    Logits in half precision are read in float32; any that are finite give a finite loss with finite slopes.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.
    """

    def __init__(self, *, reduction: str = "mean"):
        if reduction not in _REDUCTIONS:
            raise ParameterError(f"reduction must be one of {_REDUCTIONS}, got {reduction!r}.")
        super().__init__(reduction=reduction)

    @abstractmethod
    def row_losses(self, log_probs: Tensor, codes: Tensor) -> Tensor:
        """Return the loss of each row, (b,), from log-probabilities (b, K) and class numbers (b,)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (b, K) against class numbers (b,)."""
        return self._reduced(self.row_losses(*_read(input, target)))

    def _reduced(self, rows: Tensor) -> Tensor:
        if self.reduction == "none":
            return rows
        return rows.sum() if self.reduction == "sum" else rows.mean()


class GCELoss(RobustLoss):
    r"""Generalized cross-entropy: :math:`(1 - p_y^q) / q`, between cross-entropy and mean absolute error.

    Rows whose label the network finds unlikely have small slopes, so wrong labels are learned late.

    Parameters
    ----------
    q : float, default=0.7
        In (0, 1]. Towards 0 it is the cross-entropy; large values resist wrong labels, but learn slowly, most
        of all where there are many classes.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.

    References
    ----------
    Z. Zhang and M. Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy
    labels", NeurIPS 2018, arXiv:1805.07836, section 3.2. Its truncated form, which leaves out rows that the
    network has long disbelieved, is a course and not a loss: :class:`noisefilter.GCEClassifier`.

    Examples
    --------
    >>> import torch
    >>> from noisefilter import GCELoss
    >>> GCELoss(q=1.0)(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(0.7500)
    """

    def __init__(self, q: float = 0.7, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.q = _checked("q", q, "in (0, 1]", lambda value: 0 < value <= 1)

    def row_losses(self, log_probs: Tensor, codes: Tensor) -> Tensor:
        """Return the loss of each row, (b,)."""
        return losses.generalized_cross_entropy(log_probs, codes, self.q)


class SymmetricCELoss(RobustLoss):
    r"""Symmetric cross-entropy: :math:`-\alpha \log p_y - \beta A (1 - p_y)`, both directions at once.

    The second term hardly minds a wrong label, the first one makes the network learn at all.

    Parameters
    ----------
    alpha : float, default=0.1
        Weight of the cross-entropy, at least 0. Published: 0.1 for CIFAR-10, 6 for CIFAR-100.
    beta : float, default=1.0
        Weight of the reverse cross-entropy, at least 0. Published: 1 for CIFAR-10, 0.1 for CIFAR-100.
    log_zero : float, default=-4.0
        A, what the logarithm of zero is taken for; less than 0.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.

    References
    ----------
    Y. Wang, X. Ma, Z. Chen, Y. Luo, J. Yi and J. Bailey, "Symmetric cross entropy for robust learning with
    noisy labels", ICCV 2019, arXiv:1908.06112, section 3. Many public codes have the logarithm of 1e-4, about
    -9.2, for A.
    """

    def __init__(
        self, alpha: float = 0.1, beta: float = 1.0, *, log_zero: float = -4.0, reduction: str = "mean"
    ):
        super().__init__(reduction=reduction)
        self.alpha = _checked("alpha", alpha, *_LEAST)
        self.beta = _checked("beta", beta, *_LEAST)
        self.log_zero = _checked(
            "log_zero", log_zero, "less than 0 and finite", lambda value: -float("inf") < value < 0
        )

    def row_losses(self, log_probs: Tensor, codes: Tensor) -> Tensor:
        """Return the loss of each row, (b,)."""
        return losses.symmetric_cross_entropy(log_probs, codes, self.alpha, self.beta, self.log_zero)


class SoftBootstrappingLoss(RobustLoss):
    r"""Soft bootstrapping: the cross-entropy to :math:`\beta y + (1 - \beta) p`, label and prediction mixed.

    The slope goes through p as a target, too: what is added to the cross-entropy is the entropy of the
    prediction.

    Parameters
    ----------
    beta : float, default=0.95
        Weight of the given label, in [0, 1].
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.

    References
    ----------
    S. Reed, H. Lee, D. Anguelov, C. Szegedy, D. Erhan and A. Rabinovich, "Training deep neural networks on
    noisy labels with bootstrapping", ICLR 2015 workshop, arXiv:1412.6596, section 3.2.
    """

    def __init__(self, beta: float = 0.95, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.beta = _checked("beta", beta, *_SHARE)

    def row_losses(self, log_probs: Tensor, codes: Tensor) -> Tensor:
        """Return the loss of each row, (b,)."""
        given = losses.bootstrapped(log_probs, codes, codes, 0.0)
        return self.beta * given - (1.0 - self.beta) * losses.negative_entropy(log_probs.exp())


class HardBootstrappingLoss(RobustLoss):
    r"""Hard bootstrapping: :math:`-\beta \log p_y - (1 - \beta) \log \max_k p_k`.

    Parameters
    ----------
    beta : float, default=0.8
        Weight of the given label, in [0, 1].
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.

    References
    ----------
    S. Reed, H. Lee, D. Anguelov, C. Szegedy, D. Erhan and A. Rabinovich, "Training deep neural networks on
    noisy labels with bootstrapping", ICLR 2015 workshop, arXiv:1412.6596, section 3.2.
    """

    def __init__(self, beta: float = 0.8, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.beta = _checked("beta", beta, *_SHARE)

    def row_losses(self, log_probs: Tensor, codes: Tensor) -> Tensor:
        """Return the loss of each row, (b,)."""
        return losses.bootstrapped(log_probs, codes, log_probs.argmax(dim=1), 1.0 - self.beta)


class ConfidencePenaltyLoss(RobustLoss):
    r"""Cross-entropy plus the negative entropy of the predictions (CE+NE): nobody is to be too sure.

    :math:`-\log p_y + \lambda \sum_k p_k \log p_k`. It is the warm-up of DivideMix for asymmetric noise and a
    baseline of INN; ``Net(objective="cross_entropy_ne")`` is the same for any criterion.

    Parameters
    ----------
    strength : float, default=1.0
        :math:`\lambda`, at least 0.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.

    References
    ----------
    G. Pereyra, G. Tucker, J. Chorowski, L. Kaiser and G. Hinton, "Regularizing neural networks by penalizing
    confident output distributions", arXiv:1701.06548; J. Li, R. Socher and S. Hoi, ICLR 2020,
    arXiv:2002.07394, Eq. (2).
    """

    def __init__(self, strength: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.strength = _checked("strength", strength, *_LEAST)

    def row_losses(self, log_probs: Tensor, codes: Tensor) -> Tensor:
        """Return the loss of each row, (b,)."""
        given = losses.bootstrapped(log_probs, codes, codes, 0.0)
        return given + self.strength * losses.negative_entropy(log_probs.exp())


# --- losses that keep something of each row -------------------------------------------------------


class IndexedLoss(RobustLoss):
    """A loss that has to know which rows it sees; a subclass writes :meth:`indexed_losses`.

    Row numbers come with the class numbers. In a loop of your own: ``loss(logits, codes, index)``.
    :class:`noisefilter.Net` hands them over by itself. With plain skorch fit on an :class:`IndexedDataset`,
    whose targets are pairs of class and row number, as ``loss(logits, (codes, index))``.

    Parameters
    ----------
    n_rows : int
        How many rows there are: numbers are below it.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.
    """

    def __init__(self, n_rows: int, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.n_rows = int(_checked("n_rows", n_rows, *_WHOLE))

    @abstractmethod
    def indexed_losses(self, log_probs: Tensor, codes: Tensor, index: Tensor) -> Tensor:
        """Return the loss of each row, (b,), from log-probabilities (b, K), class and row numbers (b,)."""

    def row_losses(self, log_probs: Tensor, codes: Tensor) -> Tensor:
        """Refuse: which rows these are must be said."""
        raise InputError(
            f"{type(self).__name__} must know which rows it sees, got class numbers alone. Hand over row "
            "numbers as a third argument; with plain skorch, fit on noisefilter.IndexedDataset(X, y)."
        )

    def forward(self, input: Tensor, target: Any, index: Tensor | None = None) -> Tensor:
        """Return the loss of logits (b, K) against class numbers (b,) of the rows ``index``, (b,).

        ``target`` may also be a pair of both.
        """
        if index is None and isinstance(target, tuple | list):
            target, index = target
        log_probs, codes = _read(input, target)
        if index is None:
            return self._reduced(self.row_losses(log_probs, codes))
        return self._reduced(self.indexed_losses(log_probs, codes, index))

    def forget(self) -> None:
        """Let go of what is kept of the rows; the loss cannot be used any more."""
        for name, kept in self.named_buffers():
            setattr(self, name, kept[:0])


class ELRLoss(IndexedLoss):
    r"""Early-learning regularization: :math:`-\log p_y + \lambda \log(1 - \langle t_i, p \rangle)`.

    The target :math:`t_i` of a row is a moving average of what the network said of it,
    :math:`t_i \leftarrow \beta t_i + (1 - \beta) p_i`. Before wrong labels are learned it names the right
    class, and the regularizer holds the network to it. The loss has no lower end at 0.

    Targets are brought up to date by each call in training mode, before the loss is computed, and stay as
    they are in evaluation mode. They are a buffer ``targets`` (n, K) of the module, in float32, and so part
    of its ``state_dict``. Not for mixtures of rows (mixup), whose predictions are of no row.

    Parameters
    ----------
    n_rows : int
        Number of training rows.
    n_classes : int
        K.
    beta : float, default=0.7
        How much of the past is kept, in [0, 1). Published: 0.7 for CIFAR-10 with symmetric noise, else 0.9.
    strength : float, default=7.0
        :math:`\lambda`, at least 0. Published: 3 for CIFAR-10 with symmetric noise, 1 with asymmetric, 7 for
        CIFAR-100.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows.

    References
    ----------
    S. Liu, J. Niles-Weed, N. Razavian and C. Fernandez-Granda, "Early-learning regularization prevents
    memorization of noisy labels", NeurIPS 2020, arXiv:2007.00151, section 4. As in the authors' code the
    probabilities that targets are made of are at least 1e-4 and sum to one; those in the loss are as they
    are, since targets alone keep the logarithm from its end.

    Examples
    --------
    >>> import torch
    >>> from noisefilter import ELRLoss
    >>> loss = ELRLoss(n_rows=50, n_classes=4, beta=0.0, strength=2.0)
    >>> loss(torch.zeros(1, 4), torch.tensor([3]), torch.tensor([7]))
    tensor(0.8109)
    >>> loss.targets[7]
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    targets: Tensor

    def __init__(
        self,
        n_rows: int,
        n_classes: int,
        beta: float = 0.7,
        strength: float = 7.0,
        *,
        reduction: str = "mean",
    ):
        super().__init__(n_rows, reduction=reduction)
        self.beta = _checked("beta", beta, "in [0, 1)", lambda value: 0 <= value < 1)
        self.strength = _checked("strength", strength, *_LEAST)
        self.register_buffer("targets", torch.zeros(n_rows, int(_checked("n_classes", n_classes, *_WHOLE))))

    def indexed_losses(self, log_probs: Tensor, codes: Tensor, index: Tensor) -> Tensor:
        """Return the loss of each row, (b,); in training mode its targets move first."""
        if self.training:
            self._move(log_probs.detach().exp(), index)
        given = losses.bootstrapped(log_probs, codes, codes, 0.0)
        return given + self.strength * losses.early_learning(log_probs, self.targets[index])

    @torch.no_grad()
    def _move(self, probs: Tensor, index: Tensor) -> None:
        probs = probs.clamp(_LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
        newest = (probs / probs.sum(dim=1, keepdim=True)).to(self.targets.dtype)
        self.targets[index] = torch.lerp(newest, self.targets[index], self.beta)


class DynamicBootstrappingLoss(IndexedLoss):
    r"""Dynamic hard bootstrapping: :math:`-(1 - w_i) \log p_y - w_i \log p_{z_i}`, and a penalty.

    Each row has its own doubt :math:`w_i` about the label, and a class :math:`z_i` that it may be instead;
    both are set by :meth:`believe`, until then w is 0. The penalty
    :math:`\eta \sum_c \frac1K \log \frac{1/K}{\bar p_c}` keeps the mean prediction of a batch even, so that
    the network cannot call everything one class. For mixup the loss of a mixture is the mixture of two
    losses.

    Parameters
    ----------
    n_rows : int
        Number of training rows.
    penalty : float, default=0.0
        :math:`\eta`, at least 0.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows; the penalty is added to each.

    References
    ----------
    E. Arazo, D. Ortego, P. Albert, N. O'Connor and K. McGuinness, "Unsupervised label noise modeling and loss
    correction", ICML 2019, arXiv:1904.11238, sections 3.2 and 3.3.
    """

    doubt: Tensor
    others: Tensor

    def __init__(self, n_rows: int, penalty: float = 0.0, *, reduction: str = "mean"):
        super().__init__(n_rows, reduction=reduction)
        self.penalty = _checked("penalty", penalty, *_LEAST)
        self.register_buffer("doubt", torch.zeros(n_rows))
        self.register_buffer("others", torch.zeros(n_rows, dtype=torch.int64))

    @torch.no_grad()
    def believe(self, doubt: Any, others: Any) -> None:
        """Set the doubt about each label, (n,) in [0, 1], and which classes rows may be instead, (n,)."""
        self.doubt.copy_(torch.as_tensor(doubt))
        self.others.copy_(torch.as_tensor(others))

    def indexed_losses(self, log_probs: Tensor, codes: Tensor, index: Tensor) -> Tensor:
        """Return the loss of each row, (b,)."""
        rows = losses.bootstrapped(log_probs, codes, self.others[index], self.doubt[index])
        return rows + self.penalty * losses.uniform_penalty(log_probs) if self.penalty else rows


class LabelDistributionLoss(IndexedLoss):
    r"""PENCIL: labels are distributions :math:`d_i = \mathrm{softmax}(\tilde y_i)`, which are learned, too.

    .. math:: \frac{1}{10} \left[ KL(p_i \| d_i) - a \log d_{i, y_i} + b H(p_i) \right]

    draws network and distributions to each other, distributions to the given labels, and predictions to one
    class. :meth:`start` sets :math:`\tilde y_i` to ten times the label, one-hot. In training mode each call
    moves those of its rows down their slope, ten times whose negative is
    :math:`p_i - d_i + a (\mathrm{onehot}(y_i) - d_i)`.

    Distributions are kept as a buffer ``label_logits`` (n, K) of the module, in float32, and so are part of
    its ``state_dict``. Not for mixtures of rows (mixup), whose predictions are of no row.

    Parameters
    ----------
    n_rows : int
        Number of training rows.
    n_classes : int
        K.
    compatibility : float, default=0.1
        a, at least 0: how much the given label weighs against what the network says. The two rest where
        :math:`d = (p + a\,\mathrm{onehot}(y)) / (1 + a)`, so no label is overruled from 1 on.
    entropy : float, default=0.4
        b, at least 0.
    label_lr : float, default=1.0
        How far :math:`\tilde y_i` moves at a visit where the network is sure of what the distribution thinks
        impossible; at least 0.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses of the rows. Distributions move by the slope of their own row's.

    Attributes
    ----------
    phase : {"warm-up", "correction", "fine-tuning"}
        What is learned now: the given labels by cross-entropy; network and distributions by the loss above,
        from the beginning; or the network by the divergence alone, distributions being as they are.

    References
    ----------
    K. Yi and J. Wu, "Probabilistic end-to-end noise correction for learning with noisy labels", CVPR 2019,
    arXiv:1903.07788, section 3. There :math:`1/c` of c classes stands for the tenth, and the weight of the
    second term is :math:`\alpha = a / c`; see :class:`noisefilter.PENCILClassifier`.
    """

    label_logits: Tensor

    def __init__(
        self,
        n_rows: int,
        n_classes: int,
        compatibility: float = 0.1,
        entropy: float = 0.4,
        label_lr: float = 1.0,
        *,
        reduction: str = "mean",
    ):
        super().__init__(n_rows, reduction=reduction)
        self.compatibility = _checked("compatibility", compatibility, *_LEAST)
        self.entropy = _checked("entropy", entropy, *_LEAST)
        self.label_lr = _checked("label_lr", label_lr, *_LEAST)
        self.phase = "correction"
        n_classes = int(_checked("n_classes", n_classes, *_WHOLE))
        self.register_buffer("label_logits", torch.zeros(n_rows, n_classes))

    @torch.no_grad()
    def start(self, codes: Any) -> None:
        """Let distributions be the given labels, class numbers (n,), all but surely."""
        codes = torch.as_tensor(codes, device=self.label_logits.device)
        self.label_logits.zero_().scatter_(1, codes[:, None], _SURE)

    def indexed_losses(self, log_probs: Tensor, codes: Tensor, index: Tensor) -> Tensor:
        """Return the loss of each row, (b,); in training mode its distributions move behind it."""
        if self.phase == "warm-up":
            return losses.bootstrapped(log_probs, codes, codes, 0.0)
        log_targets = torch.log_softmax(self.label_logits[index], dim=1)
        rows = losses.kl_divergence(log_probs, log_targets)
        if self.phase == "correction":
            given = losses.bootstrapped(log_targets, codes, codes, 0.0)
            rows = rows + self.compatibility * given - self.entropy * losses.negative_entropy(log_probs.exp())
            if self.training:
                self._move(log_probs.detach().exp(), log_targets.exp(), codes, index)
        return rows / _SURE

    @torch.no_grad()
    def _move(self, probs: Tensor, targets: Tensor, codes: Tensor, index: Tensor) -> None:
        step = probs - (1.0 + self.compatibility) * targets
        step[torch.arange(len(codes), device=codes.device), codes] += self.compatibility
        self.label_logits[index] += (self.label_lr * step).to(self.label_logits.dtype)


class IndexedDataset(torch.utils.data.Dataset[tuple[Any, tuple[Any, int]]]):
    """Rows whose targets are pairs of label and row number, for an :class:`IndexedLoss` with plain skorch.

    ``net.fit(IndexedDataset(X, y), None)``, with ``train_split=None``: skorch cannot hold out rows of each
    class where labels come with numbers. Prediction takes plain rows.

    Parameters
    ----------
    X : sequence of rows
        As the network takes them.
    y : (n,) int array
        Class numbers.

    Examples
    --------
    >>> from noisefilter import IndexedDataset
    >>> IndexedDataset([[0.0], [0.5]], [1, 0])[1]
    ([0.5], (0, 1))
    """

    def __init__(self, X: Any, y: Any):
        if len(X) != len(y):
            raise InputError(f"X and y must have the same length, got {len(X)} rows and {len(y)} labels.")
        self.X = X
        self.y = y

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Any, tuple[Any, int]]:
        return self.X[i], (self.y[i], int(i))


# --- checks ---------------------------------------------------------------------------------------

_LEAST = ("at least 0 and finite", lambda value: 0 <= value < float("inf"))
_SHARE = ("in [0, 1]", lambda value: 0 <= value <= 1)
_WHOLE = ("a whole number of at least 1", lambda value: value >= 1 and value == int(value))


def _checked(name: str, value: float, rule: str, holds: Callable[[float], bool]) -> float:
    if not holds(value):
        raise ParameterError(f"{name} must be {rule}, got {value!r}.")
    return value


def _read(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (b, K), in float32 at least, and class numbers (b,)."""
    if logits.dim() != 2 or codes.shape != logits.shape[:1] or codes.is_floating_point():
        raise InputError(
            "logits and class numbers must be of shapes (b, K) and (b,), got "
            f"{tuple(logits.shape)} and {tuple(codes.shape)} of {codes.dtype}."
        )
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide, dim=1), codes.long()
