"""The front door: version, rooms on first use."""

import importlib.metadata

import pytest

import tinyllm


def test_version_is_the_installed_one():
    assert importlib.metadata.version("tinyllm") == tinyllm.__version__


def test_rooms_come_on_first_use():
    assert callable(tinyllm.data.load_corpus)
    assert {"data", "load", "models", "save"} <= set(dir(tinyllm))


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = tinyllm.lod
