"""The pages of docs/ are programs: every ```python block runs, and what it prints is what the page shows.

The blocks of a page run in order and share one namespace. If the next block is ```text, it is the output, to the
letter; a block that prints must have one. A block of any other language (```sh, or none) is not run. Failures name the
page and the line.
"""

import contextlib
import difflib
import io
import itertools
import re
import traceback
from pathlib import Path

import numpy as np
import pytest

import autograd as ag

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LOOKS_LIKE_PYTHON = re.compile(r"^[ >]*(?:```+|~~~+) *py", re.MULTILINE | re.IGNORECASE)


def blocks(text):
    """(language, line number of its first line, content) of every fenced block."""
    return [(m[1], text[: m.start(2)].count("\n") + 1, m[2]) for m in FENCE.finditer(text)]


def run_page(page):
    """Run the page; AssertionError "page.md:line: what went wrong" at the first thing that is not true."""
    namespace = {"__name__": page.stem}
    text_of_page = page.read_text(encoding="utf-8")
    found = blocks(text_of_page)
    starts = {line for language, line, _ in found if language == "python"}
    for m in LOOKS_LIKE_PYTHON.finditer(text_of_page):
        line = text_of_page[: m.start()].count("\n") + 1
        assert line + 1 in starts, (
            f"{page.name}:{line}: would not run: write ```python at the start of the line, close it"
        )
    for (language, line, source), (following, text_line, text) in itertools.pairwise([*found, ("", 0, "")]):
        if language != "python":
            continue
        printed = io.StringIO()
        try:
            # Empty lines in front, so that Python counts lines as the page does.
            code = compile("\n" * (line - 1) + source, str(page), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        except Exception as error:
            raise AssertionError(
                f"{page.name}:{line_of(error, page, line)}: {type(error).__name__}: {error}"
            ) from error
        output = strip(printed.getvalue())
        if following == "text":
            assert output == strip(text), f"{page.name}:{text_line}: the page shows other output\n{diff(text, output)}"
        else:
            assert not output, f"{page.name}:{line}: this block prints, but no ```text block follows\n{output}"


def line_of(error, page, otherwise):
    """The page's line that raised: the innermost frame that is the page's own."""
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(page)]
    return lines[-1] if lines else otherwise


def strip(text):
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def diff(shown, printed):
    return "\n".join(
        difflib.unified_diff(strip(shown).splitlines(), printed.splitlines(), "page", "printed", lineterm="")
    )


@pytest.fixture
def undisturbed(tmp_path, monkeypatch):
    """A page may set print options, define ops and write files; the next test sees none of it."""
    monkeypatch.chdir(tmp_path)
    before = dict(ag.PRIMITIVES)
    with np.printoptions():
        yield
    ag.PRIMITIVES.clear()
    ag.PRIMITIVES.update(before)


@pytest.mark.parametrize("page", [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))], ids=str)
def test_page(page, undisturbed):
    run_page(page)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("# Title\n```python\nx = 1\n```\ntext\n```python\nassert x == 2, 'two'\n```\n", r"page\.md:7: .*two"),
        ("```python\ndef f():\n    return 1 / 0\n```\n\n```python\nf()\n```\n", r"page\.md:3: ZeroDivisionError"),
        ("```python\nx = 1\nx = = 2\n```\n", r"page\.md:3: SyntaxError"),
        ("```python\nprint(2 + 2)\n```\nwhich is\n```text\n5\n```\n", r"(?s)page\.md:6: .*-5.*\+4"),
        ("```python\nprint(2 + 2)\n```\n", r"page\.md:2: this block prints"),
        ("1. A list:\n   ```python\n   x = 1\n   ```\n", r"page\.md:2: would not run"),
        ("```py\nx = 1\n```\n", r"page\.md:1: would not run"),
        ("```python\nx = 1\n", r"page\.md:1: would not run"),
        ("```python\nx = 1\n```\n```text\n1\n```\n", r"page\.md:5: the page shows other output"),
    ],
    ids=[
        "assertion",
        "exception",
        "syntax",
        "other output",
        "output not shown",
        "indented",
        "py",
        "never closed",
        "nothing printed",
    ],
)
def test_a_page_can_fail(page, message, tmp_path, undisturbed):
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    with pytest.raises(AssertionError, match=message):
        run_page(tmp_path / "page.md")


def test_other_languages_do_not_run(tmp_path, undisturbed):
    (tmp_path / "page.md").write_text("```sh\nrm x\n```\n```\n1 / 0\n```\n```text\n7\n```\n", encoding="utf-8")
    run_page(tmp_path / "page.md")
