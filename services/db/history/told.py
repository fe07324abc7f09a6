"""From a commit, as the committer has it, to what the history tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from services.db.history.shown import SHOWN, Show, text
from shared.bus.context import CallContext
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified
from shared.contracts.db_history import FieldChange, HistoryEntry, ObjectChange
from shared.datamodel import model
from shared.logs import track_id
from shared.store import COLUMNS, LINKS, NULL

Fields = Mapping[str, Any]


class Commit(msgspec.Struct, gc=False):
    """What is known at the moment of a commit; nothing in it changes any more. Made for each: a struct is quicker.

    `undo`: takes `delta` back, last change first. `rows`: fields of all rows it touched, by reference, the other ends
    of relations included. `task`, `session`: the caller's rows, if there are any.
    """

    delta: Delta
    undo: Sequence[RowChange]
    rows: Mapping[str, Fields]
    time: float
    context: CallContext
    task: Fields | None
    session: Fields | None
    note: str = ""


def _told(*, volatile: bool) -> dict[str, dict[str, Show]]:
    """The stored fields that are recorded, by class; classes of which none is are left out."""
    told: dict[str, dict[str, Show]] = {}
    for name, cls in model.classes.items():
        fields = [field for field in cls.fields.values() if field.name not in LINKS[name].derived]
        if volatile or cls.persist:
            told[name] = {field.name: SHOWN[name][field.name] for field in fields if volatile or field.persist}
    return told


MOST_OBJECTS: Final = 1000
"""Of one commit that are told; the others are counted."""


class Teller:
    """`volatile`: also what does not outlive the machine, such as sessions, tasks and `allowed_operations`."""

    def __init__(self, volatile: bool = False) -> None:
        self._fields: Final = _told(volatile=volatile)

    def concerns(self, changes: Sequence[RowChange]) -> bool:
        """Whether there is anything in them to tell."""
        told = self._fields
        for change in changes:
            fields = told.get(change.cls)
            if fields is None:
                continue
            if not isinstance(change, RowModified):
                return True
            for name in change.fields:
                if name in fields:
                    return True
        return False

    def entry(self, commit: Commit) -> HistoryEntry | None:
        """None if nothing that is recorded has changed."""
        changes = self.changes(commit)
        if not changes:
            return None
        delta, context, task, session = commit.delta, commit.context, commit.task, commit.session
        note = commit.note
        if len(changes) > MOST_OBJECTS:
            note = f"{note} and {len(changes) - MOST_OBJECTS} more objects".strip()
            changes = changes[:MOST_OBJECTS]
        return HistoryEntry(
            generation=delta.generation,
            term=delta.term,
            time=commit.time,
            task=context.task or context.origin or delta.task,
            call=context.call or delta.call or (text(task["name_label"]) if task is not None else ""),
            session=_digest(context.session or delta.session),
            user=context.user or (session["auth_user_name"] if session is not None else ""),
            originator=session["originator"] if session is not None else "",
            note=note,
            changes=changes,
        )

    def changes(self, commit: Commit) -> list[ObjectChange]:
        found: list[ObjectChange] = []
        links = _Links(self._fields.keys())
        for change, back in zip(commit.delta.changes, reversed(commit.undo), strict=True):
            told = self._fields.get(change.cls)
            if told is None:
                continue
            if isinstance(change, RowCreated):
                blank = COLUMNS[change.cls].blank
                found.append(_object(change, change.fields, "add", _fields(told, blank, change.fields)))
                links.note(change, blank, change.fields)
                links.whole.add(change.ref)
            elif isinstance(change, RowDeleted):
                assert isinstance(back, RowCreated)
                blank = COLUMNS[change.cls].blank
                found.append(_object(change, back.fields, "del", _fields(told, back.fields, blank)))
                links.note(change, back.fields, blank)
                links.whole.add(change.ref)
            else:
                assert isinstance(back, RowModified)
                links.note(change, back.fields, change.fields)
                if fields := _fields(told, back.fields, change.fields):
                    found.append(_object(change, commit.rows.get(change.ref, {}), "mod", fields))
        return [*found, *links.changes(commit.rows)]


def _object(change: RowChange, row: Fields, kind: str, fields: list[FieldChange]) -> ObjectChange:
    return ObjectChange(
        cls=change.cls,
        ref=track_id(change.ref) if change.cls == "session" else change.ref,
        kind=kind,
        uuid=row.get("uuid", ""),
        name=text(row.get("name_label", "")),
        fields=fields,
    )


def _fields(told: Mapping[str, Show], old: Fields, new: Fields) -> list[FieldChange]:
    """Those that are in both and differ."""
    changes: list[FieldChange] = []
    for name, value in new.items():
        show = told.get(name)
        if show is None or name == "uuid" or name not in old or old[name] == value:
            continue
        before, after = show(old[name], value)
        changes.append(FieldChange(name=name, old=before, new=after))
    return changes


_digest = lru_cache(maxsize=1024)(track_id)

_TARGETS: Final = {name: {**links.one_many, **links.many_many} for name, links in LINKS.items()}
"""By class: fields that make up a list of another class, and which."""


class _Links:
    """The lists that follow from references which have changed. `whole`: objects that came or went themselves."""

    def __init__(self, classes: Any) -> None:
        self.whole: set[str] = set()
        self._classes = classes
        self._lists: dict[tuple[str, str], dict[str, tuple[list[str], list[str]]]] = {}

    def note(self, change: RowChange, old: Fields, new: Fields) -> None:
        targets = _TARGETS[change.cls]
        if not targets:
            return
        for name, after in new.items():
            if name in targets and name in old and old[name] != after:
                before = old[name]
                many = isinstance(after, list)
                self._moved(targets[name], change.ref, before if many else (before,), after if many else (after,))

    def _moved(self, target: tuple[str, str], ref: str, old: Sequence[str], new: Sequence[str]) -> None:
        cls, name = target
        if cls not in self._classes:
            return
        for side, others, mine in ((0, new, old), (1, old, new)):
            for to in mine:
                if to and to != NULL and to not in others:
                    self._lists.setdefault((cls, to), {}).setdefault(name, ([], []))[side].append(ref)

    def changes(self, rows: Mapping[str, Fields]) -> list[ObjectChange]:
        found = []
        for (cls, ref), lists in self._lists.items():
            if ref in self.whole or ref not in rows:
                continue
            shown = [(name, *SHOWN[cls][name](went, came)) for name, (went, came) in lists.items()]
            fields = [FieldChange(name=name, old=went, new=came) for name, went, came in shown]
            found.append(
                ObjectChange(
                    cls=cls,
                    ref=ref,
                    kind="rel",
                    uuid=rows[ref].get("uuid", ""),
                    name=text(rows[ref].get("name_label", "")),
                    fields=fields,
                )
            )
        return found
