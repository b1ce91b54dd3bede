"""What the progress bar says, by a clock of our own."""

import pytest

from noisefilter import progress
from noisefilter.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    return now


def run(clock, seconds_per_step, total, enabled=True, **options):
    with Progress("work", total, enabled, **options) as bar:
        for _ in range(total):
            clock[0] += seconds_per_step
            bar.step()
    return bar


def test_long_work_is_announced_once(clock, capsys):
    bar = run(clock, 1.0, 60)
    assert capsys.readouterr().err.count("about") == 1
    assert bar.bar.disable or bar.bar.n == 60


def test_short_work_is_silent(clock, capsys):
    run(clock, 0.001, 60)
    run(clock, 1.0, 0)
    output = capsys.readouterr()
    assert output.err == output.out == ""


def test_disabled_is_silent(clock, capsys):
    run(clock, 100.0, 60, enabled=False)
    output = capsys.readouterr()
    assert output.err == output.out == ""


def test_fewer_steps_than_the_trial(clock, capsys):
    run(clock, 10.0, 3)
    assert "about 30 seconds" in capsys.readouterr().err


def test_time_before_the_block_does_not_count(clock, capsys):
    bar = Progress("work", 10, True, trial=1)
    clock[0] += 1000
    with bar:
        clock[0] += 1
        bar.step()
    assert "about 10 seconds" in capsys.readouterr().err


def test_steps_count_by_what_they_cost(clock, capsys):
    with Progress("work", 100, True, trial=5, label="short") as bar:
        for cost in (1, 2, 3, 2, 1):
            clock[0] += cost
            bar.step(cost)
        assert "work: about 2 minutes" in capsys.readouterr().err  # 100 at a second each
        assert bar.bar.n == 9 and bar.bar.total == 100
        bar.tell("epoch 1", left=11)
        assert bar.bar.total == bar.total == 20
        assert str(bar.bar).startswith("short:  45%|") and str(bar.bar).endswith(", epoch 1")
        assert "9/20" not in str(bar.bar)


def test_costs_that_pass_their_sum_are_no_complaint(clock, recwarn):
    with Progress("work", 0.6, True, label="short") as bar:
        for cost in (0.1, 0.2, 0.3, 0.2):  # the first three are a rounding too much, the last is not foreseen
            bar.step(cost)
            bar.bar.refresh()
        assert bar.bar.n == bar.bar.total == bar.total
    assert not [warning.message for warning in recwarn]


def test_the_first_step_is_not_timed(clock, capsys):
    """It waits for what is made once: a first verdict, kernels of a GPU."""
    with Progress("work", 60, True, trial=10) as bar:
        clock[0] += 1000
        for _ in range(60):
            bar.step()
            clock[0] += 1
    assert "work: about 60 seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(42.4, "42 seconds"), (600, "10 minutes"), (5400, "90 minutes"), (9000, "2.5 hours")],
)
def test_words(seconds, words):
    assert progress._readable(seconds) == words
