"""The corpus `python-reference`: the English of Python's own manual, which is on every machine that has Python.

Two sources, both read as text and never run: the topics of `help()` (`pydoc_data`) and the docstrings of the standard
library, taken from its source files with `ast`. Each topic, module, class or function is one document:

    help(json.dumps)

    Serialize obj to a JSON formatted str.

The text is Python's documentation, © Python Software Foundation, PSF licence. It differs between Python versions.
"""

import ast
import os
import re
import sysconfig
from inspect import cleandoc
from pathlib import Path

from tinyllm.errors import UserError

SKIPPED_FOLDERS = {
    *("test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages", "dist-packages"),
    *("pydoc_data", "__pycache__"),
}
# The pure-Python twin of a module written in C holds the docstrings that a reader knows under the public name.
PUBLIC_NAMES = {
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_pydatetime": "datetime",
    "_collections_abc": "collections.abc",
}

LEAST_WORDS = 6
LEAST_PROSE = 0.88
"""Share of a paragraph's characters that must be letters or spaces; tables, grammar and code have fewer."""


def python_reference():
    """The documents of the corpus, in a fixed order: topics first, then modules by name; each text ends in a newline.

    A paragraph that stands in several places (boilerplate, inherited docstrings) is kept where it comes first, and an
    entry left without a paragraph is dropped. Raises UserError where this Python has neither source.
    """
    seen = set()
    documents = []
    for name, text in [*topic_entries(), *docstring_entries(Path(sysconfig.get_path("stdlib")))]:
        fresh = [paragraph for paragraph in dict.fromkeys(paragraphs(text)) if paragraph not in seen]
        seen.update(fresh)
        if fresh:
            documents.append("\n\n".join([f"help({name})", *fresh]) + "\n")
    if not documents:
        raise UserError(
            "the corpus python-reference is made of the manual that comes with Python, and this Python has neither "
            "pydoc_data nor the standard library's source files; install the full Python or pass --data a text file"
        )
    return documents


def topic_entries():
    """(name, text) of every topic of `help()`; none where the distribution leaves `pydoc_data` out."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return []
    return sorted(topics.items())


def docstring_entries(library):
    """(dotted name, docstring) of every public module, class and function under the folder `library`."""
    entries = []
    for path in library_files(library):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # a file in an old encoding, or broken on purpose
            continue
        module = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
        collect(tree, PUBLIC_NAMES.get(module, module), entries)
    return sorted(entries, key=lambda entry: entry[0].lower())  # stable: twins keep the order of their files


def library_files(library):
    """The standard library's Python files in sorted order, without tests, demonstrations and private modules."""
    for folder, folders, names in os.walk(library):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and is_public(name))
        for name in sorted(names):
            module = name.removesuffix(".py")
            if name.endswith(".py") and (is_public(module) or module in PUBLIC_NAMES):
                yield Path(folder, name)


def is_public(name):
    """True of ordinary names and of `__special__` ones."""
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def collect(node, name, entries):
    """Append (dotted name, docstring) of `node` and of the public classes and functions in it to `entries`."""
    text = ast.get_docstring(node, clean=False)
    if text:
        entries.append((name, cleandoc(text)))
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in definitions(node.body):
            if is_public(child.name):
                collect(child, f"{name}.{child.name}", entries)


def definitions(statements):
    """The classes and functions among `statements`, also those inside `if` and `try` (platform differences)."""
    for statement in statements:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
        elif isinstance(statement, ast.If | ast.Try):
            for part in ("body", "handlers", "orelse", "finalbody"):
                yield from definitions(getattr(statement, part, []))
        elif isinstance(statement, ast.ExceptHandler):
            yield from definitions(statement.body)


def paragraphs(text):
    """The prose paragraphs of a docstring or topic, each on one line, markup removed."""
    return [line for block in blocks(text) if is_prose(line := plain(block))]


BULLET = re.compile(r"\s*(?:[*+•-]|\d+[.)]|\(?[a-z]\))\s+(?=\S)")


def blocks(text):
    """Runs of lines at one indentation; a blank line, a change of indentation or a bullet starts a new one."""
    block, indent = [], 0
    for line in [*text.expandtabs().splitlines(), ""]:
        bullet = BULLET.match(line)
        start = bullet.end() if bullet else len(line) - len(line.lstrip())
        if block and (not line.strip() or bullet or start != indent):
            yield block
            block = []
        if line.strip():
            block.append(line[start:].rstrip())
            indent = start
    # The closing blank line has yielded the last block.


MARKUP = [
    (re.compile(r":[a-z]+(?::[a-z]+)?:`~?([^`<]+?)(?: ?<[^`>]*>)?`"), r"\1"),  # :class:`name`
    (re.compile(r"``([^`]+)``|`([^`]+)`|`([^`']+)'"), r'"\1\2\3"'),
    (re.compile(r"(?<![\w*])\*{1,2}(\w[^*\n]*?)(?<=\w)\*{1,2}(?![\w*])"), r"\1"),  # *emphasis*
    (re.compile(r"[“”]"), '"'),
    (re.compile(r"[‘’´]"), "'"),
    (re.compile(r"\s*[–—]\s*"), " -- "),
    (re.compile(r"…"), "..."),
    (re.compile(r"(\w)- (?=[a-z])(?!(?:and|or|to)\b)"), r"\1-"),  # a compound broken at the end of a line
    (re.compile(r"\s+"), " "),
]


def plain(block):
    """A block's lines joined to one, without reStructuredText markup and typographic quotes."""
    if any(line.startswith((">>>", "...")) or re.search(r"\S {3,}\S", line) for line in block):
        return ""  # a doctest or a table
    line = " ".join(block)
    for pattern, replacement in MARKUP:
        line = pattern.sub(replacement, line)
    return line.strip()


SENTENCES = re.compile(r"""["'(]?[A-Z].*[.!?]["')]*""")
NOT_FOR_READERS = re.compile(r"XXX|TODO|FIXME|https?:|\w@\w|[Gg]enerated from|[^\x00-\x7f]|`")


def is_prose(line):
    """True of a line of English sentences; false of code, grammar, tables, headings, fragments, notes and addresses."""
    prose = sum(character.isalpha() or character == " " for character in line)
    return (
        len(line.split()) >= LEAST_WORDS
        and prose >= LEAST_PROSE * len(line)
        and SENTENCES.fullmatch(line) is not None
        and NOT_FOR_READERS.search(line) is None
    )


def standard_library_sources():
    """The corpus `python-stdlib`: the source text of the standard library's public modules, one document a file."""
    files = library_files(Path(sysconfig.get_path("stdlib")))
    documents = [text for path in files if (text := source_text(path))]
    if not documents:
        raise UserError(
            "the corpus python-stdlib is made of the standard library's source files, and this Python has none; "
            "install the full Python or pass --data a text file"
        )
    return documents


def source_text(path):
    """A source file's text, or None where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
