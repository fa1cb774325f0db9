"""safetensors files: named arrays, nothing executable.

    bytes 0..7      N, the size of the header, a little-endian integer
    bytes 8..N+7    JSON, filled up with spaces: name -> dtype, shape and place of its bytes
    bytes N+8..     the arrays' bytes, little-endian, one after the other

Files are written here, piece by piece from the arrays' own memory. The library would first make two copies of it all,
and hold up every other thread of Python while it does. Its bytes are the same; reading is left to it.
"""

import contextlib
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np

from tinyllm.errors import UserError
from tinyllm.files import atomic_write

DTYPES = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32",
    "bfloat16": "BF16", "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""NumPy's name of a dtype -> the file's. Arrays lie in this order, so that each begins at a multiple of its items."""

PIECE = 2**24  # bytes that are written and hashed at a time


def write_arrays(path, arrays, metadata=None):
    """Write dict name -> array (NumPy or CuPy), atomically. metadata: dict of str. Returns the file's SHA-256."""
    host = {name: little_endian(on_host(array)) for name, array in arrays.items()}
    ordered = sorted(host, key=lambda name: ([*DTYPES].index(host[name].dtype.name), name))
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for name in ordered:
        array = host[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with atomic_write(path) as file:
        for data in (len(text).to_bytes(8, "little") + text, *(host[name].reshape(-1) for name in ordered)):
            whole = memoryview(data) if isinstance(data, bytes) else memoryview(data.view(np.uint8))
            for start in range(0, len(whole), PIECE):
                piece = whole[start : start + PIECE]
                file.write(piece)
                digest.update(piece)
    return digest.hexdigest()


def on_host(array):
    """A NumPy array of what may be one of CuPy's."""
    return array.get() if hasattr(array, "get") else array


def little_endian(array):
    """The array in row-major order and little-endian, itself if it is so already."""
    array = np.asarray(array, order="C")
    if array.dtype.name not in DTYPES:
        raise TypeError(f"a safetensors file holds no {array.dtype}; convert the array to one of {', '.join(DTYPES)}")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def read_arrays(path):
    """dict name -> NumPy array. A damaged or foreign file raises UserError."""
    with readable(path):
        import safetensors.numpy

        return safetensors.numpy.load(Path(path).read_bytes())


def sizes_in(paths):
    """dict name -> how many numbers lie under it in these files together. They hold flat arrays."""
    sizes = Counter()
    for path in paths:
        with opened(path) as file:
            sizes.update({name: file.get_slice(name).get_shape()[0] for name in file.keys()})  # noqa: SIM118
    return dict(sizes)


def read_stretches(paths, stretches):
    """What lies under some names in flat arrays that go on from file to file, from one place to another.

    stretches: dict name -> (start, stop), counted from the begin of the first file's array. Nothing else is read.
    """
    pieces, begins = {name: [] for name in stretches}, dict.fromkeys(stretches, 0)
    for path in paths:
        with opened(path) as file:
            for name, (start, stop) in stretches.items():
                pieces[name].append(piece(file, name, start - begins[name], stop - begins[name]))
                begins[name] += file.get_slice(name).get_shape()[0]
    return {name: np.concatenate(found) for name, found in pieces.items()}


def piece(file, name, start, stop):
    """What an open file's flat array has from `start` to `stop`, which may lie before its begin and behind its end."""
    stored = file.get_slice(name)
    size = stored.get_shape()[0]
    start, stop = (min(max(at, 0), size) for at in (start, stop))
    if start < stop:
        return stored[start:stop]
    return stored[:0] if size else file.get_tensor(name)  # the library slices nothing that is empty


@contextlib.contextmanager
def opened(path):
    """A safetensors file of which parts are read."""
    with readable(path):
        import safetensors

        with safetensors.safe_open(path, framework="numpy") as file:
            yield file


@contextlib.contextmanager
def readable(path):
    """`with readable(path):` what goes wrong with this safetensors file is said in a UserError."""
    import safetensors

    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}); it was damaged or cut off") from None
