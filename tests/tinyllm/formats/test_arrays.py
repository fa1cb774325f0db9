"""safetensors: arrays come back as they were, and what is no whole file is named."""

import numpy as np
import pytest

from tinyllm.errors import UserError
from tinyllm.formats.arrays import read_arrays, write_arrays

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5, -2.0]),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "half": np.array([1, 2], np.float16),
}


class OnADevice:
    """Has what a CuPy array has for getting to the host."""

    def __init__(self, array):
        self.array = array

    def get(self):
        return self.array


def test_arrays_come_back_as_they_were(tmp_path):
    write_arrays(tmp_path / "x.safetensors", ARRAYS, metadata={"made": "here"})
    read = read_arrays(tmp_path / "x.safetensors")
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_any_layout_and_device_is_written_as_what_it_means(tmp_path):
    matrix = np.arange(12.0).reshape(3, 4)
    views = {"transposed": matrix.T, "strided": matrix[:, ::2], "device": OnADevice(matrix)}
    write_arrays(tmp_path / "x", views)
    read = read_arrays(tmp_path / "x")
    np.testing.assert_array_equal(read["transposed"], matrix.T)
    np.testing.assert_array_equal(read["strided"], matrix[:, ::2])
    np.testing.assert_array_equal(read["device"], matrix)


def test_a_file_that_is_missing_cut_off_or_foreign(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(UserError, match="x does not exist"):
        read_arrays(path)
    write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:9], whole[:4], b"", b"no tensors at all", whole + b"more"):
        path.write_bytes(data)
        with pytest.raises(UserError, match="x is not a whole safetensors file"):
            read_arrays(path)
