import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data import TokenFile, write_tokens
from tinyllm.data.token_files import HEADER_BYTES, MAGIC
from tinyllm.errors import UserError

VOCABULARY = "ab" * 32


@pytest.fixture
def path(tmp_path):
    """A token file of the ids 0 .. 99."""
    write_tokens(tmp_path / "a.tokens", np.arange(100), vocabulary_hash=VOCABULARY, vocab_size=100, num_bytes=321)
    return tmp_path / "a.tokens"


def rewrite_header(path, **changes):
    """Change fields of the header; None removes one."""
    data = path.read_bytes()
    header = json.loads(data[len(MAGIC) : HEADER_BYTES]) | changes
    header = {name: value for name, value in header.items() if value is not None}
    path.write_bytes((MAGIC + json.dumps(header).encode()).ljust(HEADER_BYTES) + data[HEADER_BYTES:])


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(2, "<u2"), (1 << 16, "<u2"), ((1 << 16) + 1, "<u4"), (1 << 31, "<u4")]
)
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(0, 50), min_size=1).filter(any))
def test_what_was_written_is_read(tmp_path_factory, vocab_size, dtype, seed, sizes):
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(vocab_size, size=size) for size in sizes]
    path = tmp_path_factory.getbasetemp() / "round.tokens"
    written = write_tokens(path, iter(arrays), vocabulary_hash=VOCABULARY, vocab_size=vocab_size, num_bytes=7)
    read = TokenFile.open(path, VOCABULARY)
    assert np.array_equal(read.tokens, np.concatenate(arrays))
    assert (read.tokens.dtype, read.count, read.num_bytes) == (np.dtype(dtype), sum(sizes), 7)
    assert read.sha256 == written.sha256


def test_the_largest_id_of_each_width_survives(tmp_path):
    for vocab_size in (1 << 16, 1 << 32):
        ids = np.array([0, vocab_size - 1])
        assert np.array_equal(
            write_tokens(tmp_path / "x", ids, vocabulary_hash=VOCABULARY, vocab_size=vocab_size, num_bytes=1).tokens,
            ids,
        )


def test_tokens_are_mapped_aligned_and_read_only(path):
    tokens = TokenFile.open(path).tokens
    assert isinstance(tokens, np.memmap)
    assert HEADER_BYTES % 64 == 0
    assert path.stat().st_size == HEADER_BYTES + 200
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_another_tokenizers_file_is_refused_with_both_hashes(path):
    with pytest.raises(UserError, match=r"another tokenizer: .* abababababab…, the model's is cdcdcdcdcdcd…; prepare"):
        TokenFile.open(path, "cd" * 32)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read .*No such file.*prepare the data first"):
        TokenFile.open(tmp_path / "none.tokens")


def test_a_foreign_file_is_refused(path):
    path.write_bytes(b"PK\3\4 something else")
    with pytest.raises(UserError, match="is not a token file of tinyllm"):
        TokenFile.open(path)


@pytest.mark.parametrize("size", [HEADER_BYTES + 199, HEADER_BYTES + 198, HEADER_BYTES])
def test_a_file_cut_short_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=f"cut short or damaged: {size} bytes, expected 712"):
        TokenFile.open(path, verify=False)


def test_a_file_that_grew_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(UserError, match="cut short or damaged: 714 bytes, expected 712"):
        TokenFile.open(path, verify=False)


def test_one_wrong_bit_is_found_when_verifying(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="do not have the SHA-256 in its header"):
        TokenFile.open(path)
    assert TokenFile.open(path, verify=False).count == 100


def test_a_newer_format_is_refused_even_with_unknown_fields(path):
    rewrite_header(path, format_version=2, dtype="uint24", count=None)
    with pytest.raises(UserError, match="has format_version 2, this tinyllm reads up to 1; upgrade"):
        TokenFile.open(path)


@pytest.mark.parametrize("changes", [{"count": None}, {"dtype": "float32"}, {"format_version": None}, {"count": "9"}])
def test_a_damaged_header_is_refused(path, changes):
    rewrite_header(path, **changes)
    with pytest.raises(UserError, match="is damaged"):
        TokenFile.open(path)


def test_a_header_cut_in_two_is_refused(path):
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="its header cannot be read"):
        TokenFile.open(path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([5], r"must lie in 0..4; they lie in 5..5"),
        ([-1, 2], "lie in -1..2"),
        ([0.5], "must be integers; they are float"),
    ],
)
def test_ids_that_are_none_are_refused_and_the_old_file_stays(path, ids, message):
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        write_tokens(path, [np.array([1]), np.array(ids)], vocabulary_hash=VOCABULARY, vocab_size=5, num_bytes=1)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.tokens"]


def test_no_tokens_are_an_error(tmp_path):
    with pytest.raises(UserError, match="there are no tokens to write"):
        write_tokens(tmp_path / "x", [], vocabulary_hash=VOCABULARY, vocab_size=5, num_bytes=0)
    assert not any(tmp_path.iterdir())


def test_a_file_of_format_version_1_still_opens(tmp_path):
    """Written by hand, byte for byte, so that a change of the format cannot go unnoticed."""
    header = (
        f'{{"format_version": 1, "vocabulary_hash": "{VOCABULARY}", "dtype": "uint16", "count": 3, "num_bytes": 9, '
        '"sha256": "ac6c78aa52c74a0bf1dc4c1b6eb0d84f1d3e0cdbb0a6cbc1a0f1db4c73e5ef0e"}'
    )
    data = b"tinytok\n" + header.encode().ljust(504) + b"\1\0\2\0\3\1"
    (tmp_path / "old.tokens").write_bytes(data)
    file = TokenFile.open(tmp_path / "old.tokens", VOCABULARY, verify=False)
    assert file.tokens.tolist() == [1, 2, 259]
    assert file.num_bytes == 9
