"""`tinyllm COMMAND ...`: finds the command, runs it, and turns a user's mistake into one line and exit code 2.

How to add a command: write `tinyllm/commands/NAME.py` and a line in COMMANDS.

    @dataclass
    class Options:
        data: str
        \"\"\"The text to learn from.\"\"\"      # a string below a field is its help; without a default it is required

        steps: int = 1000
        \"\"\"Optimizer steps.\"\"\"

    def run(options: Options):
        \"\"\"What it does, as `tinyllm NAME --help` shows it.

        Example:
            tinyllm NAME --data book.txt
        \"\"\"

`tyro` makes `--data` and `--steps` of the fields; a field that is itself a dataclass gives `--model.hidden-size`, one
annotated `tyro.conf.Positional[str]` needs no flag. `run` returns None or an exit code and raises UserError for what
the user can mend. A file with several commands has a dict SUBCOMMANDS, name -> function, in place of `run`. Import
what is slow inside the function, so that `--help` stays quick; `tinyllm.training.progress.track` is for what takes
seconds.
"""

import difflib
import errno
import importlib
import importlib.util
import inspect
import os
import sys
import warnings

import tinyllm
from tinyllm.commands.console import fail, prepare_streams
from tinyllm.errors import UserError

COMMANDS = {
    "quickstart": "train a small model and see what it learned: start here",
    "tokenizer": "learn a tokenizer from text, turn text into tokens and back",
    "pretrain": "train a model from nothing on text",
    "generate": "let a model go on with a text",
    "plan": "what a run will need: memory, arithmetic, messages, time, money",
    "why": "whether the loss of a run is normal, what is wrong if not, what to try",
    "doctor": "what this machine and installation can do, and how fast",
}
HELP = ("-h", "--help", "help")
# A user's files and disk, as against our own mistakes, which keep their traceback.
USERS_OS_ERRORS = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EROFS,
    errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip


def main(argv=None):
    """Run the command line `argv` (by default sys.argv[1:]) and return its exit code."""
    prepare_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = warn
            code = dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail("interrupted", code=130)
    except BrokenPipeError:  # `tinyllm ... | head`: the reader has seen enough
        silence_stdout()
        return 141
    except OSError as error:
        if error.errno not in USERS_OS_ERRORS:
            raise
        return fail(in_words(error))


def dispatch(arguments):
    """Run what the arguments ask for; returns the exit code."""
    if not arguments or arguments[0] in HELP:
        print(overview("tinyllm", tinyllm.__doc__.split("\n")[0], COMMANDS))
        return 0
    if arguments[0] == "--version":
        print(f"tinyllm {tinyllm.__version__}")
        return 0
    name, *arguments = arguments
    module = load(pick(name, COMMANDS, "tinyllm"), arguments)
    if not hasattr(module, "SUBCOMMANDS"):
        return start(module.run, f"tinyllm {name}", arguments)
    program, commands = f"tinyllm {name}", module.SUBCOMMANDS
    if not arguments or arguments[0] in HELP:
        print(overview(program, inspect.getdoc(module), {key: first_line(value) for key, value in commands.items()}))
        return 0
    which = pick(arguments[0], commands, program)
    return start(commands[which], f"{program} {which}", arguments[1:])


def overview(program, description, commands):
    """The help page that lists commands. commands: dict name -> one line."""
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {summary}" for name, summary in commands.items()]
    usage = f"usage: {program} COMMAND ..."
    return "\n".join(
        [usage, "", description, "", *lines, "", f"`{program} COMMAND --help` shows options and an example."]
    )


def first_line(command):
    """The summary of a command: the first line of its docstring, as a phrase."""
    line = inspect.getdoc(command).split("\n")[0].rstrip(".")
    return line[0].lower() + line[1:]


def pick(name, commands, program):
    """The name itself, or UserError with the nearest one."""
    if name in commands:
        return name
    what, known = ("option", ("--help", "--version")) if name.startswith("-") else ("command", commands)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{program} {close[0]}`?" if close else f"there are: {', '.join(known)}"
    raise UserError(f"there is no {what} {name}; {hint}")


def load(name, arguments):
    """The module of a command; UserError where packages are missing or this version does not have it."""
    missing = [package for package in ("tyro", "rich") if not importlib.util.find_spec(package)]
    if missing and (name, arguments) != ("doctor", []):  # doctor tells what is missing, so it must run without
        raise UserError(
            f"the command line needs {' and '.join(missing)}; run: {sys.executable} -m pip install {' '.join(missing)}"
        )
    if not importlib.util.find_spec(f"tinyllm.commands.{name}"):
        raise UserError(f"the command {name} is not in this version of tinyllm ({tinyllm.__version__})")
    return importlib.import_module(f"tinyllm.commands.{name}")


def start(command, program, arguments):
    """Read the options and run the command; returns its exit code."""
    from tinyllm.commands.options import read_options

    options = read_options(command, program, arguments)
    return 0 if options is None else command(options) or 0


def warn(message, category, *where):
    """In place of warnings.showwarning: one line for the user, without our source code."""
    fail(f"{category.__name__}: {message}" if category is not UserWarning else message)


def in_words(error):
    """One line for an OSError that a user can do something about."""
    path = f"{error.filename}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{path}{(error.strerror or 'failed').lower()}" + ("; free some space and run it again" if full else "")


def silence_stdout():
    """Let Python's last flush at exit go nowhere instead of complaining about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
