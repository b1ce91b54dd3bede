"""Straight paths between rows, and the mean prediction along them (INN, Eq. (1) of arXiv:2106.15185)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisefilter.batches import Rows
from noisefilter.errors import ParameterError
from noisefilter.progress import Progress


class Quadrature(NamedTuple):
    """A rule for the integral over [0, 1], symmetric about 1/2.

    Attributes
    ----------
    nodes : tuple of float
        Interior nodes in (0, 1).
    weights : tuple of float
        Their weights.
    end_weight : float
        Weight of each of the two end points, which cost nothing: they are rows themselves.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    end_weight: float


def quadrature(rule: str, n_interior: int) -> Quadrature:
    """Return the quadrature rule with ``n_interior`` evaluations inside each path.

    Parameters
    ----------
    rule : {"trapezoid", "simpson", "gauss"}
        The trapezoid rule with ``n_interior + 1`` intervals (the paper's has ten, so nine interior
        evaluations), Simpson's (an odd number of interior evaluations), or Gauss-Legendre, which
        leaves the end points out.
    n_interior : int
        At least 1.
    """
    if not isinstance(n_interior, int | np.integer) or n_interior < 1:
        raise ParameterError(f"n_interior must be a whole number of at least 1, got {n_interior!r}.")
    grid = tuple(h / (n_interior + 1) for h in range(1, n_interior + 1))
    if rule == "trapezoid":
        return Quadrature(grid, (1 / (n_interior + 1),) * n_interior, 0.5 / (n_interior + 1))
    if rule == "simpson":
        if n_interior % 2 == 0:
            raise ParameterError(f"n_interior must be odd for Simpson's rule, got {n_interior!r}.")
        third = 1 / (3 * (n_interior + 1))
        return Quadrature(grid, tuple(third * (4 if h % 2 == 0 else 2) for h in range(n_interior)), third)
    if rule == "gauss":
        nodes, weights = np.polynomial.legendre.leggauss(n_interior)
        return Quadrature(tuple((nodes + 1) / 2), tuple(weights / 2), 0.0)
    raise ParameterError(f"quadrature must be 'trapezoid', 'simpson' or 'gauss', got {rule!r}.")


def unique_paths(neighbors: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the paths {i, j} that the neighbor lists ask for, each once, and who asked for them.

    The rules are symmetric and give the whole distribution, so one evaluation serves both ends of a
    path between mutual neighbors: with ten neighbors that saves about a quarter of the work.

    Parameters
    ----------
    neighbors : (n, L) int array
        Row numbers, distinct within each row.

    Returns
    -------
    paths : (p, 2) int array
        Row numbers i < j, sorted.
    asked : (p, 2) bool array
        Whether j is a neighbor of i, and whether i is a neighbor of j.
    """
    n, n_neighbors = neighbors.shape
    own = np.repeat(np.arange(n), n_neighbors)
    other = neighbors.ravel()
    keys, position = np.unique(np.minimum(own, other) * n + np.maximum(own, other), return_inverse=True)
    asked = np.zeros((len(keys), 2), dtype=bool)
    asked[position, (own > other).astype(np.intp)] = True
    return np.stack([keys // n, keys % n], axis=1), asked


def mean_path_probs(
    predict: Callable[[Tensor], Tensor],
    rows: Rows,
    end_probs: NDArray[Any],
    neighbors: NDArray[np.int64],
    rule: Quadrature,
    *,
    batch_size: int = 1000,
    verbose: bool = False,
) -> NDArray[np.float64]:
    r"""Return :math:`\bar P_i = \frac1L \sum_l \int_0^1 f(a x_i + (1-a) x_l)\,da` for every row, (n, K).

    Column ``y_i`` of row ``i`` is INN's score. All columns come from the same evaluations, which is
    what makes the margin form free.

    Parameters
    ----------
    predict : callable
        Takes (b, ...) rows and returns probabilities (b, K).
    rows : Rows
        The n training rows.
    end_probs : (n, K) array
        ``predict`` of every row: the end points of all paths. Not read by a rule that leaves them out.
    neighbors : (n, L) int array
        The end points of the paths of each row.
    rule : Quadrature
        From :func:`quadrature`.
    batch_size : int, default=1000
        Paths at a time.
    verbose : bool, default=False
        Show a progress bar when this takes more than a few seconds.
    """
    paths, asked = unique_paths(neighbors)
    total = torch.zeros(end_probs.shape, dtype=torch.float64)
    starts = range(0, len(paths), batch_size)
    with Progress("INN paths", len(starts), verbose, trial=5) as progress:
        for start in starts:
            part = paths[start : start + batch_size]
            ends = torch.from_numpy(part).to(rows.device)
            integral = _integrate(predict, rows.take(ends[:, 0]), rows.take(ends[:, 1]), rule)
            if rule.end_weight:
                ends_sum = end_probs[part[:, 0]].astype(np.float64) + end_probs[part[:, 1]]
                integral += rule.end_weight * ends_sum
            for end in (0, 1):
                wanted = asked[start : start + batch_size, end]
                # np.add.at does the same, several times slower.
                total.index_add_(0, torch.from_numpy(part[wanted, end]), torch.from_numpy(integral[wanted]))
            progress.step()
    return total.div_(neighbors.shape[1]).numpy()


def mean_path_probs_between(
    predict: Callable[[Tensor], Tensor],
    rows: Rows,
    probs: NDArray[Any],
    others: Rows,
    other_probs: NDArray[Any],
    neighbors: NDArray[np.int64],
    rule: Quadrature,
    *,
    batch_size: int = 1000,
) -> NDArray[np.float64]:
    """Return the mean path probabilities (m, K) of ``rows`` on the way to neighbors among ``others``."""
    total = np.zeros(probs.shape, dtype=np.float64)
    for start in range(0, len(rows), batch_size):
        own = np.arange(start, min(start + batch_size, len(rows)))
        first = rows.take(torch.from_numpy(own).to(rows.device))
        for column in neighbors[own].T:
            second = others.take(torch.from_numpy(column).to(others.device))
            total[own] += _integrate(predict, first, second, rule)
            total[own] += rule.end_weight * (probs[own] + other_probs[column])
    return total / neighbors.shape[1]


def _integrate(
    predict: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, rule: Quadrature
) -> NDArray[np.float64]:
    """Integrate over the interior nodes of the paths between two batches of rows -> (p, K)."""
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    first, second = first.to(dtype), second.to(dtype)
    integral = torch.zeros((), dtype=torch.float64, device=first.device)
    for node, weight in zip(rule.nodes, rule.weights, strict=True):
        integral = integral + weight * predict(torch.lerp(second, first, node)).double()
    result: NDArray[np.float64] = integral.cpu().numpy()
    return result
