"""What the tests of the training command share."""

import numpy as np
import pytest

from noisefilter.cli import main


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line; return its exit code, what it printed and what it complained about."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def npz(tmp_path, blobs):
    """Rows with wrong labels, and the right labels beside them."""
    np.savez(tmp_path / "rows.npz", X=blobs.X, y=blobs.y)
    np.save(tmp_path / "truth.npy", blobs.truth)
    return tmp_path / "rows.npz"
