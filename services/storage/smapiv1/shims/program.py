"""What blktap's programs have in common: commands by name, short options, and an error number as exit status.

Drivers look at the status (tap-ctl's 123 is a drive without a medium) and log what is on standard error.
"""

from __future__ import annotations

import errno
import getopt
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.storage.formats.interface import FormatError, Truncated


@dataclass(frozen=True, slots=True)
class Arguments:
    """`options`: values by letter, "" for flags; the last one counts. `names`: what is no option."""

    options: Mapping[str, str]
    names: Sequence[str]

    def has(self, letter: str) -> bool:
        return letter in self.options

    def text(self, letter: str) -> str:
        """Raises `Misused` if it is not there."""
        if letter not in self.options:
            raise Misused(f"-{letter} is missing")
        return self.options[letter]

    def number(self, letter: str, default: int | None = None) -> int:
        """Not negative. Raises `Misused`."""
        if default is not None and letter not in self.options:
            return default
        try:
            value = int(self.text(letter))
        except ValueError:
            value = -1
        if value < 0:
            raise Misused(f"-{letter} {self.options[letter]}: no number")
        return value

    def name(self, number: int, count: int) -> str:
        """One of exactly `count` names. Raises `Misused`."""
        if len(self.names) != count:
            raise Misused(f"{count} names are needed, not {len(self.names)}")
        return self.names[number]


@dataclass(frozen=True, slots=True)
class Command:
    """`letters`: its options as getopt has them. `usage`: the same for people."""

    letters: str
    usage: str
    run: Callable[[Arguments], None]


class Misused(Exception):
    """The arguments are not those of the command."""


class Failed(Exception):
    """`number`: the exit status, an errno."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.number, self.text = number, text


def run(program: str, commands: Mapping[str, Command], arguments: Sequence[str]) -> int:
    """`arguments`: without the program. Returns the exit status."""
    given = [each for each in arguments if each != "--debug"]
    if not given or given[0] not in commands:
        print(f"usage: {program} {{{' | '.join(commands)}}} [options]", file=sys.stderr)
        return errno.EINVAL
    command = commands[given[0]]
    try:
        pairs, names = getopt.gnu_getopt(given[1:], command.letters + "h")
        options = {option[1:]: value for option, value in pairs}
        if "h" in options:
            print(f"usage: {program} {given[0]} {command.usage}")
            return 0
        command.run(Arguments(options, names))
        sys.stdout.flush()
        return 0
    except (Misused, getopt.GetoptError) as error:
        print(f"{error}; usage: {program} {given[0]} {command.usage}", file=sys.stderr)
        return errno.EINVAL
    except (Failed, FormatError, OSError) as error:
        print(f"{program} {given[0]}: {words(error)}", file=sys.stderr)
        return status(error)


def status(error: Exception) -> int:
    """The number that an error is told by."""
    if isinstance(error, Failed):
        return error.number
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    return errno.EIO if isinstance(error, Truncated) else errno.EINVAL


def words(error: Exception) -> str:
    if isinstance(error, Failed):
        return error.text
    if isinstance(error, OSError) and error.errno:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or os.strerror(error.errno)}"
    return str(error)
