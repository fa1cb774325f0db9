"""Kernels are compiled by a process of their own, kept on disk, and nobody notices."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tinyllm.tokenizers import compiling

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(not compiling.usable(), reason="Numba is not installed, or switched off")

SETUP = """
import sys
from tinyllm.tokenizers import BPETokenizer, bpe_rungs, compiling
bpe_rungs.LARGE_TEXT = 1_000_000
tokenizer = BPETokenizer.train(["the cat and the hat"], vocab_size=260, special_tokens=())
assert "numba" not in sys.modules  # a little text is learned without
large = "the cat and the hat " * 60_000
"""


def run(code, **environment):
    """What a program printed, run with warnings as errors and nothing on its standard error."""
    environment = {name: value for name, value in (os.environ | environment).items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", SETUP + textwrap.dedent(code)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.split()


def home(folder):
    """An environment in which nothing was compiled before."""
    return {"XDG_CACHE_HOME": str(folder), "NUMBA_CACHE_DIR": None, "HOME": str(folder)}


def wait_for_mark(folder):
    """Until what a program left in the background is done."""
    for _ in range(1200):
        if list(folder.rglob("kernels-*[0-9a-f]")):
            return
        time.sleep(0.1)
    raise AssertionError("nothing was compiled")


def test_a_small_text_does_not_wait_and_a_large_one_does(tmp_path):
    first = run(
        """
        print(compiling.kernels_ready())
        tokenizer.encode("the cat")
        print(tokenizer.rung)
        """,
        **home(tmp_path),
    )
    assert first == ["False", "python"]  # and the program ended, without a word of what goes on behind it
    second = run("tokenizer.encode(large); print(tokenizer.rung)", **home(tmp_path))
    wait_for_mark(tmp_path)
    third = run(
        """
        print(compiling.kernels_ready())
        from tinyllm.tokenizers import bpe_kernels
        bpe_kernels.encode.compiled
        print(sum(bpe_kernels.encode.compiled.stats.cache_hits.values()))
        """,
        **home(tmp_path),
    )
    assert second == ["numba"]
    assert third == ["True", "1"]


def test_without_a_folder_to_write_only_large_texts_compile(tmp_path):
    (tmp_path / "file").touch()
    environment = home(tmp_path) | {"XDG_CACHE_HOME": str(tmp_path / "file")}  # where no folder can be made
    printed = run(
        """
        for _ in range(30):
            tokenizer.encode(large[:9000])
        print(tokenizer.rung, compiling.kernels_ready(), compiling.kernels_ready(wait=True))
        """,
        **environment,
    )
    assert printed == ["python", "False", "True"]


def test_a_process_that_fails_is_not_waited_for(tmp_path):
    printed = run(
        """
        start, failing = compiling.subprocess.Popen, [sys.executable, "-c", "raise SystemExit(3)"]
        compiling.subprocess.Popen = lambda command, **options: start(failing, **options)
        print(compiling.kernels_ready(), compiling.kernels_ready(wait=True), compiling.kernels_ready())
        """,
        **home(tmp_path),
    )
    assert printed == ["False", "True", "False"]  # a large text has them compiled here, small ones do without


def test_where_no_process_can_be_started_nobody_waits(tmp_path):
    printed = run(
        """
        def refuse(*arguments, **options):
            raise OSError("no more processes")
        compiling.subprocess.Popen = refuse
        print(compiling.kernels_ready(), compiling.kernels_ready(wait=True))
        """,
        **home(tmp_path),
    )
    assert printed == ["False", "True"]


def test_without_numba_plain_python_answers():
    printed = run(
        """
        sys.modules["numba"] = None
        ids = tokenizer.encode(large)
        print(tokenizer.rung, compiling.kernels_ready(wait=True))
        """
    )
    assert printed == ["python", "False"]


def test_with_the_compiler_switched_off_plain_python_answers():
    printed = run(
        "tokenizer.encode(large); print(tokenizer.rung, compiling.kernels_ready(wait=True))", NUMBA_DISABLE_JIT="1"
    )
    assert printed == ["python", "False"]


def test_the_folder_the_user_chose_for_numba_is_used(tmp_path):
    mine = str(tmp_path / "mine")
    assert run("print(compiling.mark_on_disk().parent)", NUMBA_CACHE_DIR=mine) == [mine]


def test_numba_is_left_as_it_was():
    import numba

    before = numba.config.CACHE_DIR
    assert compiling.kernels_ready(wait=True)
    from tinyllm.tokenizers import bpe_kernels

    _ = bpe_kernels.encode.compiled
    assert before == numba.config.CACHE_DIR


def test_the_compiling_program_says_when_it_has_no_folder(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "tinyllm.tokenizers.compiling"],
        cwd=ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "set NUMBA_CACHE_DIR" in done.stderr
