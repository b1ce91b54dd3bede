"""Decisions: read only where they fit the data set, and what they do to the labels."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from noisefilter.audit.decisions import Decision, class_of, decided, read_decisions, tally
from noisefilter.datasets import open_store
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.errors import InputError


def store_of(labels, description="rows"):
    return ArrayStore(np.zeros((len(labels), 2)), np.asarray(labels), description)


STORE = store_of([3, 1, 2, 1])


@pytest.fixture
def photos(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name)
    return open_store(tmp_path / "photos")


def test_all_actions_are_read_in_order(saved):
    path = saved(STORE, (2, "confirm", "1"), (0, "relabel", "2"), (3, "keep"), (1, "remove"), path=None)
    assert read_decisions(path, STORE) == [
        Decision(2, None, "2", "confirm", "1"),
        Decision(0, None, "3", "relabel", "2"),
        Decision(3, None, "1", "keep", "1"),
        Decision(1, None, "1", "remove", None),
    ]


def test_a_confirmed_stranger_goes(saved):
    (decision,) = read_decisions(saved(STORE, (2, "confirm")), STORE)
    assert decision.label is None
    assert decided(STORE.labels, [decision])[1].tolist() == [True, True, False, True]


def test_no_decisions_are_fine(saved):
    assert read_decisions(saved(STORE), STORE) == []
    assert tally([]) == "0 rows: 0 relabelled, 0 removed, 0 kept"


def test_files_must_be_those_of_the_folder(saved, photos):
    path = saved(photos, (1, "relabel", "dog"))
    assert read_decisions(path, photos) == [Decision(1, "cat/2.png", "cat", "relabel", "dog")]
    path.write_text(path.read_text().replace("cat/2.png", "cat/3.png"))
    with pytest.raises(InputError, match=r"have file 'cat/2\.png', as row 1 of the data set, got 'cat/3"):
        read_decisions(path, photos)


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_that_are_no_text_survive(saved, photos):
    (photos.root / "cat/1.png").rename(photos.root / "cat" / os.fsdecode(b"\xff.png"))
    store = open_store(photos.root)
    (decision,) = read_decisions(saved(store, (1, "keep")), store)
    assert decision.file == "cat/\udcff.png"


def test_decisions_for_other_data_are_refused(saved):
    path = saved(store_of([3, 1, 2, 2], "other rows"))
    with pytest.raises(InputError) as error:
        read_decisions(path, STORE)
    assert str(error.value) == (
        f"The decisions in {str(path)!r} must be for this data set, got ones for 'other rows' (4 rows)."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be the JSON file that the report page saves, got an error"),
        ("", "must be the JSON file"),
        ("[" * 100_000, "must be the JSON file"),
        ("[]", "must be a decisions file of format 1 that a report page saved, got another file"),
        ('{"made_by": "noisefilter report", "format": 2}', "must be a decisions file of format 1"),
        ('{"made_by": "somebody", "format": 1}', "must be a decisions file of format 1"),
        ('{"made_by": "noisefilter report", "format": 1}', "must be for this data set, got ones for None"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_decisions(tmp_path / "d.json", STORE)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(InputError, match="must be a readable file, got an error: No such file"):
        read_decisions(tmp_path / "d.json", STORE)
    (tmp_path / "d.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="must be the JSON file"):
        read_decisions(tmp_path / "d.json", STORE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": 4}, "Decision 1 in .* must be about a row from 0 to 3, got 4"),
        ({"row": -1}, "must be about a row from 0 to 3, got -1"),
        ({"row": True}, "must be about a row from 0 to 3, got True"),
        ({"row": "2"}, "must be about a row from 0 to 3, got '2'"),
        ({"given": "3"}, "must have given '2', as row 2 of the data set, got '3'"),
        ({"given": 2}, "must have given '2', as row 2 of the data set, got 2"),
        ({"file": "a.png"}, "must have file None, as row 2 of the data set, got 'a.png'"),
        ({"action": "burn"}, "must have an action of confirm, relabel, keep, remove, got 'burn'"),
        ({"action": ["keep"]}, "must have an action"),
        ({"label": "7"}, "must have a label of the data set as label, to relabel, got '7'"),
        ({"label": None}, "must have a label of the data set as label, to relabel, got None"),
        ({"label": 1}, "must have a text or null as label, got 1"),
        ({"label": ["1"]}, "must have a text or null as label"),
        ({"label": "7" * 10_000}, r"got '7+\.\.\.\.$"),
        ({"action": "keep"}, "must have the given label '2' as label, to keep, got '1'"),
        ({"action": "remove"}, "must have null as label, to remove, got '1'"),
        ({"action": "confirm", "label": "7"}, "must have a label of the data set or null as label"),
    ],
)
def test_the_first_decision_that_does_not_fit_is_named(saved, change, message):
    path = saved(STORE, (1, "keep"), (2, "relabel", "1"))
    content = json.loads(path.read_text())
    content["decisions"][1].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_decisions(path, STORE)


@pytest.mark.parametrize("entry", [None, 3, [], {"row": 1}])
def test_an_entry_must_be_complete(saved, entry):
    with pytest.raises(InputError, match=r"Decision 0 in .* must have row, file, given, action, label, got"):
        read_decisions(saved(STORE, decisions=[entry]), STORE)


def test_the_decisions_must_be_a_list(saved):
    with pytest.raises(InputError, match="must be a list, got dict"):
        read_decisions(saved(STORE, decisions={}), STORE)


def test_a_row_is_decided_once(saved):
    with pytest.raises(InputError, match="must decide about each row once, got 2 decisions about row 1"):
        read_decisions(saved(STORE, (0, "keep"), (1, "keep"), (1, "remove")), STORE)


@given(st.lists(st.sampled_from([-1, 0, 5]), min_size=1), st.data())
def test_only_decided_rows_change(labels, data):
    labels = np.array(labels)
    shall = data.draw(
        st.dictionaries(st.integers(0, len(labels) - 1), st.sampled_from([None, *map(str, set(labels))]))
    )
    made = [Decision(row, None, "", "confirm", label) for row, label in shall.items()]
    before = labels.copy()
    after, kept = decided(labels, made)
    assert np.array_equal(labels, before)
    assert after.dtype == labels.dtype
    assert [row for row in range(len(labels)) if not kept[row]] == sorted(
        row for row in shall if shall[row] is None
    )
    for row, label in enumerate(after):
        assert str(label) == (shall.get(row) or str(before[row]))


def test_a_missing_label_is_no_class():
    labels = np.array(["b", None, "a", float("nan"), "b"], dtype=object)
    assert class_of(labels) == {"a": "a", "b": "b"}
    after, kept = decided(labels, [Decision(0, None, "b", "relabel", "a")])
    assert after[:3].tolist() == ["a", None, "a"]
    assert kept.all()


def test_a_row_without_a_label_has_none_to_keep(saved):
    store = store_of(np.array(["a", None, "b"], dtype=object))
    with pytest.raises(InputError, match="must have the given label 'None' as label, to keep, got 'None'"):
        read_decisions(saved(store, (1, "keep")), store)


def test_the_tally_counts_what_becomes_of_rows(saved):
    path = saved(STORE, (0, "confirm", "2"), (1, "confirm"), (2, "keep"), (3, "relabel", "1"))
    assert tally(read_decisions(path, STORE)) == "4 rows: 1 relabelled, 1 removed, 2 kept"
