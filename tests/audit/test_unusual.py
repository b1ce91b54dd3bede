"""Cells that stand out, by hand."""

import numpy as np
import pandas as pd
import pytest

from noisefilter.audit.unusual import unusual_cells

N = 200
LABELS = np.repeat(["cat", "dog"], N // 2)
CLEAN = np.ones(N, dtype=bool)


def cells(frame, row, labels=LABELS, clean=CLEAN, **options):
    """The cells of one row as {column: (value, unusual)}, and their order."""
    found = unusual_cells(frame, labels, clean, np.array([row]), **options)[0]
    return {name: (value, unusual) for name, value, unusual in found}, [name for name, *_ in found]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_number_is_measured_against_clean_rows_of_its_given_label(as_text):
    legs = np.where(LABELS == "cat", 4.0, 100.0) + np.tile([-1.0, 0.0, 0.0, 1.0], N // 4)
    legs[7] = 100.0  # usual for a dog, not for a cat
    frame = pd.DataFrame({"legs": legs, "tail": np.tile([1.0, 2.0], N // 2)})
    frame = frame.astype(str) if as_text else frame
    found, order = cells(frame, 7)
    assert found["legs"] == ("100.0" if as_text else "100", True)
    assert found["tail"][1] is False
    assert order == ["legs", "tail"]
    assert cells(frame, 150)[0]["legs"][1] is False


def test_three_scaled_median_deviations_are_the_border():
    values = np.tile([-1.0, 0.0, 0.0, 1.0], N // 4)
    values = np.where(np.arange(N) % 2, values * 2, values + 1)
    known = values[1 : N // 2]
    spread = 1.4826 * np.median(np.abs(known - np.median(known)))
    for factor, unusual in ((2.9, False), (3.1, True)):
        frame = pd.DataFrame({"x": values})
        frame.loc[0, "x"] = np.median(known) + factor * spread
        clean = CLEAN.copy()
        clean[0] = False
        assert cells(frame, 0, clean=clean)[0]["x"][1] is unusual


def test_a_value_is_rare_at_one_in_a_hundred_of_its_label():
    frame = pd.DataFrame({"color": np.where(np.arange(N) % 2, "red", "blue").astype(object)})
    frame.loc[[3, 150, 151], "color"] = "green"
    assert cells(frame, 3)[0]["color"] == ("green", True)  # 1 of 100 cats
    assert cells(frame, 150)[0]["color"] == ("green", False)  # 2 of 100 dogs
    assert cells(frame, 5)[0]["color"] == ("red", False)


def test_names_of_which_every_one_is_rare_do_not_stand_out():
    frame = pd.DataFrame({"name": [f"row {i}" for i in range(N)], "x": np.arange(N) % 7})
    assert cells(frame, 3)[0]["name"] == ("row 3", False)


def test_missing_cells_are_values():
    x = np.tile([1.0, 2.0, 3.0, 4.0], N // 4)
    color = np.where(np.arange(N) % 2, "red", "blue").astype(object)
    frame = pd.DataFrame({"x": x, "color": color})
    frame.loc[3, "x"] = np.nan
    frame.loc[3, "color"] = None
    found, _ = cells(frame, 3)
    assert found["x"] == ("nan", True)
    assert found["color"][1] is True
    frame.loc[: N // 4, "x"] = np.nan
    assert cells(frame, 3)[0]["x"][1] is False


def test_rows_judged_wrong_are_no_measure():
    x = np.where(LABELS == "cat", 0.0, 10.0) + np.tile([-1.0, 0.0, 0.0, 1.0], N // 4)
    x[:60] = 10.0
    clean = CLEAN.copy()
    clean[:60] = False
    assert cells(pd.DataFrame({"x": x}), 0, clean=clean)[0]["x"][1] is True
    nobody = cells(pd.DataFrame({"x": x}), 0, clean=LABELS == "dog")[0]  # then all cats are
    assert nobody["x"] == ("10", False)


def test_at_most_so_many_columns_and_no_endless_text():
    frame = pd.DataFrame(np.zeros((N, 20)), columns=[f"c{j}" for j in range(20)])
    frame.loc[0, "c13"] = 5.0
    frame["text"] = "x" * 1000
    found, order = cells(frame, 0, n_columns=3)
    assert order == ["c0", "c1", "c13"]  # the most unusual, in the order of the columns
    assert found["c13"] == ("5", True)
    assert len(cells(frame, 0, n_columns=99)[0]["text"][0]) == 200


def test_running_text_is_always_shown():
    frame = pd.DataFrame(np.zeros((N, 20)), columns=[f"c{j}" for j in range(20)])
    frame.insert(10, "note", [f"the customer wrote for the {i}th time" for i in range(N)])
    frame.insert(11, "id", [f"id{i}" for i in range(N)])
    frame.loc[0, "c13"] = 5.0
    found, order = cells(frame, 0, n_columns=3)
    assert order == ["c0", "note", "c13"]
    assert found["note"] == ("the customer wrote for the 0th time", False)


def test_columns_may_share_a_name_and_be_constant():
    frame = pd.DataFrame(np.ones((N, 2)), columns=["a", "a"])
    found = unusual_cells(frame, LABELS, CLEAN, np.array([0, 1]))
    assert found == [[("a", "1", False)] * 2] * 2
    assert unusual_cells(frame, LABELS, CLEAN, np.array([], dtype=int)) == []
