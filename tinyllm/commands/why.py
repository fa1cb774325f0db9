"""`tinyllm why`: is this loss normal, what is wrong if not, what to try."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from tinyllm.commands.console import command_line


@dataclass
class Options:
    folder: Positional[Path]
    """The folder of a run; one that still trains, or was stopped, will do."""

    json: bool = False
    """One JSON object for programs instead of sentences."""


def run(options: Options):
    """Say in five lines whether a run's loss is normal, what is wrong if not, and what to try.

    Example:
        tinyllm why runs/quickstart
    """
    from tinyllm.training.diagnosis import diagnose

    found = diagnose(options.folder)
    command = command_line(*found.command) if found.command else None
    if options.json:
        print(json.dumps(dataclasses.asdict(found) | {"command": command}, ensure_ascii=False))
    else:
        print(*found.lines, *([command] if command else []), sep="\n")
