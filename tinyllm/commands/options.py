"""From the arguments of a command to the dataclass it takes, by tyro; what tyro says in boxes becomes one line."""

import contextlib
import dataclasses
import inspect
import io
import re
import typing

from tinyllm.errors import UserError

RULE = re.compile(r"-{5,}")
# How tyro puts it -> how we do. What is in neither is shown as tyro puts it.
WORDINGS = {
    r"Error parsing ([^\s:]+): .*int\(\) .*\[(.+)\] does not match choices \((.+?)\).*": (
        r"\1 takes a whole number or one of \3, not \2"
    ),
    r"Error parsing ([^\s:]+): .*invalid literal for int\(\) .*: (.+?)\s*$": r"\1 takes a whole number, not \2",
    r"Error parsing ([^\s:]+): .*could not convert string to float: (.+?)\s*$": r"\1 takes a number, not \2",
    r"Error parsing (.+?): Could not find valid parse for arguments: \[(.+)\]": r"\1 cannot be \2",
    r"Error parsing ([^\s:]+): no type matching \{\[STR FLOAT.*": r"\1 takes a pattern and a number, and so on",
    r"Error parsing (.+?): (.+?)\.?$": r"\1: \2",
    r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*?),?\)\.": r"\2 takes one of \3, not '\1'",
    r"Missing value for argument '(.+?)'\. Expected 1 values\.": r"\1 needs a value",
}


def read_options(command, program, arguments):
    """The options for `command`, an instance of the dataclass its one parameter is annotated with.

    None after --help, which tyro prints. UserError for arguments that do not fit.
    """
    (options,) = typing.get_type_hints(command).values()
    if not arguments and all(has_default(field) for field in dataclasses.fields(options)):
        return options()
    import tyro

    def parse():
        return tyro.cli(
            options,
            prog=program,
            description=inspect.getdoc(command),
            args=arguments,
            config=(
                tyro.conf.FlagCreatePairsOff,  # --resume, without a --no-resume
                tyro.conf.DisallowNone,  # leaving an option out is the way to say None
                tyro.conf.PositionalMetavarFromFieldName,
            ),
        )

    complaint = io.StringIO()
    try:
        # tyro looks at standard output to choose between boxes and a plain layout: this one gets the plain layout.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(complaint):
            return parse()
    except SystemExit as stop:
        if stop.code:
            raise UserError(f"{one_line(complaint.getvalue())} (see {program} --help)") from None
    with contextlib.suppress(SystemExit):
        parse()  # again, and this time the help page goes to the user's console
    return None


def has_default(field):
    """Whether a dataclass field may be left out."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def one_line(report):
    """What tyro's report says, in one line.

    Its plain layout has a title, a rule, and then, indented by two, parts between rules: what is wrong, what else is
    wrong or was perhaps meant, where to find help.
    """
    parts = [[]]
    for line in report.splitlines()[2:]:
        if RULE.fullmatch(line.strip()):
            parts.append([])
        else:
            parts[-1].append(line[2:].rstrip())
    message = " ".join(" ".join(parts[0]).split())
    if match := re.match(r"Unrecognized options: ([^\s,=]+)", message):
        return unknown(match[1], parts[1:])
    if message.startswith("Missing from"):
        return missing(*parts)
    for pattern, wording in WORDINGS.items():
        if match := re.match(pattern, message):
            return match.expand(wording)
    return message.rstrip(".")


def unknown(argument, parts):
    """One line for an argument that no option has. parts: the rest of tyro's report, which may know what was meant."""
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}"
    meant = [
        re.findall(r"--[\w.-]+", " ".join(part)) for part in parts if part and part[0].startswith("Perhaps you meant")
    ]
    hint = f"; did you mean {meant[0][0]}?" if meant and meant[0] else ""
    return f"there is no option {argument}{hint}"


def missing(names, *parts):
    """One line for options that were left out; one that was misspelt is probably why, so it comes first."""
    # Below a title names stand indented by four, their help by eight.
    left_out = "missing: " + ", ".join(row.strip() for row in names if re.match(r" {4}\S", row))
    strange = [part[1].strip() for part in parts if part[0].startswith("Unrecognized options")]
    return f"{unknown(strange[0], [])}; {left_out}" if strange else left_out
