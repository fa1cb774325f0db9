"""What the tests of commands share: a tiny run, its text, and the look of a user's mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

import tinyllm
from tinyllm.commands.main import main

TINY_RUN = (
    "pretrain textbook --data text.txt --tokenizer bytes --model.hidden-size 16 --model.num-hidden-layers 1 "
    "--model.num-attention-heads 2 --model.max-position-embeddings 16 --training.batch-size 2 "
    "--training.sample-tokens 5 --training.warmup-steps 1"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, its name with a space, that is the current one; `text.txt` in it is enough to learn from."""
    folder = tmp_path / "a place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(tinyllm.__file__).parents[1]))  # for processes that tests start
    (folder / "text.txt").write_text("The old sailor sat by the sea and told it again. " * 40, encoding="utf-8")
    return folder


@pytest.fixture
def tiny_run():
    """The words of a tiny `tinyllm pretrain` on text.txt into the folder `my run`; a word said again wins."""
    return [*TINY_RUN.split(), "--run", "my run"]


@pytest.fixture
def contents():
    """Call it with a folder: dict relative path -> bytes, None for a folder."""

    def read(folder):
        paths = sorted(folder.rglob("*"))
        return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}

    return read


@pytest.fixture
def refused(here, capsys, contents):
    """Call it with (words, beginning of the message): exit code 2, one line that begins so, not a file changed."""

    def check(words, message):
        capsys.readouterr()
        before = contents(here)
        assert main(words) == 2
        error = capsys.readouterr().err.replace("\\", "/")  # Windows' paths
        assert error.startswith(f"tinyllm: {message}"), error
        assert error.count("\n") == 1
        assert contents(here) == before

    return check


@pytest.fixture
def start(here):
    """Call it with words: `tinyllm WORDS` as a process of its own, in `here`. With code=, Python that runs first."""

    def popen(words, code="", **options):
        program = f"import sys; from tinyllm.commands.main import main\n{code}\nsys.exit(main({list(words)!r}))"
        pipe = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", program], cwd=here, **pipe | {"encoding": "utf-8"} | options)

    return popen
