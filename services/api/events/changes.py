"""What happened after a token, read from the rows: created, modified and deleted generations are all there is to it.

Changes of one object are one event with its latest state; an object made and destroyed in between is none
(`wire-protocol` 7.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.api.events.subscription import MESSAGE, Subscription
from services.api.events.tokens import Token
from shared.datamodel import model
from shared.store import Row, Store

Kind = Literal["add", "mod", "del"]


@dataclass(slots=True)
class Section:
    """Events of one class and kind: references, and beside them their rows, or when they were deleted.

    Lists of their own rather than pairs: a hundred thousand new tuples would set off the garbage collector.
    """

    cls: str
    kind: Kind
    refs: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Changes:
    """`sections`: in the order of the answer. `generation`, `messages`: the highest of the rows and of the messages
    that were looked at, those included that came and went unseen; 0 where there are none.
    """

    sections: list[Section]
    generation: int = 0
    messages: int = 0

    def __len__(self) -> int:
        return sum(len(section.refs) for section in self.sections)

    def after(self, token: Token, subscription: Subscription) -> Token:
        """The token of one who had seen everything up to `token`, and now these. It stays where there are none."""
        if not self.sections:
            return token if subscription.wants_messages else Token(token.generation, 0)
        messages = max(token.messages, self.messages) if subscription.wants_messages else 0
        return Token(max(token.generation, self.generation), messages)


def since(store: Store, subscription: Subscription, token: Token) -> Changes:
    """Messages first, then all `add`, `mod`, `del`."""
    found = _Found(store, token)
    whole = sorted(filter(found.is_stale, subscription.classes))
    recent = _recent(store, whole, token)
    for cls in whole:
        if recent is None:
            found.of_table(cls)
        else:
            found.of_refs(cls, recent.get(cls, ()))
        found.deletions(cls, None)
    for cls, refs in _by_class(sorted(subscription.objects)).items():
        if found.is_stale(cls):
            found.of_refs(cls, refs)
            found.deletions(cls, refs)
    return found.changes()


def _recent(store: Store, classes: Iterable[str], token: Token) -> dict[str, list[str]] | None:
    """References of these classes that may have changed, by class, the last one last; None: look at all."""
    wanted = set(classes)
    oldest = min(token) if MESSAGE in wanted else token.generation
    if not wanted or oldest <= 0:
        return None
    recent = store.changes_since(oldest)
    return None if recent is None else _by_class(item for item in reversed(recent) if item[0] in wanted)


def _by_class(objects: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cls, ref in objects:
        found.setdefault(cls, []).append(ref)
    return found


class _Found:
    """Collects events by kind."""

    def __init__(self, store: Store, token: Token) -> None:
        self._store = store
        self._token = token
        self._generation = self._messages = 0
        self._messages_first: list[Section] = []
        self._kinds: dict[Kind, list[Section]] = {"add": [], "mod": [], "del": []}

    def is_stale(self, cls: str) -> bool:
        """Whether anything in the class happened after the token."""
        table = self._store.tables.get(cls)
        if table is None:
            return False
        after, tombstones = self._after(cls), table.tombstones
        return table.touched > after or (bool(tombstones) and tombstones[-1][1] > after)

    def of_table(self, cls: str) -> None:
        """Every row of the class that is newer than the token."""
        table = self._store.tables[cls]
        after = self._after(cls)
        if after <= 0:
            self._add(Section(cls, "add", list(table.rows), list(table.rows.values())), table.touched)
        else:
            self.of_refs(cls, table.rows)

    def of_refs(self, cls: str, refs: Iterable[str]) -> None:
        """Those of the named rows that are there and newer than the token."""
        rows, after = self._store.tables[cls].rows, self._after(cls)
        added, modified = Section(cls, "add"), Section(cls, "mod")
        highest = 0
        for ref in refs:
            row = rows.get(ref)
            if row is not None and row.modified > after:
                section = added if row.created > after else modified
                section.refs.append(ref)
                section.rows.append(row)
                highest = max(highest, row.modified)
        self._add(added, highest)
        self._add(modified, highest)

    def deletions(self, cls: str, refs: Iterable[str] | None) -> None:
        """Rows (the named ones, or any) that the client knew and that are gone. The oldest are forgotten."""
        table, after = self._store.tables[cls], self._after(cls)
        wanted = None if refs is None else set(refs)
        gone: dict[str, int] = {}
        highest = 0
        for created, deleted, ref in reversed(table.tombstones):
            if deleted <= after:
                break
            if wanted is None or ref in wanted:
                highest = max(highest, deleted)
                if created <= after and ref not in table.rows:
                    gone.setdefault(ref, deleted)
        self._add(Section(cls, "del", list(gone), deleted=list(gone.values())), highest)

    def changes(self) -> Changes:
        sections = [*self._messages_first, *self._kinds["add"], *self._kinds["mod"], *self._kinds["del"]]
        return Changes(sections, self._generation, self._messages)

    def _after(self, cls: str) -> int:
        return self._token.messages if cls == MESSAGE else self._token.generation

    def _add(self, section: Section, highest: int) -> None:
        if section.cls == MESSAGE:
            self._messages = max(self._messages, highest)
        else:
            self._generation = max(self._generation, highest)
        if section.refs:
            (self._messages_first if section.cls == MESSAGE else self._kinds[section.kind]).append(section)


def counts(store: Store) -> Mapping[str, int]:
    """Rows of every class by its lower-cased name: how a client that slept too long notices."""
    tables = store.tables
    return {name.lower(): len(tables[name].rows) if name in tables else 0 for name in model.classes}
