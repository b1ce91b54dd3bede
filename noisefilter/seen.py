"""What networks say of the training rows, epoch by epoch, and the verdict that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisefilter import estimates, splits
from noisefilter.verdict import Judged

__all__ = ["SeenRows"]

_REMEMBERED = 0.9  # of earlier epochs of the warm-up, in each
_OVERSURE = 1.25  # how much too sure networks may be of rows whose labels they do not learn


class SeenRows:
    """Averages the predictions of all rows, and judges the rows by them: half the warm-up, half all since.

    In the warm-up each epoch counts a tenth less than the next; what comes after it is a plain mean. Later
    networks know more, but a wrong label that was believed once they have learned by heart.

    Parameters
    ----------
    codes : (n,) array
        Given labels, class numbers.
    n_classes : int
        K.
    probe_rows, probe_codes : (m,) arrays
        Rows that are trained under a wrong label in the warm-up, and these labels.
    """

    def __init__(
        self,
        codes: NDArray[np.int64],
        n_classes: int,
        probe_rows: NDArray[np.int64],
        probe_codes: NDArray[np.int64],
    ):
        self.codes = codes
        self.probe_rows = probe_rows
        self.probe_codes = probe_codes
        self.rate: float | None = None  # the share of wrong labels, once it is known
        self.prob_sum = np.zeros((len(codes), n_classes), dtype=np.float32)
        self.n_seen = 0.0  # epochs in it, older ones of the warm-up counting less
        self.first_probs: NDArray[np.float32] | None = None  # what was predicted before the method began

    def see(self, probs: NDArray[Any], *, warming: bool) -> None:
        """Take in what was predicted (n, K) after an epoch."""
        remembered = _REMEMBERED if warming else 1.0
        self.prob_sum *= remembered
        self.prob_sum += probs
        self.n_seen = remembered * self.n_seen + 1.0

    def see_anew(self) -> None:
        """Keep what was predicted in the warm-up, and begin anew."""
        if self.n_seen:
            self.first_probs = self.prob_sum / np.float32(self.n_seen)
            self.prob_sum[:], self.n_seen = 0.0, 0.0

    def seen_probs(self) -> NDArray[np.float64]:
        """Return the averaged predictions (n, K) of the rows: half of the warm-up, half since."""
        if self.first_probs is None:
            return self.latest_probs()
        first = self.first_probs.astype(np.float64)
        return (first + self.latest_probs()) / 2.0 if self.n_seen else first

    def latest_probs(self) -> NDArray[np.float64]:
        """Return the averaged predictions (n, K) since the warm-up, or in it where it lasts."""
        return np.asarray(self.prob_sum / max(1, self.n_seen), dtype=np.float64)

    def _estimated_rate(self) -> float:
        """Return how many labels are wrong, by what is contradicted beyond doubt in the warm-up."""
        probs, planted = self.seen_probs(), self.probe_rows
        if not len(planted):
            return estimates.estimate_noise_rate(probs, self.codes)
        others = np.delete(np.arange(len(probs)), planted)
        return estimates.estimate_noise_rate(
            probs[others], self.codes[others], probs[planted], self.probe_codes
        )

    def judged(self) -> Judged:
        """Judge the rows by the averaged predictions.

        As many are wrong as were found so in the warm-up, or more if by now more are contradicted than
        doubted. After a warm-up that was short the estimate is often low; but what networks contradict in the
        end is no estimate by itself, for labels that are not believed are not learned, right or wrong.
        """
        probs = self.seen_probs()
        rate = self._estimated_rate() if self.rate is None else self.rate
        rate = max(rate, _beyond_doubt(self.latest_probs(), self.codes))
        transition = estimates.estimate_transition(probs, self.codes, rate)
        scores = estimates.corrected_log_odds(probs, self.codes, transition)
        split = splits.at_rate(scores, rate)
        return Judged(
            scores=scores, clean=split.clean, probs=probs, noise_rate=rate, clean_proba=split.clean_proba,
            transition=transition, threshold=split.threshold,
        )  # fmt: skip

    # -- checkpoints ------------------------------------------------------------------------------

    def seen_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of what was taken in, as tensors by name and plain values."""
        tensors = {"prob_sum": torch.tensor(self.prob_sum)}
        if self.first_probs is not None:
            tensors["first_probs"] = torch.tensor(self.first_probs)
        return tensors, {"n_seen": self.n_seen}

    def load_seen(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`seen_state` was asked for."""
        self.prob_sum = tensors["prob_sum"].cpu().numpy().copy()  # it changes in place
        first = tensors.get("first_probs")
        self.first_probs = None if first is None else first.cpu().numpy()
        self.n_seen = rest["n_seen"]

    def forget_rows(self) -> None:
        """Let go of what was taken in; nothing can be judged any more."""
        self.first_probs = None
        del self.codes, self.prob_sum


def _beyond_doubt(probs: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Return by how much more rows are contradicted than a network as unsure would be wrong about them."""
    contradicted = (probs.argmax(axis=1) != codes).mean()
    doubted = _OVERSURE * (1.0 - probs.max(axis=1)).mean()
    return max(0.0, float(contradicted - doubted))
