import hashlib
import io
import urllib.error

import pytest

from tinyllm.data import load_corpus, named_texts
from tinyllm.data.named_texts import cache_folder, download
from tinyllm.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, no reference folder, no network."""

    def offline(*_, **__):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.delenv("TINYLLM_REFERENCE", raising=False)
    monkeypatch.setenv("TINYLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(named_texts.urllib.request, "urlopen", offline)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_shakespeare_without_a_network_tells_the_steps(cache):
    with pytest.raises(UserError, match=r"could not be downloaded .*no network") as caught:
        load_corpus("shakespeare")
    assert str(cache / "tinyshakespeare.txt") in str(caught.value)
    assert named_texts.SHAKESPEARE.url in str(caught.value)
    assert not any(cache.iterdir())


def test_tinystories_is_never_downloaded_because_its_hash_is_not_known(cache):
    with pytest.raises(UserError, match="not downloaded by itself; download https") as caught:
        load_corpus("tinystories")
    assert str(cache / "TinyStoriesV2-GPT4-valid.txt") in str(caught.value)


def test_the_reference_folder_goes_before_the_cache(cache, tmp_path, monkeypatch):
    (cache / "tinyshakespeare.txt").write_text("cached")
    assert load_corpus("shakespeare").documents == ["cached"]
    (tmp_path / "reference" / "text").mkdir(parents=True)
    (tmp_path / "reference" / "text" / "tinyshakespeare.txt").write_text("reference")
    monkeypatch.setenv("TINYLLM_REFERENCE", str(tmp_path / "reference"))
    assert load_corpus("shakespeare").documents == ["reference"]


def test_a_sample_says_that_it_is_one(cache):
    (cache / "tinystories_2MB.txt").write_text("Once.\n<|endoftext|>\nTwice.")
    assert "a 2 MB sample" in load_corpus("tinystories").describe()
    (cache / "TinyStoriesV2-GPT4-valid.txt").write_text("The whole.")
    assert "sample" not in load_corpus("tinystories").describe()


class Response(io.BytesIO):
    """What urlopen returns."""

    headers = {"Content-Length": "5"}  # noqa: RUF012


def test_a_download_is_checked_before_it_gets_its_name(cache, monkeypatch):
    monkeypatch.setattr(named_texts.urllib.request, "urlopen", lambda url, timeout: Response(b"hello"))
    seen = []
    with pytest.raises(UserError, match="sent 5 bytes with sha256 2cf24dba5fb0…, expected 000000000000…"):
        download("https://example.org/x", cache / "x.txt", "0" * 64)
    assert not any(cache.iterdir())
    right = hashlib.sha256(b"hello").hexdigest()
    download("https://example.org/x", cache / "x.txt", right, lambda done, size: seen.append((done, size)))
    assert (cache / "x.txt").read_bytes() == b"hello"
    assert seen == [(5, 5)]


def test_a_download_that_breaks_off_leaves_nothing(cache, monkeypatch):
    class Broken(Response):
        def read(self, size):
            raise TimeoutError("timed out")

    monkeypatch.setattr(named_texts.urllib.request, "urlopen", lambda url, timeout: Broken())
    with pytest.raises(UserError, match=r"could not be downloaded \(timed out\); download https"):
        load_corpus("shakespeare")
    assert not any(cache.iterdir())


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_platform_has_a_cache_folder(platform, monkeypatch):
    monkeypatch.delenv("TINYLLM_CACHE", raising=False)
    monkeypatch.setattr(named_texts.sys, "platform", platform)
    assert cache_folder().name == "tinyllm"
