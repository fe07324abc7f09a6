"""Looks at a redo log of the original's layout: `python -m services.db.redo.block dump|export|empty|cut DEVICE`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.db.disk import Disk
from services.db.recovery import restore
from services.db.redo.block.device import LOCK_WAIT, Device, Unusable
from services.db.redo.block.notes import is_note
from services.db.redo.block.reading import ELSEWHERE, Reading, read, recovered
from shared.database_dump import writer
from shared.redo_blocks import deltas, layout
from shared.redo_blocks.layout import UPSTREAM, Damaged, Half

WIPED = 1024 * 1024
"""Bytes overwritten at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 with what is wrong on the standard error."""
    given = _parser().parse_args(arguments)
    device = Device(given.device, Disk(), UPSTREAM)
    changes = given.command in ("empty", "cut")
    try:
        device.open(wait=LOCK_WAIT if changes else 0.0, write=changes)
        match given.command:
            case "dump":
                for line in _dump(device):
                    print(line)
            case "export":
                _export(device, given.half, given.file)
            case "empty":
                device.valid()
                device.set_valid(Half.NONE)
            case "cut":
                print(_cut(device))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever reads has seen enough
    except (OSError, Unusable, Damaged) as error:
        what, why = given.device, str(error)
        if isinstance(error, OSError):
            what, why = error.filename or what, error.strerror or why
        print(f"{what}: {why}", file=sys.stderr)
        return 1
    finally:
        device.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.db.redo.block", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    half = argparse.ArgumentParser(add_help=False)
    half.add_argument("--half", type=int, choices=(1, 2), help="not the valid half, but this one")
    for name, what in (
        ("dump", "prints what it holds: both halves, each delta; may be used while the database runs"),
        ("export", "writes the database with all deltas applied as an XML document"),
        (
            "empty",
            "makes both halves invalid, as the original's command does: the next start finds nothing",
        ),
        ("cut", "ends a damaged log where the damage begins: the commits that follow it are lost"),
    ):
        command = commands.add_parser(name, help=what, description=what, parents=[half] if name == "export" else [])
        command.add_argument("device", type=Path, metavar="DEVICE", help="block device or file")
        if name == "export":
            command.add_argument("file", type=Path, metavar="FILE", help="the document; it must not exist")
    return parser


def _dump(device: Device) -> Iterator[str]:
    valid = device.valid()
    yield f"valid half: {valid or 'none'}"
    for half in (Half.FIRST, Half.SECOND):
        yield ""
        yield f"half {half}"
        yield from _dump_half(device.read_half(half))


def _dump_half(data: bytes) -> Iterator[str]:
    try:
        database = layout.database(data)
        begin, end = database.xml
        yield f"  marker {database.marker.decode(errors='replace')}"
        yield f"  database: generation {database.generation}, {end - begin} bytes"
        at = database.end
        for found in layout.deltas(data, at, database.marker):
            at = found.end
            kind = "note" if is_note(found) else f"delta: generation {found.generation}"
            yield f"  {found.at}: {kind}, {_shown(found)}"
        yield f"  ends at {at}, {len(data) - at} bytes before the half does"
    except Damaged as damage:
        yield f"  damaged at byte {damage.at}: {damage.why}"


def _shown(found: layout.Delta) -> str:
    try:
        delta = deltas.decode(found.data)
    except deltas.Malformed as error:
        return f"malformed: {error}"
    match delta:
        case deltas.CreateRow():
            return f"CreateRow {delta.table} {delta.ref} {dict(delta.columns)}"
        case deltas.DeleteRow():
            return f"DeleteRow {delta.table} {delta.ref}"
        case deltas.WriteField():
            return f"WriteFiel {delta.table} {delta.ref} {delta.column} = {delta.value!r}"


def _read(device: Device, half: Half) -> Reading:
    if half is Half.NONE:
        raise Unusable("neither half is valid; say --half to have one all the same")
    return read(device.read_half(half))


def _export(device: Device, half: int | None, file: Path) -> None:
    """Damage ends it with what was read before, and a line that says so."""
    reading = _read(device, device.valid() if half is None else Half(half))
    if reading.damage is not None or reading.lost is not None:
        print(f"{device.path}: damaged at byte {reading.end}: the document has what was before", file=sys.stderr)
    store = restore(recovered(reading), ELSEWHERE)
    with file.open("xb") as opened:
        for piece in writer.pieces(writer.moment(store)):
            opened.write(piece)
        opened.flush()
        os.fsync(opened.fileno())


def _cut(device: Device) -> str:
    """The log ends where it can be read up to, durably; then nothing is left of what follows."""
    half = device.valid()
    reading = _read(device, half)
    if reading.damage is None and reading.lost is None:
        return "nothing to cut: it is not damaged"
    at, end = device.geometry.start(half) + reading.end, device.geometry.end(half)
    device.end_at(at)
    for piece in range(at, end, WIPED):
        device.disk.write_all(device.descriptor, bytes(min(WIPED, end - piece)), piece)
    device.disk.sync(device.descriptor)
    return f"half {half} ends at byte {reading.end} now, with generation {recovered(reading).generation}"


if __name__ == "__main__":
    sys.exit(main())
