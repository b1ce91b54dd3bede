"""Losses as pure functions of log-probabilities: tensors in, tensors out, safe at any logits.

``log_probs`` are of shape (b, K) and come from a log-softmax: products of probabilities and logarithms of
probabilities would be NaN as soon as one of them is rounded to zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "agreement",
    "bootstrapped",
    "brier",
    "consistency",
    "early_learning",
    "generalized_cross_entropy",
    "josrc_loss",
    "js_likelihood",
    "kl_divergence",
    "mean_entropy",
    "negative_entropy",
    "nt_xent",
    "scan_loss",
    "smoothed",
    "soft_cross_entropy",
    "softened",
    "symmetric_cross_entropy",
    "symmetric_kl",
    "two_view_cross_entropy",
    "uniform_penalty",
]

_SMALLEST = 1e-12
_LEAST_APART = 1e-4  # of 1 - <t, p>


def smoothed(codes: Tensor, n_classes: int, smoothing: float) -> Tensor:
    """Return label distributions (b, K): 1 - smoothing for the label, the rest spread evenly.

    Eq. (5) of Jo-SRC.
    """
    targets = torch.full((len(codes), n_classes), smoothing / (n_classes - 1), device=codes.device)
    return targets.scatter_(1, codes[:, None], 1.0 - smoothing)


def js_likelihood(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Return one minus the Jensen-Shannon divergence in bits, (b,), in [0, 1]: Eq. (2), (3) of Jo-SRC."""
    probs = log_probs.exp().clamp_min(_SMALLEST)
    middle = ((probs + targets) / 2).log()
    from_probs = probs * (probs.log() - middle)
    from_targets = torch.xlogy(targets, targets) - targets * middle
    return (1.0 - (from_probs + from_targets).sum(1) / (2 * math.log(2))).clamp(0.0, 1.0)


def softened(probs: Tensor, temperature: float) -> Tensor:
    """Return softmax(probs / temperature), (b, K): Eq. (7) of Jo-SRC.

    Of probabilities, not of logits; at the paper's temperature of 10 all but uniform.
    """
    return torch.softmax(probs / temperature, dim=1)


def two_view_cross_entropy(first: Tensor, second: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of both views (log-probabilities) to one target, summed, (b,).

    The terms of Eq. (11) of Jo-SRC.
    """
    return -(targets * (first + second)).sum(1)


def consistency(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(p || p') + KL(p' || p) of two views in bits, (b,): the terms of Eq. (9) of Jo-SRC."""
    return symmetric_kl(first, second) / math.log(2)


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(p || p') + KL(p' || p) in nats, (b,), of log-probabilities (b, K).

    The contrastive loss of JoCoR, which calls it L_con (Wei et al., CVPR 2020).
    """
    return ((first.exp() - second.exp()) * (first - second)).sum(1)


def kl_divergence(log_probs: Tensor, log_targets: Tensor) -> Tensor:
    """Return KL(p || t) in nats, (b,), of log-probabilities p and t (b, K).

    With t as what p is to be, this is not the cross-entropy: p keeps to one of the classes that t allows.
    """
    return (log_probs.exp() * (log_probs - log_targets)).sum(1)


def josrc_loss(
    first: Tensor, second: Tensor, targets: Tensor, strange: Tensor, weight: float, cap: float
) -> Tensor:
    """Return the mean joint loss of a batch, Eq. (10) of Jo-SRC; the gradient goes through both views.

    Parameters
    ----------
    first, second : (b, K) Tensor
        Log-probabilities of two views.
    targets : (b, K) Tensor
        What both are to say.
    strange : (b,) bool Tensor
        Rows taken for out-of-distribution, whose views are driven apart (rho = -1 in Eq. (9)).
    weight : float
        Alpha, the share of the consistency term, in [0, 1].
    cap : float
        Divergence in nats beyond which views are driven no further apart; without it the loss has no lower
        end.
    """
    apart = consistency(first, second)
    apart = torch.where(strange, -apart.clamp_max(cap / math.log(2)), apart)
    rows = (1.0 - weight) * two_view_cross_entropy(first, second, targets) + weight * apart
    return rows.mean()


def soft_cross_entropy(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy to targets (b, K) that are distributions, (b,): the terms of L_X.

    MixMatch (Berthelot et al., NeurIPS 2019), section 3.4; DivideMix (Li et al., ICLR 2020), Eq. (9).
    """
    return -(targets * log_probs).sum(1)


def brier(probs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared differences of two (b, K) distributions, mean over classes, (b,): the terms of L_U.

    The mean over classes as in MixMatch, section 3.4, and in DivideMix's official code; Eq. (10) of DivideMix
    prints the sum, K times as much, but its weights of L_U belong to the mean.
    """
    return (probs - targets).square().mean(1)


def uniform_penalty(log_probs: Tensor) -> Tensor:
    r"""Return :math:`\sum_c \frac1K \log \frac{1/K}{\bar p_c}`, how far the mean prediction is from even.

    L_reg, Eq. (11) of DivideMix, over all rows of a batch. The mean :math:`\bar p` is taken of logarithms, so
    that a class which no row predicts in float32 costs much, not infinitely much, and is still learned.
    """
    n, n_classes = log_probs.shape
    return -(torch.logsumexp(log_probs, dim=0) - math.log(n)).mean() - math.log(n_classes)


def generalized_cross_entropy(log_probs: Tensor, codes: Tensor, q: float) -> Tensor:
    r"""Return :math:`(1 - p_y^q) / q`, (b,): the L_q loss of Zhang & Sabuncu, NeurIPS 2018, section 3.2.

    For q towards 0 it is the cross-entropy, for q = 1 it is :math:`1 - p_y`, half of the mean absolute error.

    Parameters
    ----------
    log_probs : (b, K) Tensor
        Log-probabilities.
    codes : (b,) int64 Tensor
        Given labels.
    q : float
        In (0, 1]; large values resist wrong labels, small ones learn faster.
    """
    return -torch.expm1(q * _of_label(log_probs, codes)) / q


def symmetric_cross_entropy(
    log_probs: Tensor, codes: Tensor, alpha: float, beta: float, log_zero: float
) -> Tensor:
    r"""Return :math:`-\alpha \log p_y - \beta A (1 - p_y)`, (b,): SL of Wang et al., ICCV 2019, section 3.

    The second term is the cross-entropy with label and prediction in each other's place,
    :math:`-\sum_k p_k \log y_k`, where A stands for the logarithm of zero.

    Parameters
    ----------
    log_probs : (b, K) Tensor
        Log-probabilities.
    codes : (b,) int64 Tensor
        Given labels.
    alpha, beta : float
        Weights of both, at least 0.
    log_zero : float
        A, less than 0.
    """
    given = _of_label(log_probs, codes)
    return -alpha * given + beta * log_zero * torch.expm1(given)


def bootstrapped(log_probs: Tensor, codes: Tensor, others: Tensor, doubt: float | Tensor) -> Tensor:
    r"""Return :math:`-(1 - w) \log p_y - w \log p_z`, (b,): a label, and what else a row may be called.

    The hard bootstrapping of Reed et al. (ICLR 2015 workshop, section 3.2), where w is the same for all rows;
    the dynamic one of Arazo et al. (ICML 2019, section 3.2), where each has its own.

    Parameters
    ----------
    log_probs : (b, K) Tensor
        Log-probabilities.
    codes, others : (b,) int64 Tensor
        Given labels y, and classes z.
    doubt : float or (b,) Tensor
        w, in [0, 1].
    """
    return -(1.0 - doubt) * _of_label(log_probs, codes) - doubt * _of_label(log_probs, others)


def negative_entropy(probs: Tensor) -> Tensor:
    """Return the sum of p log p, (b,), for probabilities (b, K); its slope is finite at p = 0, too."""
    return (probs * probs.clamp_min(_SMALLEST).log()).sum(1)


def early_learning(log_probs: Tensor, targets: Tensor) -> Tensor:
    r"""Return :math:`\log(1 - \langle t, p \rangle)`, (b,), at most 0: the regularizer of ELR.

    S. Liu et al., NeurIPS 2020, section 4. Its slope draws p towards t, the harder the nearer p is.

    Parameters
    ----------
    log_probs : (b, K) Tensor
        Log-probabilities.
    targets : (b, K) Tensor
        At least 0, with sums of at most one.
    """
    return (1.0 - (targets * log_probs.exp()).sum(1)).clamp_min(_LEAST_APART).log()


def _of_label(log_probs: Tensor, codes: Tensor) -> Tensor:
    return log_probs.gather(1, codes[:, None])[:, 0]


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""Return the normalized, temperature-scaled cross-entropy of two views of b rows, Eq. (1) of SimCLR.

    With all 2b views z scaled to length one, the mean over views of

    .. math:: -\log \frac{\exp(z_i \cdot z_j / T)}{\sum_{k \neq i} \exp(z_i \cdot z_k / T)},

    where j is the other view of the row of i. T. Chen et al., ICML 2020, arXiv:2002.05709.

    Parameters
    ----------
    first, second : (b, d) Tensor
        Embeddings of any length; a row of zeros counts as at right angles to all others.
    temperature : float
        T, greater than 0.
    """
    b = len(first)
    z = torch.nn.functional.normalize(torch.cat([first, second]).float(), dim=1)
    alike = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # (2b, 2b)
    other = torch.arange(2 * b, device=z.device).roll(b)
    return torch.nn.functional.cross_entropy(alike, other)


def scan_loss(anchors: Tensor, others: Tensor, entropy_weight: float) -> Tensor:
    r"""Return :math:`-\frac1b \sum \log \langle p_a, p_n \rangle - \lambda_e H(\bar p_a)`.

    Eq. (2) of SCAN (W. Van Gansbeke et al., ECCV 2020, arXiv:2005.12320), to which Eq. (12) of VRLVMix
    refers. Natural logarithms.

    Parameters
    ----------
    anchors, others : (b, K) Tensor
        Log-probabilities of rows and of a neighbor of each.
    entropy_weight : float
        :math:`\lambda_e`.
    """
    return -agreement(anchors, others) - entropy_weight * mean_entropy(anchors)


def agreement(anchors: Tensor, others: Tensor) -> Tensor:
    """Return the mean of log<p_a, p_n> for log-probabilities (b, K), at most 0."""
    return torch.logsumexp(anchors + others, dim=1).mean()


def mean_entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy of the mean prediction of log-probabilities (b, K), in [0, log K]."""
    mean = torch.logsumexp(log_probs, dim=0) - math.log(len(log_probs))
    return -(mean.exp() * mean).sum()
