import os

import pytest

from tinyllm.data.text_files import find_files, read_all, read_documents
from tinyllm.errors import UserError


def test_a_folder_is_walked_in_sorted_order_without_hidden_files(tmp_path):
    for name in ["b.txt", "a/z.txt", "a/.hidden", ".git/config", "c.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [path.relative_to(tmp_path).as_posix() for path in find_files(str(tmp_path))] == [
        *("b.txt", "c.txt"),
        "a/z.txt",
    ]


def test_a_glob_takes_files_and_folders_once_each(tmp_path):
    (tmp_path / "in ner").mkdir()
    for name in ["1.txt", "2.md", "in ner/3.txt"]:
        (tmp_path / name).write_text(name)
    assert read_all(find_files(f"{tmp_path}/*.txt")) == (["1.txt"], 0)
    assert sorted(read_all(find_files(f"{tmp_path}/**"))[0]) == ["1.txt", "2.md", "in ner/3.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    (tmp_path / "[draft].txt").write_text("text")
    assert read_all(find_files(f"{tmp_path}/[draft].txt")) == (["text"], 0)


def test_the_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "notes.txt").write_text("text")
    assert find_files("~/notes.txt") == [tmp_path / "notes.txt"]


def test_a_byte_order_mark_is_not_text(tmp_path):
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbftext")
    assert read_documents(tmp_path / "bom.txt") == ["text"]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no files"):
        find_files(str(tmp_path))


def test_a_pattern_without_a_match_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no file matches the pattern .*\*\.txt"):
        find_files(f"{tmp_path}/*.txt")


def test_text_that_is_not_utf8_is_named_with_its_offset(tmp_path):
    (tmp_path / "old.txt").write_bytes(b"Stra" + b"\xdfe")
    with pytest.raises(UserError, match=r"old\.txt is not UTF-8: byte 0xdf at offset 4; convert it"):
        read_documents(tmp_path / "old.txt")


def test_a_single_binary_file_is_an_error(tmp_path):
    (tmp_path / "data.txt").write_bytes("text".encode("utf-16"))
    with pytest.raises(UserError, match=r"data\.txt is binary or UTF-16"):
        read_documents(tmp_path / "data.txt")


def test_an_unreadable_file_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "secret.txt"
    path.write_text("text")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root, and Windows, read it all the same

        def refuse(self):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(UserError, match=r"secret\.txt cannot be read \(Permission denied\); check its permissions"):
        read_documents(path)
