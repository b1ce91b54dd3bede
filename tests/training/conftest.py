"""What the tests of the training command share."""

import numpy as np
import pytest


@pytest.fixture
def npz(tmp_path, blobs):
    """Rows with wrong labels, and the right labels beside them."""
    np.savez(tmp_path / "rows.npz", X=blobs.X, y=blobs.y)
    np.save(tmp_path / "truth.npy", blobs.truth)
    return tmp_path / "rows.npz"
