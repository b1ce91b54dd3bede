"""Rows by index, batches, and statistics."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter import batches
from noisefilter.batches import (
    ArrayRows,
    LazyRows,
    choose_device,
    count_batches,
    first_row,
    gathered,
    in_blocks,
    in_order,
    picked,
    shuffled,
    statistics,
)
from noisefilter.errors import ParameterError

CPU = torch.device("cpu")


def test_every_count_of_rows_and_batch_size():
    for n in range(1, 70):
        for batch_size in (1, 2, 5, 8, 9, 16, 64, 100):
            batches = shuffled(n, batch_size, torch.Generator().manual_seed(n))
            assert len(batches) == count_batches(n, batch_size), (n, batch_size)
            assert sorted(torch.cat(batches).tolist()) == list(range(n))
            sizes = [len(batch) for batch in batches]
            assert all(size == batch_size for size in sizes[:-1])
            if n >= batch_size:
                assert min(8, batch_size) <= sizes[-1] < batch_size + 8, (n, batch_size)


def test_gathered_is_what_concatenating_gives():
    whole = torch.randn(10, 3), torch.arange(20).reshape(10, 2), torch.randn(10)
    batches = (tuple(part[index] for part in whole) for index in in_order(ArrayRows(whole[0]), 4))
    for array, part in zip(gathered(batches, 10), whole, strict=True):
        assert array.dtype == part.numpy().dtype
        np.testing.assert_array_equal(array, part.numpy())


def test_a_short_last_batch_joins_the_one_before():
    assert [len(b) for b in shuffled(39, 16, torch.Generator())] == [16, 23]
    assert [len(b) for b in shuffled(40, 16, torch.Generator())] == [16, 16, 8]


def test_order_comes_from_the_generator_alone():
    a, b, c = (torch.cat(shuffled(50, 16, torch.Generator().manual_seed(s))) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(a, torch.arange(50))


def test_in_order():
    rows = ArrayRows(torch.zeros(10, 2))
    assert [i.tolist() for i in in_order(rows, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_images_are_seen_channels_first_and_lie_channels_last():
    data = torch.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    rows = ArrayRows(data, images=True)
    assert rows.shape == (3, 4, 5)
    batch = rows.take(torch.tensor([1]))
    assert batch.shape == (1, 3, 4, 5)
    assert batch[0, 2, 3, 1] == data[1, 3, 1, 2]
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_lazy_rows_read_what_a_batch_asks_for():
    data, asked = np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3), []

    def read(index):
        asked.append(index.tolist())
        return data[index]

    rows = LazyRows(read, 5, True, CPU)
    del asked[:]
    assert (len(rows), rows.shape) == (5, (3, 2, 2))
    assert torch.equal(
        rows.take(torch.tensor([4, 1])), ArrayRows(torch.from_numpy(data), True).take(torch.tensor([4, 1]))
    )
    assert asked == [[4, 1]]


def test_picked_rows_repeat_without_a_copy():
    rows = ArrayRows(torch.arange(10.0).reshape(5, 2))
    some = picked(picked(rows, np.array([3, 3, 0])), np.array([2, 1]))
    assert (len(some), some.shape, some.device) == (2, (2,), CPU)
    assert some.take(torch.tensor([0, 1])).tolist() == [[0, 1], [6, 7]]
    assert torch.equal(pickle.loads(pickle.dumps(some)).take(torch.tensor([1])), some.take(torch.tensor([1])))


@pytest.mark.parametrize("lazy", [False, True])
def test_the_first_row_is_a_copy_of_the_same_shape(lazy):
    data = np.arange(120, dtype=np.uint8).reshape(5, 2, 4, 3)
    rows = LazyRows(data.__getitem__, 5, True, CPU) if lazy else ArrayRows(torch.from_numpy(data), True)
    kept = first_row(rows)
    first = kept.take(torch.tensor([0]))
    assert (len(kept), kept.shape, first.dtype) == (1, (3, 2, 4), torch.uint8)
    assert torch.equal(first, rows.take(torch.tensor([0])))
    data[0] = 0
    assert kept.take(torch.tensor([0])).any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA device at hand")
def test_rows_of_a_device_that_is_not_at_hand_are_unpickled_to_the_cpu():
    data = np.arange(10.0).reshape(5, 2)
    for rows in (ArrayRows(torch.from_numpy(data)), LazyRows(data.__getitem__, 5, False, CPU)):
        rows.device = torch.device("cuda:0")
        loaded = pickle.loads(pickle.dumps(rows))
        assert loaded.device == CPU and loaded.take(torch.tensor([4])).tolist() == [[8, 9]]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 10), st.sampled_from([0.0, 1e3, -1e8]))
def test_statistics_of_columns(n, batch_size, offset):
    data = np.random.default_rng(n).normal(size=(n, 3)) * [1, 100, 0] + offset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_BLOCK_ROWS", batch_size)
        mean, deviation = statistics(ArrayRows(torch.from_numpy(data)))
    assert mean.dtype == deviation.dtype == torch.float64
    np.testing.assert_allclose(mean, data.mean(axis=0), rtol=1e-14, atol=1e-12)
    np.testing.assert_allclose(deviation, data.std(axis=0), rtol=1e-6, atol=1e-7 if offset else 1e-14)


def test_blocks_of_wide_rows_have_fewer(monkeypatch):
    monkeypatch.setattr(batches, "_BLOCK_VALUES", 12)
    lengths = {
        shape: [len(block) for block in in_blocks(ArrayRows(torch.zeros(7, *shape), images=len(shape) == 3))]
        for shape in [(2,), (4,), (2, 2, 1), (13,)]
    }
    assert lengths == {(2,): [6, 1], (4,): [3, 3, 1], (2, 2, 1): [3, 3, 1], (13,): [1] * 7}
    monkeypatch.setattr(batches, "_BLOCK_ROWS", 5)
    assert [len(block) for block in in_blocks(ArrayRows(torch.zeros(7, 2)))] == [5, 2]


def test_statistics_of_channels(monkeypatch):
    monkeypatch.setattr(batches, "_BLOCK_ROWS", 3)
    data = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3)).astype(np.uint8)
    mean, deviation = statistics(ArrayRows(torch.from_numpy(data), images=True))
    np.testing.assert_allclose(mean, data.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(deviation, data.std(axis=(0, 1, 2)))


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ParameterError, match="device must be 'auto' or a device that torch has"):
        choose_device("gpu")
