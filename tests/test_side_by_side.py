"""`make test` runs every test once, and fails where any part of it does."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SCRIPT = runpy.run_path(str(TESTS / "side_by_side.py"))
SUITES, arguments_of, run = SCRIPT["SUITES"], SCRIPT["arguments_of"], SCRIPT["run"]


def is_in(path, folders):
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def test_every_file_of_tests_is_in_one_part_of_one_suite():
    for file in TESTS.rglob("test_*.py"):
        path = file.relative_to(TESTS.parent).as_posix()
        having = []
        for suite, parts in SUITES.items():
            for part in parts:
                options = arguments_of(part)
                ignored = [option.removeprefix("--ignore=") for option in options if option.startswith("--")]
                if is_in(path, set(options) - set(ignored)) and not is_in(path, ignored):
                    having.append(suite)
        assert having == ["parity" if is_in(path, ["tests/parity", "tests/conformance"]) else "test"], path


def test_all_that_is_named_exists():
    assert all((TESTS.parent / path).exists() for parts in SUITES.values() for part in parts for path in part)


@pytest.fixture
def files(tmp_path):
    """A folder with a test that passes, one that fails, and a file without any."""
    (tmp_path / "good.py").write_text("def test_good(): pass\n")
    (tmp_path / "bad.py").write_text("def test_bad(): assert 1 + 1 == 3\n")
    (tmp_path / "none.py").write_text("")
    return tmp_path


def parts_of(files, *names):
    return {name: [str(files / f"{name}.py"), "-q", "-p", "no:cacheprovider", f"--rootdir={files}"] for name in names}


@pytest.mark.parametrize(
    ("names", "failed", "said"),
    [
        (["good"], 0, ["good: 1 passed"]),
        (["bad", "good"], 1, ["assert (1 + 1) == 3", "bad: 1 failed", "(exit code 1)", "good: 1 passed"]),
        (["good", "none"], 1, ["none: no tests ran", "(exit code 5)"]),
    ],
)
def test_a_part_that_fails_or_finds_nothing_is_a_failure_and_is_shown(files, names, failed, said, capsys):
    assert run(parts_of(files, *names), at_once=2) == failed
    printed = capsys.readouterr().out
    assert all(text in printed for text in said), printed


def test_what_breaks_it_off_ends_the_parts(files, capsys, monkeypatch):
    (files / "slow.py").write_text("import time\ndef test_slow(): time.sleep(60)\n")
    started = []

    class Seen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Seen)
    monkeypatch.setattr("time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(parts_of(files, "slow"), at_once=1)
    assert [process.poll() is not None for process in started] == [True]
    assert "slow, broken off" in capsys.readouterr().out


def test_the_command_fails_if_a_part_does():
    done = subprocess.run(
        [sys.executable, str(TESTS / "side_by_side.py"), "parity", "--no-such-option"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"{len(SUITES['parity'])} of {len(SUITES['parity'])} parts failed" in done.stdout
