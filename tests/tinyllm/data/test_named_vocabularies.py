import pytest

from tinyllm.data import named_vocabularies
from tinyllm.data.named_vocabularies import VOCABULARIES, find_vocabulary, named_tokenizer
from tinyllm.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYLLM_REFERENCE", raising=False)
    monkeypatch.setenv("TINYLLM_CACHE", str(tmp_path))
    return tmp_path


def test_absent_until_it_is_asked_for(cache, monkeypatch):
    assert find_vocabulary("gpt2") is None
    asked = []
    monkeypatch.setattr(named_vocabularies, "download", lambda *words: asked.append(words))
    with pytest.raises(UserError, match="does not exist"):  # nothing was really downloaded
        named_tokenizer("gpt2")
    ((url, path, sha256, _),) = asked
    assert (url, path) == (VOCABULARIES["gpt2"].url, cache / "r50k_base.tiktoken")
    assert sha256 == VOCABULARIES["gpt2"].sha256


def test_another_file_of_that_name_is_refused(cache):
    (cache / "r50k_base.tiktoken").write_text("IQ== 0\n", encoding="utf-8")
    with pytest.raises(UserError, match="is not the published vocabulary"):
        named_tokenizer("gpt2")


def test_the_reference_folder_goes_first(cache, tmp_path, monkeypatch):
    for folder in (cache, tmp_path / "reference/tokenizers/tiktoken"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cl100k_base.tiktoken").touch()
    monkeypatch.setenv("TINYLLM_REFERENCE", str(tmp_path / "reference"))
    assert find_vocabulary("gpt4") == tmp_path / "reference/tokenizers/tiktoken/cl100k_base.tiktoken"
