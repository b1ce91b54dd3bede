"""Columns made numeric: every treatment by hand."""

import io
from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from noisefilter.datasets.columns import MISSING, numeric
from noisefilter.errors import InputError, InputTypeError

COLORS = ["red", "blue", "red", "blue"]


def scaled(values):
    values = np.asarray(values, dtype=float)
    return (values - values.mean()) / values.std()


def only(values, **options):
    return numeric(pd.DataFrame({"x": values}), **options)


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1", "4", "2", "9"], [1, 4, 2, 9]),
        (["1e3", "-.5", " 7 ", "+2."], [1000, -0.5, 7, 2]),
        ([1, 4, 2, 9], [1, 4, 2, 9]),
        ([1.5, 4.0, 2.0, 9.0], [1.5, 4, 2, 9]),
        ([True, False, False, True], [1, 0, 0, 1]),
        (["TRUE", "false", "False", "true"], [1, 0, 0, 1]),
        (["2020-01-01", "2020-01-03", "1969-12-31", "9999-12-31"], [18262, 18264, -1, 2932896]),
        (["2020-01-01T12:00", "2020-01-01 00:00:00", "2020-01-02", "2020-01-05"], [0.5, 0, 1, 4]),
        (["2020-01-01T12:00Z", "2020-01-01T13:00+01:00", "2020-01-02", "2020-01-05"], [0.5, 0.5, 1, 4]),
        (pd.to_datetime(["2020-01-01", "2020-01-04", "2020-01-02", "2020-01-03"]), [0, 3, 1, 2]),
        (pd.to_datetime(["2020-01-01", "2020-01-04"] * 2).tz_localize("Asia/Tokyo"), [0, 3, 0, 3]),
        ([timedelta(days=1), timedelta(hours=12), timedelta(0), timedelta(days=9)], [1, 0.5, 0, 9]),
        ([date(2020, 1, 1), date(2020, 1, 9), date(2020, 1, 2), date(2020, 1, 4)], [0, 8, 1, 3]),
        ([datetime(2020, 1, 1), datetime(2020, 1, 9), datetime(2020, 1, 2), date(2020, 1, 4)], [0, 8, 1, 3]),
        ([Decimal("1.5"), Decimal(4), Decimal(2), Decimal(9)], [1.5, 4, 2, 9]),
        (pd.array([1, 4, 2, 9], dtype="Int16"), [1, 4, 2, 9]),
        (pd.array([1.5, 4, 2, 9], dtype="float32"), [1.5, 4, 2, 9]),
    ],
    ids=str,
)
def test_numbers_of_every_kind_are_scaled(cells, numbers):
    prepared = only(cells)
    np.testing.assert_allclose(prepared.X[:, 0], scaled(numbers), rtol=1e-6)
    assert prepared.X.dtype == np.float32
    assert prepared.preparation[0][1].endswith("scaled")
    assert prepared.left_out == []


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "", "3", "8"],
        ["1", "NA", "3", "8"],
        [1, np.nan, 3, 8],
        pd.array([1, pd.NA, 3, 8], dtype="Int64"),
        [Decimal(1), None, Decimal(3), Decimal(8)],
    ],
    ids=str,
)
def test_missing_numbers_are_the_median_and_marked(cells):
    prepared = only(cells)
    np.testing.assert_allclose(prepared.X[:, 0], scaled([1, 3, 3, 8]), rtol=1e-6)
    np.testing.assert_allclose(prepared.X[:, 1], scaled([0, 1, 0, 0]), rtol=1e-6)
    assert prepared.preparation == [("x", "numbers, 1 missing by their median and marked, scaled")]


def test_what_is_missing_is_what_pandas_takes_for_missing():
    text = "x,y\n" + "".join(f"{cell},1\n" for cell in sorted(MISSING))
    assert pd.read_csv(io.StringIO(text))["x"].isna().all()
    with pytest.raises(InputError, match="every cell is missing"):
        only(sorted(MISSING))
    assert MISSING == {"", *pd._libs.parsers.STR_NA_VALUES}


@pytest.mark.parametrize("cells", [["5", "-9", "?", "8"], [5.0, -9.0, np.nan, 8.0], [5, -9, -9, 8]], ids=str)
def test_more_texts_can_mean_missing(cells):
    prepared = only(cells, missing=["?", "-9"])
    np.testing.assert_allclose(prepared.X[:, 0], scaled([5, 6.5, 6.5, 8]), rtol=1e-6)


def test_one_text_as_an_option_is_one_name():
    frame = pd.DataFrame({"ab": ["1", "2", "2", "5"], "cd": COLORS})
    assert numeric(frame, drop="ab").left_out == ["column 'ab': asked for by --drop"]
    assert numeric(frame, categorical="ab", drop="cd").X.shape == (4, 3)


@pytest.mark.parametrize("cells", [COLORS, pd.Categorical(COLORS), np.array(COLORS, dtype=object)], ids=str)
def test_categories_get_a_column_each(cells):
    prepared = only(cells)
    assert prepared.X.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert prepared.preparation == [("x", "2 categories, a column each")]


@pytest.mark.parametrize("gap", [None, np.nan, "", " NA "])
def test_a_missing_category_is_one_of_its_own(gap):
    prepared = only(pd.Series(["red", gap, "red", "blue"], dtype=object))
    assert prepared.X.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert prepared.preparation[0][1] == "2 categories, 1 missing as one of their own, a column each"


def test_many_categories_are_numbered():
    cells = [f"c{k:02d}" for k in range(51)] * 2 + [""]
    prepared = only(cells)
    assert prepared.preparation[0][1] == "51 categories, 1 missing as one of their own, numbered and scaled"
    np.testing.assert_allclose(prepared.X[:, 0], scaled([*range(51), *range(51), -1]), rtol=1e-5)
    assert only(cells[:50] * 2).X.shape == (100, 50)


def test_names_are_left_out():
    with pytest.raises(InputError, match=r"'x': 200 different texts in 200 cells, as in names or free text"):
        only([f"name {k}" for k in range(200)])
    half = [f"name {k % 100}" for k in range(200)]
    assert only(half).X.shape == (200, 1)
    assert only([f"name {k}" for k in range(200)], categorical=["x"]).X.shape == (200, 1)


def test_categorical_forces_categories():
    prepared = only([3, 1, 1, 2], categorical=["x"])
    assert prepared.X.tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert only(["3", "1", "many", "1"], categorical=["x"]).X.shape == (4, 3)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["4", "4", "4", "4"], "holds one value only, 4"),
        ([4, 4, 4, 4], "holds one value only, 4"),
        (["a", "a", "a", "a"], "holds one value only, 'a'"),
        (["", "NA", "", ""], "every cell is missing"),
        ([np.nan] * 4, "every cell is missing"),
        ([None] * 4, "every cell is missing"),
        (["7", "8", "9", "10"], "counts the rows"),
        ([0, 1, 2, 3], "counts the rows"),
        ([[1], [2], [3], [4]], "holds values of the type list"),
        ([b"a", b"b", None, b"a"], "holds values of the type bytes"),
        ([{"a": 1}, None, None, None], "holds values of the type dict"),
    ],
    ids=str,
)
def test_columns_that_tell_nothing_are_left_out_with_the_reason(cells, reason):
    prepared = numeric(pd.DataFrame({"x": cells, "color": COLORS}))
    assert prepared.X.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert prepared.left_out[0].startswith(f"column 'x': {reason}")
    assert prepared.preparation[0][1].startswith(f"left out: {reason}")
    with pytest.raises(InputError, match=r"must have a column to judge rows by, got none: column 'x'"):
        only(cells)


@pytest.mark.parametrize(
    "cells", [["8", "8", "", "8"], ["a", "", "a", "a"], [2, 3, 4, 6], [0.5, 1.5, 2.5, 3.5], [3, 2, 1, 0]]
)
def test_columns_that_tell_something_are_kept(cells):
    assert only(cells).left_out == []


def test_a_row_counter_is_known_although_rows_are_missing():
    frame = pd.DataFrame({"id": [10, 11, 14, 15], "color": COLORS})
    assert numeric(frame).left_out == []
    prepared = numeric(frame, rows=np.array([0, 1, 4, 5]))
    assert prepared.left_out == [
        "column 'id': counts the rows, which gives the labels of a sorted table away"
    ]


def test_a_column_of_numbers_and_texts_is_refused():
    cells = ["12", "", "unknown", "40", "3", "7", "n. a."]
    with pytest.raises(InputError) as caught:
        only(cells, name="'x.csv'", rows=np.arange(7) + 100, place=lambda row: f"line {row}")
    assert str(caught.value) == (
        "column 'x' of 'x.csv' must hold numbers or categories, got 4 numbers and 2 texts such as 'unknown' "
        "(line 102). --missing unknown treats it as missing, --categorical x as categories, --drop x leaves "
        "it out."
    )
    assert only(cells, missing=["unknown", "n. a."]).X.shape == (7, 2)
    assert numeric(pd.DataFrame({"x": cells, "z": range(0, 14, 2)}), drop=["x"]).X.shape == (7, 1)
    assert only(["a", "b", "a", "b", "1"]).X.shape == (5, 3)  # fewer numbers than texts: categories


def test_cells_are_counted_not_different_texts():
    with pytest.raises(InputError, match="got 3 numbers and 3 texts"):
        only(["5"] * 3 + ["a", "b", "c"])
    with pytest.raises(InputError, match="got 6 numbers and 3 texts"):
        only(["5"] * 6 + ["a", "b", "c"])
    assert only(["a"] * 6 + ["1", "2", "3"]).X.shape == (9, 4)


def test_thousands_are_no_numbers():
    with pytest.raises(InputError, match=r"2 numbers and 1 texts such as '1,000' \(row 2\)"):
        only(["500", "900", "1,000"])


def test_decimal_commas_where_asked_for():
    cells = ["1,5", "2", "-,25", "1,2e1"]
    prepared = only(cells, decimal=",")
    np.testing.assert_allclose(prepared.X[:, 0], scaled([1.5, 2, -0.25, 12]), rtol=1e-6)
    assert prepared.preparation == [("x", "numbers with a decimal comma, scaled")]
    assert only(["1.5", "2.5", "7"], decimal=",").preparation == [("x", "numbers, scaled")]
    with pytest.raises(InputError, match=r"2 numbers and 1 texts such as 'a\.b'"):
        only(["1,5", "2,5", "a.b"], decimal=",")
    with pytest.raises(InputError, match="different texts"):
        only(cells)
    with pytest.raises(InputError, match=r"2 numbers and 1 texts such as '1,5'"):
        only(["1.5", "2.5", "1,5"], decimal=",")


@pytest.mark.parametrize(
    ("cells", "value"), [(["1", "inf", "2"], "inf"), ([1, -np.inf, 2], "-inf"), ([1, 1e200, 2], r"1e\+200")]
)
def test_infinite_numbers_are_refused(cells, value):
    with pytest.raises(
        InputError, match=rf"column 'x' of .* must hold finite numbers, got {value} \(row 1\)"
    ):
        only(cells)
    assert only([*cells, 5], missing=["inf", "-inf", "1e200"]).X.shape == (4, 2)


@pytest.mark.parametrize("option", ["categorical", "drop"])
def test_an_option_that_names_no_column_lists_them(option):
    frame = pd.DataFrame({"a": COLORS, "b": COLORS})
    with pytest.raises(InputError, match=rf"{option} must name columns of .*, got 'c'; it has 'a', 'b'\."):
        numeric(frame, **{option: ["c"]})


def test_unusable_columns_are_named_too():
    prepared = numeric(pd.DataFrame({"a": COLORS}), unusable={"photo": "holds bytes"}, drop=["photo"])
    assert prepared.left_out == ["column 'photo': holds bytes"]
    with pytest.raises(InputError, match="got none: column 'photo': holds bytes"):
        numeric(pd.DataFrame(index=range(4)), unusable={"photo": "holds bytes"})


def test_hostile_names_and_cells_stay_inside_the_sentence():
    name, cell = "<script>\n\u202e'\"", "x\ny" * 1000
    with pytest.raises(InputError) as caught:
        numeric(pd.DataFrame({name: ["1", "2", cell]}))
    assert "\n" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_columns_of_X_have_names():
    frame = pd.DataFrame({"n": ["1", "", "2", "9"], "c": COLORS, "m": [f"{k}" for k in (5, 3, 3, 4)]})
    prepared = numeric(frame)
    assert prepared.columns.transformer.get_feature_names_out().tolist() == [
        "numbers__n",
        "numbers__m",
        "numbers__missingindicator_n",
        "categories__c_blue",
        "categories__c_red",
    ]
    assert [name for name, _ in prepared.preparation] == ["n", "c", "m"]


def test_nothing_is_learned_from_rows_held_out():
    frame = pd.DataFrame({
        "size": ["1", "4", "", "9", "1000", ""],
        "color": ["red", "blue", "red", "blue", "green", "red"],
        "count": [0, 1, 2, 3, 0, 1],
        "same": ["a", "a", "a", "a", "b", "c"],
        "late": ["", "", "", "", "5", "6"],
    })  # fmt: skip
    held_out = np.arange(6) >= 4
    both, alone = numeric(frame, held_out=held_out), numeric(frame[:4])
    assert np.array_equal(both.X[:4], alone.X)
    assert (both.preparation, both.left_out) == (alone.preparation, alone.left_out)
    size = np.array([1, 4, 4, 9])
    assert both.X[4:, 0] == pytest.approx((np.array([1000, 4]) - size.mean()) / size.std())
    assert both.X[4:, 2:].tolist() == [[0, 0], [0, 1]], "green is not known"


KINDS = pd.DataFrame({
    "size": ["1,5", "4", "", "-9"], "flag": ["true", "False", "", "TRUE"], "color": COLORS,
    "day": ["2024-01-02", "2024-01-01", "", "2024-01-03"], "code": [1, 2, 1, 3], "same": ["a"] * 4,
    "since": pd.to_datetime(["2024-01-02", "2024-01-01", None, "2024-01-03"]),
    "took": pd.to_timedelta([1, 2, None, 5], unit="D"), "on": [True, False, True, True],
})  # fmt: skip


def test_more_rows_are_read_as_the_first_ones_were():
    prepared = numeric(KINDS, categorical=["code"], missing=["-9"], decimal=",")
    columns = prepared.columns
    assert list(columns.kinds) == [name for name in KINDS if name != "same"]
    others = KINDS[list(columns.kinds)[::-1]].assign(more=["x", "y", "z", "z"])
    assert np.array_equal(columns.read(others, decimal=","), prepared.X)
    typed = pd.DataFrame({
        "size": [1.5, -9], "flag": [True, False], "color": COLORS[:2], "day": [np.nan] * 2, "code": [1, 9],
        "since": pd.to_datetime(["2024-01-02", None]), "took": [np.nan] * 2, "on": [1, 0],
    })  # fmt: skip
    texts = typed.assign(size=["1.5", "-9"], flag=["True", "FALSE"], day=["", "NA"], code=["1", "9"],
                         since=["2024-01-02", ""], took=["", ""], on=["true", "false"])  # fmt: skip
    X = columns.transform(typed)
    assert np.array_equal(X, columns.transform(texts))


@pytest.mark.parametrize(
    ("column", "cells", "found"),
    [
        ("size", ["1", "many", "2", "x"], r"numbers, as in training, got 'many' \(row 1\)"),
        ("flag", ["true", "false", "0", "1"], r"true or false, as in training, got '0' \(row 2\)"),
        ("day", ["2024-01-02", "", "soon", ""], r"dates, as in training, got 'soon' \(row 2\)"),
        ("since", [1.0, 2.0, 3.0, 4.0], "dates, as in training, got numbers"),
        ("on", KINDS["since"], "true or false, as in training, got dates, as days"),
        ("took", ["1 day"] * 4, "times, as in training, got '1 day'"),
        ("color", [["red"]] * 4, "categories, as in training, got values of the type list"),
        ("size", ["1e300"] * 4, "finite numbers, got 1e\\+300"),
    ],
)
def test_columns_that_hold_something_else_later_are_refused(column, cells, found):
    columns = numeric(KINDS, categorical=["code"], missing=["-9"], decimal=",").columns
    with pytest.raises(InputError, match=f"column '{column}' of X must hold {found}"):
        columns.transform(KINDS.assign(**{"size": "1", column: cells}))


def test_columns_that_are_not_there_later_are_named():
    columns = numeric(KINDS, categorical=["code"], missing=["-9"], decimal=",").columns
    with pytest.raises(InputError, match=r"X must have the columns 'size', .*, got none called 'day', 'on'"):
        columns.transform(KINDS.drop(columns=["day", "on", "same"]))
    with pytest.raises(
        InputTypeError, match=r"X must be a DataFrame with the columns 'size', .*, got an object"
    ):
        columns.transform(KINDS.to_numpy())
