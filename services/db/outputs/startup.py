"""The rows of a start: finds the files that `candidates` chooses from, and reads the one that is chosen."""

from __future__ import annotations

import gzip
import logging
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, cast

from services.db.outputs import dump_file
from services.db.outputs.candidates import Found, Kind, Log, Place, order
from shared import garbage
from shared.database_dump.reader import Dump, DumpError, Reader
from shared.store import Store

log = logging.getLogger("db.outputs")

PIECE: Final = 256 * 1024
_MANIFEST: Final = 64 * 1024
"""Bytes of a document in which its manifest must be."""
_GZIP: Final = b"\x1f\x8b"


class UnreadableDatabase(Exception):
    """The file is no database; the text says which, where and why."""


@dataclass(slots=True)
class Loaded:
    """The rows of a file, at the generation that it says. `dump`: what is known of the document, without rows."""

    found: Found
    store: Store
    dump: Dump


# ---- which


def look(places: Iterable[Place], held: Log) -> list[Found]:
    """The files that are there. One whose manifest cannot be read counts as old: nothing else may be there."""
    found = []
    for place in places:
        if not place.path.exists():
            continue
        try:
            generation = manifest(place.path).generation
        except UnreadableDatabase as error:
            log.error("%s", error)
            generation = 0
        file = Found(place, generation)
        if generation > held.generation and place.kind is Kind.OUTPUT:
            file = Found(place, generation, _origin(place.path))
        found.append(file)
    return found


def _origin(path: Path) -> dump_file.Origin | None:
    try:
        return dump_file.origin_of(path)
    except OSError as error:
        log.error("%s cannot be read: %s", path, error.strerror)
        return None


def newest(places: Iterable[Place], held: Log) -> Loaded | None:
    """The rows of the best file; None when the redo log's are better, or there is no file.

    A file that cannot be read is passed over when there is something else, the redo log too. Raises
    `UnreadableDatabase` when there is nothing else: a pool that begins empty would hide that another one was there.
    """
    candidates = order(held, look(places, held))
    damage: UnreadableDatabase | None = None
    for number, candidate in enumerate(candidates, 1):
        if isinstance(candidate, Log):
            break
        try:
            return read(candidate)
        except UnreadableDatabase as error:
            log.error("%s; %s", error, _instead(candidates[number:]))
            damage = error
    else:
        if damage is not None:
            raise damage
    return None


def _instead(others: Sequence[Found | Log]) -> str:
    if not others:
        return "there is nothing else"
    following = others[0]
    return "the redo log is used" if isinstance(following, Log) else f"{following.place.path} is tried"


# ---- reading


def manifest(path: Path) -> Dump:
    """Generation and schema of a file, without its rows. Raises `UnreadableDatabase`."""
    reader = Reader()
    with _opened(path) as file:
        for data in islice(_pieces(file, 4096), _MANIFEST // 4096):
            try:
                reader.feed(data)
            except DumpError:
                if reader.manifest() is None:
                    raise  # what is wrong with the rows is told when they are read
            if (told := reader.manifest()) is not None:
                return told
        raise DumpError("it ends before its manifest does")


def read(found: Found) -> Loaded:
    """All rows. Raises `UnreadableDatabase`."""
    path = found.place.path
    began = time.monotonic()
    reader, store = Reader(), Store()
    with _opened(path) as file, garbage.paused():
        for data in _pieces(file, PIECE):
            reader.feed(data)
            store.add(reader.taken())
        dump = reader.close()
        store.complete(dump.generation, 0)
    garbage.keep(store.count())
    log.info(
        "read %s",
        path,
        extra={
            "rows": store.count(),
            "generation": dump.generation,
            "schema": "{}.{}".format(*dump.schema),
            "seconds": round(time.monotonic() - began, 3),
        },
    )
    if dump.unknown:
        log.warning("%s has what is not known here, and left out: %s", path, ", ".join(sorted(dump.unknown)))
    return Loaded(found, store, dump)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file as it is or, whatever `db.conf` says of it, compressed."""
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
    except (OSError, EOFError, zlib.error, DumpError) as error:
        raise UnreadableDatabase(f"{path} is no database that can be read: {error}") from error


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while data := file.read(size):
        yield data
