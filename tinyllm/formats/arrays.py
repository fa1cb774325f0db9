"""safetensors files: named arrays, nothing executable."""

from pathlib import Path

import numpy as np

from tinyllm.errors import UserError
from tinyllm.files import atomic_write


def write_arrays(path, arrays, metadata=None):
    """Write dict name -> array (NumPy or CuPy), atomically. metadata: dict of str."""
    import safetensors.numpy

    host = {name: np.ascontiguousarray(a.get() if hasattr(a, "get") else a) for name, a in arrays.items()}
    data = safetensors.numpy.save(host, metadata=metadata)
    with atomic_write(path) as file:
        file.write(data)


def read_arrays(path):
    """dict name -> NumPy array. A damaged or foreign file raises UserError."""
    import safetensors
    import safetensors.numpy

    try:
        return safetensors.numpy.load(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}); it was damaged or cut off") from None
