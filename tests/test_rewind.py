"""States of the first epochs: which are kept, and which is half of the way."""

import pytest
import torch

from noisefilter.rewind import EarlyStates

KEPT = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]


def after(n_epochs):
    """Return what was kept of a training that has taken so many epochs."""
    states = EarlyStates()
    for n in range(1, n_epochs + 1):
        states.keep(n, lambda n=n: ({"weight": torch.tensor([float(n)])}, {"epochs": n}))
    return states


@pytest.mark.parametrize("n_epochs", range(1, 60))
def test_half_of_any_number_of_epochs(n_epochs):
    states = after(n_epochs - 1)  # the state of the epoch that is looked at was not kept yet
    wanted = [n for n in KEPT if n <= n_epochs / 2]
    found = states.half_of(n_epochs)
    assert (found is None) == (not wanted)
    if wanted:
        assert found[0]["weight"].item() == found[1]["epochs"] == wanted[-1]
        assert n_epochs / 3 <= wanted[-1] <= n_epochs / 2
    assert len(states.state()[1]) <= 3


def test_only_what_is_kept_is_taken():
    states = EarlyStates()
    states.keep(5, lambda: pytest.fail("of five epochs nobody asks"))
    assert states.half_of(10) is None


@pytest.mark.parametrize(("by_heart", "over"), [(False, False), (False, True), (True, True), (True, False)])
def test_a_step_keeps_or_goes_back_or_lets_go(by_heart, over):
    states = after(5)
    found = states.step(6, lambda: ({}, {"epochs": 6}), by_heart=by_heart, over=over)
    assert (found and found[1]) == ({"epochs": 3} if by_heart else None)
    assert list(states.state()[1]) == ([] if by_heart or over else ["3", "4", "6"])


def test_as_one_state_and_back():
    states, other = after(9), EarlyStates()
    other.load_state(*states.state())
    assert list(states.state()[1]) == ["4", "6", "8"]
    assert other.half_of(17)[1] == {"epochs": 8} and other.half_of(17)[0]["weight"].item() == 8.0
    states.forget()
    assert states.half_of(17) is None and states.state() == ({}, {})
