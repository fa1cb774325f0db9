"""Files of models: our run folders, safetensors."""

from tinyllm.formats.run_folders import load, save

__all__ = ["load", "save"]
