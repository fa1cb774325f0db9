"""safetensors: arrays come back as they were, the files are the library's, and what is no whole file is named."""

import hashlib

import numpy as np
import pytest
import safetensors.numpy

from tinyllm.errors import UserError
from tinyllm.formats.arrays import DTYPES, read_arrays, write_arrays

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


@pytest.mark.parametrize("metadata", [None, {"said": 'the sea, "again"; é'}])
def test_the_file_is_the_one_that_the_library_writes(tmp_path, metadata):
    arrays = {f"é {name[::-1]}": np.arange(3).astype(name) for name in DTYPES if name != "bfloat16"} | ARRAYS
    digest = write_arrays(tmp_path / "x", arrays, metadata)
    data = (tmp_path / "x").read_bytes()
    assert data == safetensors.numpy.save(arrays, metadata=metadata)
    assert digest == hashlib.sha256(data).hexdigest()


def test_other_bytes_in_memory_are_the_same_bytes_in_the_file(tmp_path):
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in ARRAYS.items()}
    assert write_arrays(tmp_path / "x", swapped) == write_arrays(tmp_path / "y", ARRAYS)
    with pytest.raises(TypeError, match="holds no complex64; convert the array to one of uint64, "):
        write_arrays(tmp_path / "z", {"a": np.ones(2, np.complex64)})


def test_large_arrays_are_written_piece_by_piece(tmp_path, monkeypatch):
    array = np.arange(1000.0)
    whole = write_arrays(tmp_path / "x", {"a": array})
    monkeypatch.setattr("tinyllm.formats.arrays.PIECE", 999)
    assert write_arrays(tmp_path / "y", {"a": array}) == whole
    assert (tmp_path / "y").read_bytes() == (tmp_path / "x").read_bytes()


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
