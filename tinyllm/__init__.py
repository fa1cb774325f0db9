"""A language model built from arrays up, on the autograd engine next door.

    from tinyllm.tokenizers import BPETokenizer
    from tinyllm.models import Decoder, gpt2
    from tinyllm import load, save

Rooms are imported when they are first used, so `import tinyllm` costs nothing.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (a checkout on the path meets any Python)
    raise ImportError(f"tinyllm needs Python 3.11 or newer, and this is {sys.version.split()[0]}; use a newer one")

__version__ = "0.1.0"

_ROOMS = (
    "alignment", "commands", "data", "evaluation", "formats", "generation", "models", "quantization", "serving",
    "tokenizers", "training",
)  # fmt: skip
_NAMES = {"load": "tinyllm.formats", "save": "tinyllm.formats"}  # name here -> the module that has it

__all__ = ["__version__", "load", "save"]


def __getattr__(name):
    """Import rooms and `_NAMES` on first use (PEP 562)."""
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _ROOMS and importlib.util.find_spec(f"tinyllm.{name}"):
        value = importlib.import_module(f"tinyllm.{name}")
    else:
        raise AttributeError(f"module 'tinyllm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_NAMES, *_ROOMS})


def _check_autograd():
    """ImportError unless the `autograd` that Python finds is ours, and ours alone.

    HIPS publishes another package of the same name. It may be found instead of ours, or both may have been installed
    into one folder, where the files of the later one lie over those of the earlier. Looks at files only: importing a
    mixture could do anything.
    """
    try:
        spec = importlib.util.find_spec("autograd")
    except ValueError:  # already imported, by something that left no spec
        spec = None
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    # Uninstalling theirs takes our __init__.py along where both lay in one folder.
    ours = any((folder / "engine.py").is_file() and (folder / "__init__.py").is_file() for folder in folders)
    theirs = any((folder / "tracer.py").exists() or (folder / "numpy" / "__init__.py").exists() for folder in folders)
    if ours and not theirs:
        return
    found = (
        f"the one in {folders[0]} is HIPS'" if theirs else "it is missing, incomplete, or another package has its name"
    )
    raise ImportError(
        f"tinyllm needs its own package `autograd`, but {found}: run `python -m pip uninstall --yes autograd`, then "
        "install tinyllm again (in its folder: `python -m pip install --force-reinstall --no-deps .`)"
    )


_check_autograd()
