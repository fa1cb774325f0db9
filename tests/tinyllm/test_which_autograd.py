"""`import tinyllm` refuses to start with HIPS' package of the name `autograd`, alone or mixed with ours."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CURE = "python -m pip uninstall --yes autograd"


def import_tinyllm(site):
    """What happens on `import tinyllm` where `site` holds it; (exit code, last line of standard error)."""
    (site / "tinyllm").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tinyllm" / "__init__.py", site / "tinyllm")
    # -S: no site-packages, so that only what lies in `site` can be found.
    program = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(site)!r}); import tinyllm"]
    done = subprocess.run(program, cwd=site, capture_output=True, text=True)
    return done.returncode, done.stderr.strip().split("\n")[-1]


def write(folder, *names):
    """Make empty files, with their folders."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


OURS = ("autograd/__init__.py", "autograd/engine.py")
HIPS = ("autograd/__init__.py", "autograd/tracer.py", "autograd/core.py", "autograd/numpy/__init__.py")


def test_ours_alone_is_taken(tmp_path):
    write(tmp_path, *OURS)
    assert import_tinyllm(tmp_path) == (0, "")
    assert all((ROOT / name).is_file() for name in OURS)  # the file that the check looks for is really there
    assert not any((ROOT / name).exists() for name in HIPS[1:])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (HIPS, "is HIPS'"),
        ((*OURS, *HIPS), "is HIPS'"),
        ((*OURS, "autograd/numpy/__init__.py"), "is HIPS'"),
        (OURS[1:], "incomplete"),
        (("autograd.py",), "another package has its name"),
        ((), "missing"),
    ],
    ids=["HIPS", "both mixed", "theirs half removed", "ours half removed", "a file of the name", "none"],
)
def test_anything_else_is_refused_in_one_line_with_the_cure(tmp_path, files, reason):
    write(tmp_path, *files)
    code, line = import_tinyllm(tmp_path)
    assert code == 1
    assert line.startswith("ImportError: ")
    assert reason in line
    assert CURE in line
