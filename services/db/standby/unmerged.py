"""Commits of a primary that was replaced, which the new term does not have: written down for people, never merged.

They were made durable here while this host was cut off, and nobody was told that they are saved. Whoever had asked for
them has learned that the result is unknown, or has had the same request carried out by the new primary, which then has
it under the same id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from services.db.disk import Disk
from services.db.history.shown import secret
from services.db.transaction import persistent_part
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted
from shared.contracts.db_history import HIDDEN
from shared.logs import track_id
from shared.store import Store

ALERT: Final = ("DATABASE_WRITES_UNMERGED", 1)

_KIND: Final = {RowCreated: "add", RowDeleted: "del"}


def left_out(
    commits: Iterable[tuple[Delta, float]], store: Store, merged: Collection[str]
) -> list[tuple[Delta, float]]:
    """Of the commits after the place where the new term began those that change something durable, and whose request
    the new primary does not know.
    """
    return [
        (delta, at)
        for delta, at in commits
        if persistent_part(store, delta.changes) and not (delta.request and delta.request in merged)
    ]


def report(commits: Sequence[tuple[Delta, float]], store: Store, host: str, base: int, complete: bool) -> bytes:
    """What is written down. `base`: the generation at which the new term began; `complete`: it is known of all."""
    return orjson.dumps(
        {
            "written": _time(time.time()),
            "host": host,
            "term": store.term,
            "after generation": base,
            "complete": complete,
            "commits": [
                {
                    "generation": delta.generation,
                    "time": _time(at),
                    "task": delta.task,
                    "session": track_id(delta.session) if delta.session else "",
                    "changes": [_change(change, store) for change in delta.changes],
                }
                for delta, at in commits
            ],
        },
        option=orjson.OPT_INDENT_2,
    )


def _change(change: RowChange, store: Store) -> dict[str, Any]:
    row = store.row(change.cls, change.ref)
    known = row if row is not None else {}
    told: dict[str, Any] = {
        "kind": _KIND.get(type(change), "mod"),
        "class": change.cls,
        "ref": change.ref,
        "uuid": known.get("uuid", ""),
        "name": known.get("name_label", ""),
    }
    if not isinstance(change, RowDeleted):
        told["fields"] = {
            name: HIDDEN if secret(name) or change.cls == "secret" else value for name, value in change.fields.items()
        }
    return told


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class UnmergedFiles:
    """`unmerged-<term>-<generation>.json` in the service's folder. They stay until somebody has seen to them."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()

    def names(self) -> list[str]:
        return sorted(str(path) for path in self._folder.glob("unmerged-*.json"))

    def write(self, text: bytes, term: int, generation: int) -> Path:
        """Durable when it returns. Raises `OSError`."""
        path = self._folder / f"unmerged-{term}-{generation}.json"
        descriptor = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._disk.write_all(descriptor, text, 0)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)
        self._disk.sync_folder(self._folder)
        return path
