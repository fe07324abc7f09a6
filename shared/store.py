"""The rows of the pool in memory, with their generations, relations and indexes: no I/O.

The database process and every replica hold one `Store` each and apply the same deltas, so they agree.

A stored reference (`VBD.VM`) maintains a list on the other side (`VM.VBDs`): the list object of a row is the index
itself, kept even while the row it belongs to does not exist, so the order in which rows arrive does not matter. So it
is with the right end of a many-to-many relation (`VM_group.VMs`), which is stored too, but always says what the left
ends do (`VM.groups`).

A state of a row never changes: what changes a row gives it a new map of fields and new lists. Whoever holds
`Row.fields` keeps one state, across any wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from types import MappingProxyType
from typing import Any, Final

from shared import garbage
from shared.columns import Columns
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified, SnapshotRow
from shared.datamodel import model
from shared.datamodel.schema import Class
from shared.errors import ApiError
from shared.frozen import EMPTY_LIST, FrozenList

NULL: Final = "OpaqueRef:NULL"
TOMBSTONES: Final = 512
MESSAGE_TOMBSTONES: Final = 1024
"""Deletions a table remembers; cut to half when full (as upstream does, `database-pool-ha` 1.1, 6.1)."""

HISTORY: Final = 65536
"""Recent row changes kept for `changes_since`."""


NOTHING_WRITTEN: Final[Mapping[str, int]] = MappingProxyType({})


class Row:
    """`fields`: every field of the class, derived ones included, in the model's order. Replaced on change, as a whole.

    `created`, `modified`: generations. `written`: the generation of each field's last change, of those that have
    changed since the row was made. `fragments`: encodings of this very state, for whoever reads it; dropped on change.
    """

    __slots__ = ("created", "fields", "fragments", "modified", "written")

    def __init__(
        self, fields: dict[str, Any], created: int, modified: int, written: Mapping[str, int] = NOTHING_WRITTEN
    ) -> None:
        self.fields = fields
        self.created = created
        self.modified = modified
        self.written = written
        self.fragments: dict[str, Any] = {}

    def field_modified(self, name: str) -> int:
        """The generation of the field's last change; the row's first one is one of every field."""
        return self.written.get(name, self.created)


@dataclass(slots=True)
class Table:
    """`tombstones`: (created, deleted, ref), oldest first, fewer than `remembered`. `touched`: generation of the last
    change to any row.
    """

    cls: Class
    rows: dict[str, Row] = field(default_factory=dict)
    by_name: dict[str, dict[str, None]] = field(default_factory=dict)
    tombstones: deque[tuple[int, int, str]] = field(default_factory=deque)
    touched: int = 0
    remembered: int = TOMBSTONES


@dataclass(frozen=True, slots=True)
class Touched:
    """What a delta did to one row, on either side of a relation. `kind`: add | mod | del.

    `row`: its state afterwards; for `del` the last one. `before`: generation of its last change before this one, as
    `written` is of its fields'.
    """

    cls: str
    ref: str
    kind: str
    row: Row
    before: int = 0
    written: Mapping[str, int] = field(default_factory=lambda: NOTHING_WRITTEN)


@dataclass(frozen=True, slots=True)
class _Links:
    """Per class: which stored fields maintain a list elsewhere, and which fields are such lists.

    `derived`: lists that follow from references. `right_ends`: those that follow from the sets of others, and are
    stored nevertheless.
    """

    one_many: dict[str, tuple[str, str]]
    many_many: dict[str, tuple[str, str]]
    derived: tuple[str, ...]
    right_ends: tuple[str, ...]


def _links() -> dict[str, _Links]:
    one_many: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in model.classes}
    many_many: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in model.classes}
    derived: dict[str, list[str]] = {name: [] for name in model.classes}
    right_ends: dict[str, list[str]] = {name: [] for name in model.classes}
    for relation in model.relations:
        target = (relation.to_cls, relation.to_field)
        if target == (relation.cls, relation.field):
            continue  # `role.subroles`: both ends are one field, which says what was written
        kind, ends = (one_many, derived) if relation.kind == "one-many" else (many_many, right_ends)
        kind[relation.cls][relation.field] = target
        ends[relation.to_cls].append(relation.to_field)
    return {
        name: _Links(one_many[name], many_many[name], tuple(derived[name]), tuple(right_ends[name]))
        for name in model.classes
    }


LINKS: Final = _links()

COLUMNS: Final = {name: Columns(cls, LINKS[name].derived) for name, cls in model.classes.items()}


class Store:
    """All tables at one generation of one term."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {name: Table(cls) for name, cls in model.classes.items() if cls.in_database}
        self.tables["message"] = Table(model.classes["message"], remembered=MESSAGE_TOMBSTONES)
        self.generation = 0
        self.term = 0
        self.by_uuid: dict[str, tuple[str, str]] = {}
        self.by_ref: dict[str, str] = {}
        self._referrers: dict[tuple[str, str], dict[str, FrozenList]] = {}
        """Of a derived field or right end (class, name): the list of each row that has any, there or not."""
        self._arriving: dict[tuple[str, str], dict[str, list[str]]] = {}
        """The same while rows are loaded, in the opposite order."""
        self._history: deque[tuple[int, str, str]] = deque(maxlen=HISTORY)

    # ---- reading

    def row(self, cls: str, ref: str) -> Mapping[str, Any] | None:
        """The row's fields, or None."""
        row = self.tables[cls].rows.get(ref)
        return None if row is None else row.fields

    def get(self, cls: str, ref: str, name: str) -> Any:
        """One field. Raises HANDLE_INVALID [cls, ref]."""
        row = self.tables[cls].rows.get(ref)
        if row is None:
            raise ApiError("HANDLE_INVALID", cls, ref)
        return row.fields[name]

    def rows(self, cls: str) -> Mapping[str, Mapping[str, Any]]:
        """Reference to fields, for every row of a class."""
        return _RowsView(self.tables[cls].rows)

    def find(self, cls: str, ref: str) -> Row | None:
        return self.tables[cls].rows.get(ref)

    def by_name_label(self, cls: str, label: str) -> list[str]:
        return list(self.tables[cls].by_name.get(label, ()))

    def ref_of_uuid(self, cls: str, uuid: str) -> str | None:
        """None also when the uuid belongs to another class."""
        found = self.by_uuid.get(uuid)
        return found[1] if found is not None and found[0] == cls else None

    def count(self) -> int:
        return len(self.by_ref)

    def changes_since(self, generation: int) -> list[tuple[str, str]] | None:
        """(class, ref) changed after `generation`, each once; None when that is too long ago: look at every row."""
        full = len(self._history) == HISTORY  # then the oldest generation may be there in part only
        if not self._history or self._history[0][0] > generation + (not full):
            return None if generation < self.generation else []
        seen: dict[tuple[str, str], None] = {}
        for at, cls, ref in reversed(self._history):
            if at <= generation:
                break
            seen[cls, ref] = None
        return list(seen)

    def snapshot(self) -> Iterator[SnapshotRow]:
        """Every row with its stored fields only."""
        for cls, table in self.tables.items():
            derived = LINKS[cls].derived
            for ref, row in table.rows.items():
                fields = {k: v for k, v in row.fields.items() if k not in derived} if derived else row.fields
                yield SnapshotRow(
                    cls=cls,
                    ref=ref,
                    created=row.created,
                    modified=row.modified,
                    fields=fields,
                    written=dict(row.written),
                )

    # ---- changing

    def load(self, rows: Iterable[SnapshotRow], generation: int, term: int) -> None:
        """Fills an empty store."""
        with garbage.paused():
            self.add(rows)
            self.complete(generation, term)
        garbage.keep(self.count())

    def add(self, rows: Iterable[SnapshotRow]) -> None:
        """Fills an empty store, part by part; `complete` follows the last one."""
        for item in rows:
            if item.cls not in self.tables:
                continue
            ref = intern(item.ref)
            row = self._insert(item.cls, ref, item.fields, item.created)
            row.modified = item.modified
            if item.written:
                row.written = {intern(name): at for name, at in item.written.items()}
            links = LINKS[item.cls]
            for name, target in links.one_many.items():
                self._arrive(target, row.fields[name], ref)
            for name, target in links.many_many.items():
                for to in dict.fromkeys(row.fields[name]):
                    self._arrive(target, to, ref)

    def _arrive(self, target: tuple[str, str], to: str, ref: str) -> None:
        if to and to != NULL and target[0] in self.tables:
            self._arriving.setdefault(target, {}).setdefault(to, []).append(ref)

    def complete(self, generation: int, term: int) -> None:
        """All rows are there."""
        for (cls, name), lists in self._arriving.items():
            rows = self.tables[cls].rows if name in LINKS[cls].derived else {}
            kept = self._referrers.setdefault((cls, name), {})
            for to, refs in lists.items():
                refs.reverse()
                kept[to] = FrozenList(refs)
                if to in rows:
                    rows[to].fields[name] = kept[to]
        self._arriving.clear()
        for cls, table in self.tables.items():
            for name in LINKS[cls].right_ends:
                for ref, row in table.rows.items():
                    self._settle((cls, name), ref, row)
        self.generation, self.term = generation, term
        for table in self.tables.values():
            table.touched = max((row.modified for row in table.rows.values()), default=0)

    def become(self, other: Store) -> None:
        """All rows are those of `other`, which nobody may use any more."""
        self.tables, self.by_uuid, self.by_ref = other.tables, other.by_uuid, other.by_ref
        self._referrers, self._arriving, self._history = other._referrers, other._arriving, other._history
        self.generation, self.term = other.generation, other.term

    def apply(self, delta: Delta) -> list[Touched]:
        """Applies one commit; returns every row it touched, each once, in order of first touch."""
        touched: dict[tuple[str, str], Touched] = {}
        self.generation, self.term = delta.generation, delta.term
        for change in delta.changes:
            if change.cls in self.tables:
                self._apply(change, delta.generation, touched)
        for cls, ref in touched:
            self._history.append((delta.generation, cls, ref))
        return list(touched.values())

    def _apply(self, change: RowChange, generation: int, touched: dict[tuple[str, str], Touched]) -> None:
        cls, ref = change.cls, change.ref
        table = self.tables[cls]
        if isinstance(change, RowCreated):
            ref = intern(ref)
            row = self._insert(cls, ref, change.fields, generation)
            table.touched = generation
            touched[cls, ref] = Touched(cls, ref, "add", row)
            links = LINKS[cls]
            for name in links.right_ends:
                self._settle((cls, name), ref, row)
            for name, target in links.one_many.items():
                self._link(target, row.fields[name], ref)
                self._touch(target[0], row.fields[name], generation, touched, (target[1],))
            for name, target in links.many_many.items():
                self._relink(target, EMPTY_LIST, row.fields[name], ref, generation, touched)
        elif isinstance(change, RowDeleted):
            self._delete(cls, ref, generation, touched)
        else:
            self._modify(change, generation, touched)

    def _insert(self, cls: str, ref: str, values: dict[str, Any], generation: int) -> Row:
        """A new row and its indexes; whoever calls links it to others."""
        table = self.tables[cls]
        fields = COLUMNS[cls].row(values)
        for name in LINKS[cls].derived:
            if (lists := self._referrers.get((cls, name))) is not None and ref in lists:
                fields[name] = lists[ref]
        row = Row(fields, generation, generation)
        table.rows[ref] = row
        self.by_ref[ref] = cls
        if uuid := fields.get("uuid"):
            self.by_uuid[uuid] = (cls, ref)
        if "name_label" in fields:
            table.by_name.setdefault(fields["name_label"], {})[ref] = None
        return row

    def _modify(self, change: RowModified, generation: int, touched: dict[tuple[str, str], Touched]) -> None:
        cls, ref = change.cls, change.ref
        table = self.tables[cls]
        row = table.rows.get(ref)
        if row is None:
            return
        links, columns = LINKS[cls], COLUMNS[cls]
        for name, given in change.fields.items():
            old, value = row.fields[name], columns.value(name, given)
            if name in links.one_many:
                target = links.one_many[name]
                self._unlink(target, old, ref)
                self._touch(target[0], old, generation, touched, (target[1],))
                self._link(target, value, ref)
                self._touch(target[0], value, generation, touched, (target[1],))
            elif name in links.many_many:
                self._relink(links.many_many[name], old, value, ref, generation, touched)
            elif name in links.right_ends:
                continue
            elif name == "name_label":
                self._rename(table, ref, old, value)
            elif name == "uuid":
                self._forget_uuid(cls, ref, old)
                self.by_uuid[value] = (cls, ref)
            row.fields = {**row.fields, name: value}
        self._touch(cls, ref, generation, touched, change.fields)

    def _delete(self, cls: str, ref: str, generation: int, touched: dict[tuple[str, str], Touched]) -> None:
        table = self.tables[cls]
        row = table.rows.pop(ref, None)
        if row is None:
            return
        del self.by_ref[ref]
        links = LINKS[cls]
        self._forget_uuid(cls, ref, row.fields.get("uuid", ""))
        if "name_label" in row.fields:
            self._rename(table, ref, row.fields["name_label"], None)
        for name, target in links.one_many.items():
            self._unlink(target, row.fields[name], ref)
            self._touch(target[0], row.fields[name], generation, touched, (target[1],))
        for name, target in links.many_many.items():
            self._relink(target, row.fields[name], EMPTY_LIST, ref, generation, touched)
        table.tombstones.append((row.created, generation, ref))
        if len(table.tombstones) >= table.remembered:
            for _ in range(table.remembered // 2):
                table.tombstones.popleft()
        table.touched = generation
        before = touched.get((cls, ref)) or Touched(cls, ref, "mod", row, row.modified, row.written)
        touched[cls, ref] = Touched(cls, ref, "del", row, before.before, before.written)

    def _touch(
        self, cls: str, ref: Any, generation: int, touched: dict[tuple[str, str], Touched], names: Iterable[str]
    ) -> None:
        """A row has changed, in those fields; in none when it was only touched."""
        table = self.tables.get(cls)
        row = table.rows.get(ref) if table is not None else None
        if table is None or row is None:
            return
        if (cls, ref) not in touched:
            touched[cls, ref] = Touched(cls, ref, "mod", row, row.modified, row.written)
        row.modified = table.touched = generation
        if row.created != generation and (written := dict.fromkeys(names, generation)):
            row.written = {**row.written, **written}
        if row.fragments:
            row.fragments = {}

    def _forget_uuid(self, cls: str, ref: str, uuid: str) -> None:
        """Unless an earlier change of the same commit has given it to another row."""
        if self.by_uuid.get(uuid) == (cls, ref):
            del self.by_uuid[uuid]

    def _rename(self, table: Table, ref: str, old: str | None, new: str | None) -> None:
        if old is not None and (same := table.by_name.get(old)) is not None:
            same.pop(ref, None)
            if not same:
                del table.by_name[old]
        if new is not None:
            table.by_name.setdefault(new, {})[ref] = None

    def _link(self, target: tuple[str, str], to: str, ref: str) -> None:
        if to and to != NULL and target[0] in self.tables:
            lists = self._referrers.setdefault(target, {})
            self._refer(target, to, FrozenList((ref, *lists.get(to, ()))))

    def _unlink(self, target: tuple[str, str], to: str, ref: str) -> None:
        members = self._referrers.get(target, {}).get(to, EMPTY_LIST)
        if ref in members:
            self._refer(target, to, FrozenList([member for member in members if member != ref]))

    def _refer(self, target: tuple[str, str], to: str, members: FrozenList) -> None:
        """Gives a row, or the one that may come under that reference, a new list of those that refer to it."""
        cls, name = target
        if members:
            self._referrers[target][to] = members
        else:
            del self._referrers[target][to]
        row = self.tables[cls].rows.get(to)
        if row is not None:
            row.fields = {**row.fields, name: members or EMPTY_LIST}

    def _relink(
        self,
        target: tuple[str, str],
        old: Sequence[str],
        new: Sequence[str],
        ref: str,
        generation: int,
        touched: dict[tuple[str, str], Touched],
    ) -> None:
        """The right ends of a many-to-many relation follow the left one."""
        for other in dict.fromkeys(old):
            if other not in new:
                self._unlink(target, other, ref)
                self._touch(target[0], other, generation, touched, (target[1],))
        for other in dict.fromkeys(new):
            if other not in old:
                self._link(target, other, ref)
                self._touch(target[0], other, generation, touched, (target[1],))

    def _settle(self, target: tuple[str, str], ref: str, row: Row) -> None:
        """The right end of a row that has come: what the left ends say, in the order that it was kept in."""
        name = target[1]
        members = self._referrers.get(target, {}).get(ref, EMPTY_LIST)
        if sorted(row.fields[name]) != sorted(members):
            row.fields[name] = members
        elif members:
            self._referrers[target][ref] = row.fields[name]


class _RowsView(Mapping[str, Mapping[str, Any]]):
    """The rows of a table as a mapping of reference to fields, without copying."""

    __slots__ = ("_rows",)

    def __init__(self, rows: dict[str, Row]) -> None:
        self._rows = rows

    def __getitem__(self, ref: str) -> Mapping[str, Any]:
        return self._rows[ref].fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, ref: object) -> bool:
        return ref in self._rows

    def items(self) -> ItemsView[str, Mapping[str, Any]]:
        return _RowItems(self)


class _RowItems(ItemsView[str, Mapping[str, Any]]):
    """Quicker than looking each reference up."""

    _mapping: _RowsView

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for ref, row in self._mapping._rows.items():
            yield ref, row.fields
