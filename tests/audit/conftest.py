"""What the tests of an audit share."""

import json
import os

import pytest


@pytest.fixture
def saved(tmp_path):
    """Write a decisions file as the page does; the changes are for what is wrong about it."""

    def saved(store, *entries, path=None, **changes):
        """Save entries of (row, action) or (row, action, label)."""
        decisions = []
        for row, action, *label in entries:
            given = str(store.labels[row])
            file = None if store.names is None else store.names[row]
            kept = label[0] if label else given if action == "keep" else None
            decisions.append({"row": row, "file": file, "given": given, "action": action, "label": kept})
        content = {
            "made_by": "noisefilter report",
            "format": 1,
            "fingerprint": store.fingerprint,
            "rows": len(store),
            "description": store.description,
            "decisions": decisions,
        }
        path = path or tmp_path / "decisions.json"
        path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
        return path

    return saved


@pytest.fixture
def tree():
    """List all that is below a folder."""

    def tree(root):
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))

    return tree


@pytest.fixture
def full_disk(monkeypatch):
    """Let the store of a class fail after it has begun to write."""

    def full_disk(store_class):
        write = store_class.write

        def broken(self, out, rows, labels):
            write(self, out, rows, labels)
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(store_class, "write", broken)

    return full_disk
