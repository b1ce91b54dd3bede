"""A folder of photos, for the tests of all that takes one."""

import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """Two classes with two images each."""
    for name, color in (
        ("red/b.png", "red"),
        ("red/a.png", "red"),
        ("blue/2.png", "blue"),
        ("blue/10.png", "blue"),
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), color).save(path)
    return tmp_path / "photos"
