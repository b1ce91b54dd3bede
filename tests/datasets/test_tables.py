"""Tables in files: what people have on their disks, the broken files included."""

import csv
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_wine

from noisefilter.datasets.tables import TableStore
from noisefilter.errors import InputError

PEOPLE = "name,age,city,label\nAnn,31,Rome,a\nBob,25,Oslo,b\nCy,,Rome,a\nDi,40,Oslo,b\n"


@pytest.fixture
def file(tmp_path):
    """Write text or bytes into a file; return the path."""

    def written(content, name="x.csv"):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return written


@pytest.fixture
def parquet(tmp_path):
    def written(table, name="x.parquet", **options):
        pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), tmp_path / name, **options)
        return tmp_path / name

    return written


def refused(path, **options):
    """Return the one sentence, and remedies, with which a file is refused."""
    skip = options.pop("skip_unreadable", False)
    with pytest.raises(InputError) as caught:
        TableStore(path, **options).load(skip_unreadable=skip)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def copied(store, rows=None, labels=None):
    rows = np.arange(len(store)) if rows is None else np.array(rows)
    out = store.path.with_name(f"copy{store.suffixes[0]}")
    store.write(out, rows, store.labels[rows] if labels is None else np.array(labels))
    return out


# what is read


def test_a_table_becomes_a_source(file):
    store = TableStore(file(PEOPLE))
    source = store.load()
    assert store.labels.tolist() == source.y.tolist() == ["a", "b", "a", "b"]
    assert source.X.dtype == np.float32
    age = np.array([31, 25, 31, 40])
    np.testing.assert_allclose(source.X[:, 0], (age - age.mean()) / age.std(), rtol=1e-6)
    assert source.X[:, 2:].tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert source.left_out == ["column 'name': 4 different texts in 4 cells, as in names or free text"]
    assert [name for name, _ in source.preparation] == ["name", "age", "city"]
    assert source.rows.tolist() == [0, 1, 2, 3]
    assert (source.kind, source.names, source.store) == ("table", None, store)
    assert source.description == store.description == "x.csv: 4 rows, 3 columns, label 'label'"
    assert store.suffixes == (".csv",)


def test_cells_are_what_people_wrote(file):
    cells = TableStore(file("id,price,y\n007,1.50,a\n008,,b\n")).cells(np.array([1, 0]))
    assert cells.to_dict("list") == {"id": ["008", "007"], "price": ["", "1.50"]}


@pytest.mark.parametrize("name", ["wine", "breast cancer"])
def test_tables_of_numbers_are_their_scaled_selves(tmp_path, name):
    frame = (load_wine if name == "wine" else load_breast_cancer)(as_frame=True).frame
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    from_csv, from_parquet = TableStore(tmp_path / "x.csv").load(), TableStore(tmp_path / "x.parquet").load()
    X = frame.drop(columns="target").to_numpy()
    np.testing.assert_allclose(from_csv.X, (X - X.mean(axis=0)) / X.std(axis=0), atol=1e-4)
    np.testing.assert_array_equal(from_csv.X, from_parquet.X)
    for source in (from_csv, from_parquet):
        assert source.y.dtype == np.int64
        assert np.array_equal(source.y, frame["target"])
        assert source.left_out == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks(file, delimiter, line_end, mark):
    text = mark + PEOPLE.replace(",", delimiter).replace("\n", line_end)
    store = TableStore(file(text))
    assert store.table.column_names == ["name", "age", "city", "label"]
    assert store.labels.tolist() == ["a", "b", "a", "b"]
    if line_end != "\r":
        assert copied(store).read_bytes() == text.encode()


def test_a_tsv_file_is_split_by_tabs_whatever_its_header_says(file):
    store = TableStore(file("a,b,c\ty\n1\t0\n2\t1\n5\t0\n", "x.tsv"))
    assert store.table.column_names == ["a,b,c", "y"]
    assert store.suffixes == (".tsv",)
    assert copied(store).read_text() == store.path.read_text()


def test_a_quoted_delimiter_in_the_header_splits_nothing(file):
    assert TableStore(file('"a;b;c;d",y\n1,0\n2,1\n')).table.column_names == ["a;b;c;d", "y"]


def test_a_file_from_europe_has_decimal_commas(file):
    store = TableStore(file("preis;stück;y\n1,50;1;a\n2,5;7;b\n1.000;2;a\n".replace("1.000", "10")))
    price = np.array([1.5, 2.5, 10])
    np.testing.assert_allclose(store.load().X[:, 0], (price - price.mean()) / price.std(), rtol=1e-6)
    assert store.cells(np.array([0]))["preis"].tolist() == ["1,50"]
    with pytest.raises(InputError, match="'1,50'"):
        TableStore(file('preis,y\n"1,50",a\n2.5,b\n3.5,a\n')).load()


def test_blank_lines_are_skipped(file):
    text = "\n\nx,y\n\n1,a\n\n\n5,b\n3,a\n\n"
    store = TableStore(file(text))
    assert store.labels.tolist() == ["a", "b", "a"]
    assert [store._place(row) for row in range(3)] == ["line 5", "line 8", "line 9"]


def test_a_utf8_file_keeps_its_letters(file):
    store = TableStore(file("größe,label\n1,猫\n5,كلب\n2,猫\n"))
    assert store.labels.tolist() == ["猫", "كلب", "猫"]
    assert copied(store).read_bytes() == store.path.read_bytes()


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6) | st.sampled_from(
    ["", '"', '""', "\r", "\n", ",;\t|"]
)
CLASSES = st.sampled_from(["a", "b", 'q"', "x\ny", "1,2", " "])


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CLASSES), min_size=1, max_size=5),
    header=st.lists(CELLS.filter(bool), min_size=2, max_size=2, unique=True).filter(lambda h: "y" not in h),
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
@example([("a\rb", "", "a")], ["u", "v"], ",", "\n", csv.QUOTE_ALL)
def test_any_cell_is_read_and_written_back(tmp_path_factory, rows, header, delimiter, line_end, quoting):
    folder = tmp_path_factory.mktemp("t")
    quoting = csv.QUOTE_ALL if line_end == "\n" else quoting  # Python 3.11 would leave \r bare
    # Whatever splits the header into most columns is the delimiter: let no other one be in it.
    header = [name.translate({ord(mark): "_" for mark in ",;\t|"}) + str(k) for k, name in enumerate(header)]
    with (folder / "x.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(
            [[*header, "y"], *rows]
        )
    store = TableStore(folder / "x.csv", label="y")
    assert store.cells(np.arange(len(rows))).to_numpy().tolist() == [list(row[:2]) for row in rows]
    copy = TableStore(copied(store), label="y")
    assert copy.table.equals(store.table)
    assert copy.table["y"].to_pylist() == [row[2] for row in rows]
    again = TableStore(copied(copy), label="y")
    assert again.path.read_bytes() == copy.path.read_bytes()


# labels


@pytest.mark.parametrize("name", ["label", "Labels", "TARGET", "class", "y", " Y "])
def test_the_label_column_is_known_by_its_name(file, name):
    store = TableStore(file(f"a,{name},b\n1,0,2\n5,1,1\n2,0,7\n"))
    assert store.label == name
    assert store.labels.tolist() == [0, 1, 0]


def test_a_label_column_that_is_not_clear_lists_the_columns(file):
    path = file("Y,target,a\n0,1,2\n1,0,3\n")
    assert refused(file("u,v\n1,2\n", "z.csv")) == (
        "label must name a column of 'z.csv', got none; it has 'u', 'v'. --label NAME says which."
    )
    assert "got none, and 'Y', 'target' could each be it; it has 'Y', 'target', 'a'." in refused(path)
    assert refused(path, label="lab").endswith("got 'lab'; it has 'Y', 'target', 'a'.")
    assert TableStore(path, label="a").labels.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["0", "1", "-3"], [0, 1, -3]),
        (["007", "1", "2"], ["007", "1", "2"]),
        (["1.0", "2.0", "1.0"], ["1.0", "2.0", "1.0"]),
        (["+1", "2", "1"], ["+1", "2", "1"]),
        (["1", "2", "x"], ["1", "2", "x"]),
        (["-0", "2", "1"], ["-0", "2", "1"]),
        (["٣", "2", "1"], ["٣", "2", "1"]),
        ([" 1", "2", "1"], [" 1", "2", "1"]),
        (["9" * 30, "2", "1"], ["9" * 30, "2", "1"]),
    ],
)
def test_labels_are_whole_numbers_only_where_nothing_is_lost(file, texts, labels):
    store = TableStore(file("u,y\n" + "".join(f"{k * k},{text}\n" for k, text in enumerate(texts))))
    assert store.labels.tolist() == labels
    assert store.load().y.tolist() == labels
    assert copied(store).read_bytes() == store.path.read_bytes()


@pytest.mark.parametrize("gap", ["", "  ", "unknown"])
def test_rows_without_a_label(file, gap):
    rows = ["1,0", f"5,{gap}", "7,1", f"2,{gap}", "4,0"]
    store = TableStore(file("u,y\n" + "".join(f"{row}\n" for row in rows)), missing=["unknown"])
    assert refused(store.path, missing=["unknown"]) == (
        "column 'y' of 'x.csv' must hold a label in every row, got 2 of 5 without, the first in line 3. "
        "skip_unreadable (--skip-unreadable) goes on without them."
    )
    source = store.load(skip_unreadable=True)
    assert source.rows.tolist() == [0, 2, 4]
    assert source.y.tolist() == [0, 1, 0]
    assert source.y.dtype == np.int64
    assert source.left_out == ["2 without a label: line 3, line 5"]
    u = np.array([1, 7, 4])
    np.testing.assert_allclose(source.X[:, 0], (u - u.mean()) / u.std(), rtol=1e-6)
    assert store.labels.tolist() == [0, None, 1, None, 0]
    assert copied(store).read_bytes() == store.path.read_bytes()
    assert copied(store, [3, 1], [1, None]).read_text() == f"u,y\n2,1\n5,{gap}\n"


def test_a_row_counter_is_left_out_although_rows_are_skipped(file):
    store = TableStore(file("id,u,y\n1,3,a\n2,1,b\n3,1,\n4,9,a\n5,4,b\n"))
    source = store.load(skip_unreadable=True)
    assert source.left_out[1].startswith("column 'id': counts the rows")
    assert source.X.shape == (4, 1)


def test_missing_labels_stay_the_way_they_were(file):
    text = "u,y\n1,a\n5,NA\n7,\n2,b\n"
    assert copied(TableStore(file(text))).read_text() == text


def test_no_label_anywhere(file):
    assert "got 2 of 2 without" in refused(file("u,y\n1,\n2,\n"), skip_unreadable=True)


def test_one_class_is_refused(file):
    assert refused(file("u,y\n1,a\n2,a\n4,a\n")) == (
        "column 'y' of 'x.csv' must hold two classes at least, got 'a' in every row. --label NAME names "
        "another column."
    )


def test_a_column_that_is_no_label_is_refused(file):
    text = "u,y\n" + "".join(f"{k % 7},{k / 7:.4f}\n" for k in range(200))
    assert "must hold classes, got 200 different values in 200 rows" in refused(file(text))
    assert "must hold short labels" in refused(file(f"u,y\n1,a\n2,{'b' * 5000}\n"))


# what is refused


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('x,y\n1,a\n"2,b\n3,a\n4,b\n', 3),
        ('x,y\n1,a\n"2" ,b\n3,a\n', 3),
        ('x,y\n1,a\n2,"b"c\n3,a\n', 3),
        ('x,y\n"one\ntwo\nthree",a\n2,"b"c\n', 5),
        ('x,y\r\n"one\r\ntwo\r\n",a\r\n\r\n2,"b"c\r\n', 6),
        ('x,"y\n1,a\n', 1),
    ],
)
def test_a_broken_quote_is_found_in_its_line(file, text, line):
    assert (
        "must close every quote it opens, and double quotes inside a cell, got a row that cannot be read "
        f"in line {line} (" in refused(file(text), label="y")
    )


def test_a_quote_that_swallows_the_file_is_found_where_it_opens(file):
    text = "x,y\n" + "1,a\n" * 10 + '"2,b\n' + "3,a\n" * 100_000
    assert "in line 12 (unexpected end of data" in refused(file(text))


@pytest.mark.parametrize(
    ("text", "width", "line"),
    [
        ("x,z,y\n1,2,a\n1,2\n", 2, 3),
        ("x,z,y\n1,2,a\n1,2,a,\n", 4, 3),
        ('x,z,y\n"1\n\n1",2,a\n\n1,2\n', 2, 6),
        ("x,z,y\n1,2,a\n   \n1,2,a\n", 1, 3),
    ],
)
def test_a_row_of_another_length_is_found_in_its_line(file, text, width, line):
    assert refused(file(text)).endswith(
        f"must have 3 cells in every row, as in its header, got {width} in line {line}."
    )


@pytest.mark.parametrize(("line_end", "line"), [("\n", 4), ("\r\n", 4), ("\r", 4)])
def test_bytes_that_are_no_utf8_are_found_in_their_line(file, line_end, line):
    text = "x,y\n1,a\n2,b\nfünf,a\n3,b\n".replace("\n", line_end)
    assert f"must be UTF-8 text, got other bytes in line {line}. Save it as UTF-8." in refused(
        file(text.encode("latin-1"))
    )
    assert "must be UTF-8 text" in refused(file(text.encode("utf-16")))


def test_nul_characters_are_refused(file, parquet):
    assert "must be text, got a NUL character in line 3." in refused(file("x,y\n1,a\n2\0,b\n"))
    assert "must have names of text" in refused(parquet({"x\0": [1, 3], "y": ["a", "b"]}))
    assert "must hold short labels" in refused(parquet({"x": [1, 3], "y": ["a\0", "a"]}))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "got an empty file"),
        ("\n\n", "got an empty file"),
        ("x,y\n", "must have rows below its columns, got none"),
        (",x,y\n0,1,a\n", "must have a name, got none for column 1. Where it is the index of a pandas"),
        ("x,y,x,z,z\n0,1,a,0,0\n", "must have different names, got 'x', 'z' repeatedly"),
        ("y\na\nb\n", "must have a column to judge rows by, got none: it has no column beside the label"),
        ("x,y\n1,a\n1,b\n", "got none: column 'x': holds one value only, 1"),
        (
            "x,y\n1,a\n2,b\nz,a\n",
            r"column 'x' of 'x.csv' .* got 2 numbers and 1 texts such as 'z' \(line 4\)",
        ),
    ],
)
def test_tables_that_cannot_be_used(file, text, sentence):
    import re

    assert re.search(sentence if "\\" in sentence else re.escape(sentence), refused(file(text)))


@pytest.mark.parametrize("option", ["categorical", "drop"])
def test_an_option_that_names_no_column_lists_them(file, option):
    path = file("a,b,y\n1,2,c\n5,5,d\n")
    assert f"{option} must name columns of 'x.csv', got 'c'; it has 'a', 'b'." in refused(
        path, **{option: ["c"]}
    )
    assert "got 'y'" in refused(path, **{option: ["y"]})


def test_options_reach_the_columns(file):
    path = file("a,b,y\n1,2,c\n3,5,d\n1,?,c\n")
    source = TableStore(path, categorical=["a"], drop=["b"]).load()
    assert source.X.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert TableStore(path, missing=["?"]).load().X.shape == (3, 3)


def test_parquet_columns_of_one_name_are_refused(parquet):
    table = pa.Table.from_arrays([pa.array([1, 2])] * 2 + [pa.array(["a", "b"])], names=["x", "x", "y"])
    assert "must have different names, got 'x' repeatedly" in refused(parquet(table))


def test_what_is_no_file_is_refused(tmp_path):
    assert "must be a table, got no such file" in refused(tmp_path / "x.csv")
    (tmp_path / "y.parquet").mkdir()
    assert "must be a table, got a folder" in refused(tmp_path / "y.parquet")


def test_hostile_names_and_cells_stay_data(file):
    name = '<script>alert("1")</script>\n\u202e\x1b[31m'
    out = io.StringIO()
    csv.writer(out).writerows([[name, "y"], ["1", "<b>"], ["2", "\u202e\n"], ["9", "<b>"]])
    store = TableStore(file(out.getvalue()))
    assert copied(store).read_bytes() == store.path.read_bytes()
    assert store.load().preparation == [(name, "numbers, scaled")]
    for sentence in (refused(store.path, label="z"), refused(store.path, drop=[name])):
        assert not {"\n", "\u202e", "\x1b"} & set(sentence)


# copies


def test_a_copy_keeps_every_cell_as_it_was(file):
    text = 'id,price,note,y\n007,1.50,"a, ""b""",cat\n1e3,NA,"x\ny",dog\n, 2 ,,cat\n'
    store = TableStore(file(text))
    assert copied(store).read_text() == text
    expected = 'id,price,note,y\n, 2 ,,dog\n007,1.50,"a, ""b""",cat\n'
    assert copied(store, [2, 0], ["dog", "cat"]).read_text() == expected
    with pytest.raises(InputError, match=r"labels must be among those of 'x\.csv', got 'bird'\."):
        copied(store, [0], ["bird"])


def test_whole_number_labels_are_written_as_they_were(file):
    store = TableStore(file("u,y\n1,10\n2,2\n4,10\n"))
    assert copied(store, [0, 1], np.array([2, 10])).read_text() == "u,y\n1,2\n2,10\n"


# parquet


def test_a_parquet_copy_keeps_types_and_metadata(parquet):
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int16"),
            "t": pd.to_datetime(["2020-01-01", "2021-05-05", None]).tz_localize("Asia/Tokyo"),
            "c": pd.Categorical(["u", "v", "u"]),
            "y": pd.array([1, 2, 1], dtype="Int8"),
            "z": [1.5, 2.5, 9.5],
        }
    )
    store = TableStore(parquet(pa.Table.from_pandas(frame)))
    assert pq.read_table(copied(store)).equals(store.table, check_metadata=True)
    changed = pd.read_parquet(copied(store, [2, 0], [2, 1]))
    expected = frame.iloc[[2, 0]].assign(y=pd.array([2, 1], dtype="Int8")).reset_index(drop=True)
    pd.testing.assert_frame_equal(changed.reset_index(drop=True), expected)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array(["a", "b", "a"]), ["a", "b", "a"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["1", "2", "1"]), ["1", "2", "1"]),
        (pa.array(["1", "2", "1"], pa.large_string()), ["1", "2", "1"]),
        (pa.array([7, 8, 7], pa.uint8()), [7, 8, 7]),
        (pa.array([2**63, 1, 2**63], pa.uint64()), [2**63, 1, 2**63]),
        (pa.array([True, False, True]), [True, False, True]),
        (pa.array([0.0, 1.0, 0.0]), [0.0, 1.0, 0.0]),
        (pa.array([7, None, 8], pa.int32()), [7, None, 8]),
        (pa.array([True, None, False]), [True, None, False]),
        (pa.array([0.0, float("nan"), 1.0]), [0.0, None, 1.0]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.array([18262, 18263, 18262], pa.date32()), ["2020-01-01", "2020-01-02", "2020-01-01"]),
    ],
    ids=str,
)
def test_labels_of_every_type_come_back(parquet, column, labels):
    store = TableStore(parquet({"x": [1, 7, 3], "y": column}))
    assert store.labels.tolist() == labels
    kept = [label for label in labels if label is not None]
    source = store.load(skip_unreadable=True)
    assert source.y.tolist() == kept
    assert source.y.dtype.kind in "iufbU"
    written = pq.read_table(copied(store))
    assert written.schema.equals(store.table.schema)
    assert str(written["y"].to_pylist()) == str(store.table["y"].to_pylist())


def test_labels_that_are_lists_are_refused(parquet):
    assert "must hold texts or whole numbers, got one that holds list<" in refused(
        parquet({"x": [1, 2], "y": [[1], [2]]})
    )
    assert "got 2 of 2 without" in refused(parquet({"x": [1, 2], "y": pa.nulls(2)}))


def test_lists_and_bytes_are_left_out(parquet):
    table = pa.table(
        {"x": [1, 9, 4], "v": [[1], [2], [3]], "b": [b"a", b"b", b"c"], "s": [{"q": 1}] * 3, "y": list("aba")}
    )
    store = TableStore(parquet(table))
    source = store.load()
    assert source.X.shape == (3, 1)
    assert [line.split(":")[0] for line in source.left_out] == ["column 'v'", "column 'b'", "column 's'"]
    assert source.left_out[1] == "column 'b': holds binary"
    assert list(store.cells(np.array([0]))) == ["x"]
    assert pq.read_table(copied(store)).equals(store.table)
    assert TableStore(store.path, drop=["v"]).load().X.shape == (3, 1)
    assert "got none: column 'v': holds list" in refused(parquet(table.drop_columns(["x"])))


def test_columns_are_read_by_their_types(parquet):
    source = TableStore(
        parquet(
            {
                "date": pa.array([18262, None, 18264, 18270], pa.date32()),
                "flag": pa.array([True, None, False, True]),
                "whole": pa.array([1, None, 5, 9]),
                "kind": pa.array(["u", "v", "u", None]).dictionary_encode(),
                "none": pa.nulls(4),
                "y": list("abab"),
            }
        )
    ).load()
    assert dict(source.preparation) == {
        "date": "dates, as days, 1 missing by their median and marked, scaled",
        "flag": "true or false, 1 missing by their median and marked, scaled",
        "whole": "numbers, 1 missing by their median and marked, scaled",
        "kind": "2 categories, 1 missing as one of their own, a column each",
        "none": "left out: every cell is missing",
    }


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped", "footer"])
def test_a_damaged_parquet_file_is_one_sentence(parquet, damage):
    path = parquet({"x": np.arange(5000) ** 2, "y": ["a", "b"] * 2500}, compression="gzip")
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "text": PEOPLE.encode(),
            "flipped": whole[:300] + bytes(50) + whole[350:],
            "footer": whole[:-60] + bytes(20) + whole[-40:],
        }[damage]
    )
    assert (
        "x.parquet' must be a whole parquet file, got one of another format, damaged, or cut short ("
        in refused(path)
    )


def test_parquet_text_that_is_no_utf8_is_refused(parquet):
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers())
    assert "must be a whole parquet file" in refused(parquet({"x": bad, "y": ["a", "b"]}))


def test_a_folder_name_adds_no_column(tmp_path):
    (tmp_path / "y=1").mkdir()
    pq.write_table(pa.table({"x": [1, 3], "y": ["a", "b"]}), tmp_path / "y=1" / "x.parquet")
    assert TableStore(tmp_path / "y=1" / "x.parquet").labels.tolist() == ["a", "b"]


def test_classes_called_na_and_none_are_classes(file):
    store = TableStore(file("x,y\n1,NA\n2,None\n3,nan\n4,NA\n"))
    assert store.labels.tolist() == ["NA", "None", "nan", "NA"]


def test_a_cell_may_be_long(file):
    text = "x,note,y\n" + "".join(
        f'{row},"{"w" * 200_000 if row == 1 else "short"}",{"ab"[row % 2]}\n' for row in range(4)
    )
    assert len(TableStore(file(text)).cells(np.array([1]))["note"].iloc[0]) == 200_000
