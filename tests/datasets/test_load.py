"""Whatever a source names is found, and what holds for every store."""

from pathlib import Path

import pytest

from noisefilter.datasets import load
from noisefilter.errors import InputError, ParameterError


@pytest.mark.parametrize("source", ["nonsense", "photos.zip", "missing/"])
def test_an_unknown_source_lists_what_is_possible(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos.zip").touch()
    with pytest.raises(InputError, match=r"digits, an \.npz file, a folder .*, got '") as caught:
        load(source)
    assert ("does not exist" in str(caught.value)) == (source != "photos.zip")


def test_an_option_of_another_source_is_refused(photos):
    with pytest.raises(
        ParameterError, match=r"image_size must be left out for the source 'digits', got 64\."
    ):
        load("digits", image_size=64)
    with pytest.raises(ParameterError, match="x_key must be left out"):
        load(photos, x_key="data")


def test_verbose_is_for_sources_that_take_long(photos, capsys, monkeypatch):
    monkeypatch.setattr("noisefilter.progress._QUIET_BELOW", 0.0)
    load("digits", verbose=True)
    assert capsys.readouterr().err == ""
    load(photos, verbose=True)
    assert "reading 4 images" in capsys.readouterr().err
    load(photos)
    assert capsys.readouterr().err == ""
