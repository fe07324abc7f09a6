"""`python -m services.db.check`: verifies a database in a folder or a file, and repairs what has one right answer."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TextIO

import orjson

from services.db.check import rewrite, source
from services.db.check.findings import DropField, DropRow, Finding, Rebuild, Repair, SetField, Severity, Stamp, damage
from services.db.check.rewrite import NotRepaired
from services.db.check.soundness import check_store
from services.db.check.source import Examined, Unreadable
from services.db.lock import StateInUse, StateLock
from services.db.redo.interface import RedoLogError
from shared.store import Store

CLEAN: Final = 0
DAMAGED: Final = 1
UNREADABLE: Final = 2

_HELP: Final = """\
Verifies a database: types, references, relations, uuids, generations.

PATH is the state folder of a database process that is not running, of which the redo log of the local disk is read, or
an XML dump such as pool-dump-database writes, compressed or not. What is found is damage, which no sound database has,
or a note: references to rows that were removed, words that only newer programs know.

Exit status: 0 no damage, 1 damage (with --repair: damage that is left), 2 PATH cannot be read or is in use.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m services.db.check", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("path", metavar="PATH", type=Path)
    made.add_argument(
        "--repair",
        action="store_true",
        help="put right what has exactly one right answer: a folder gets a new checkpoint, its log is kept in "
        "redo-before-repair-*; a dump needs -o",
    )
    made.add_argument("-o", "--output", metavar="FILE", type=Path, help="where the repaired dump is written")
    made.add_argument("--notes", action="store_true", help="show each note, not only how many there are")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(arguments: Sequence[str] | None = None, output: TextIO = sys.stdout) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    path: Path = options.path
    with ExitStack() as stack:
        try:
            if path.is_dir():
                source.require_log(path)
                lock = StateLock(path)
                lock.take()
                stack.callback(lock.release)
                examined = source.folder(path)
            else:
                examined = source.dump(path)
        except (Unreadable, StateInUse, OSError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return UNREADABLE
        report = _Report(path, examined)
        if options.repair:
            try:
                _repair(path, options.output, examined, report)
            except (NotRepaired, RedoLogError, OSError) as error:
                report.failed = str(error)
    report.write(output, as_json=options.json, notes=options.notes)
    return DAMAGED if damage(report.left) else CLEAN


class _Report:
    """`left`: what is still there. `repaired`: what is not any more. `failed`: why nothing was repaired."""

    def __init__(self, path: Path, examined: Examined) -> None:
        self._path = path
        self._examined = examined
        self.left = examined.findings
        self.repaired: list[Finding] = []
        self.kept: Path | None = None
        self.failed = ""

    def write(self, output: TextIO, *, as_json: bool, notes: bool) -> None:
        if as_json:
            output.write(orjson.dumps(self._plain(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())
        else:
            output.writelines(f"{line}\n" for line in self._lines(notes))

    def _plain(self) -> dict[str, object]:
        return {
            "path": str(self._path),
            "generation": self._examined.generation,
            "term": self._examined.term,
            "rows": len(self._examined.rows),
            "notes": self._examined.notes,
            "findings": [_plain(finding) for finding in self.left],
            "repaired": [_plain(finding) for finding in self.repaired],
            "kept": str(self.kept or ""),
            "failed": self.failed,
        }

    def _lines(self, notes: bool) -> Iterable[str]:
        yield from self._examined.notes
        yield from (_line("repaired", finding) for finding in self.repaired)
        bad = damage(self.left)
        others = [finding for finding in self.left if finding.severity is Severity.NOTE]
        yield from (_line("damage", finding) for finding in bad)
        if notes:
            yield from (_line("note", finding) for finding in others)
        else:
            counts = Counter((finding.kind.value, f"{finding.cls}.{finding.field}") for finding in others)
            yield from (f"note      {kind}: {where}, {count} times" for (kind, where), count in sorted(counts.items()))
        if self.kept is not None:
            yield f"the redo log as it was is kept in {self.kept}"
        if self.failed:
            yield f"nothing was repaired: {self.failed}"
        answers = sum(finding.repair is not None for finding in bad)
        yield (
            f"{len(self._examined.rows)} rows at generation {self._examined.generation}: {len(bad)} findings of damage,"
            f" {answers} with one right answer; {len(others)} notes; {len(self.repaired)} repaired"
        )


def _repair(path: Path, output: Path | None, examined: Examined, report: _Report) -> None:
    if not path.is_dir() and output is None:
        raise NotRepaired("-o FILE must say where the repaired dump is written")
    if output is not None and output.exists():
        raise NotRepaired(f"{output} exists")
    store, done = rewrite.mended(examined)
    if not done:
        return
    if path.is_dir():
        report.kept = rewrite.folder(path, examined, store)
    elif output is not None:
        rewrite.dump(output, store)
    report.repaired, report.left = done, _left(examined, store, done)


def _left(examined: Examined, store: Store, done: Sequence[Finding]) -> list[Finding]:
    """What a check of the new rows finds, and what only the old ones told of."""
    told = [finding for finding in examined.findings if finding.kind in source.HIDDEN and finding not in done]
    return [*told, *check_store(store)]


# ---- as text


def _line(word: str, finding: Finding) -> str:
    where = " ".join(part for part in (finding.cls, finding.ref, finding.field) if part)
    answer = f"; repair: {_answer(finding.repair)}" if finding.repair is not None else ""
    return f"{word:<9} {finding.kind}: {where}: {finding.what}{answer}"


def _answer(repair: Repair) -> str:
    match repair:
        case SetField(value):
            return f"set it to {value!r}"
        case DropField():
            return "leave the field out"
        case DropRow():
            return "leave the row out"
        case Stamp(created, modified):
            return f"made at {created}, changed at {modified}"
        case Rebuild():
            return "it is worked out anew"


def _plain(finding: Finding) -> dict[str, object]:
    return {
        "severity": finding.severity.value,
        "kind": finding.kind.value,
        "class": finding.cls,
        "ref": finding.ref,
        "field": finding.field,
        "what": finding.what,
        "repair": _answer(finding.repair) if finding.repair is not None else "",
    }
