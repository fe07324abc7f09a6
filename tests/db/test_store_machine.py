"""The store against a simple model, step by step: transactions, their refusals, what takes them back, those who follow.

`STORE_MACHINE_EXAMPLES` (30) and `STORE_MACHINE_STEPS` (30) make it search longer.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.db.transaction import inverse, resolve
from shared.contracts.db import (
    Change,
    Create,
    Delete,
    Delta,
    Equals,
    KeyAbsent,
    MapDrop,
    MapPut,
    Precondition,
    RowAbsent,
    RowChange,
    RowCreated,
    RowPresent,
    SetAdd,
    SetDrop,
    SnapshotRow,
    Touch,
    Transact,
    Unchanged,
    Update,
)
from shared.errors import ApiError
from shared.store import LINKS, NULL, Store, Touched
from tests.db import soundness
from tests.db.store_model import Key, Model

EXAMPLES = int(os.environ.get("STORE_MACHINE_EXAMPLES", "30"))
STEPS = int(os.environ.get("STORE_MACHINE_STEPS", "30"))

REFS = {
    cls: [f"OpaqueRef:{cls}{number}" for number in range(3)]
    for cls in ("VM", "VM_group", "VM_appliance", "VBD", "VDI", "PCI", "GPU_group", "VGPU_type", "session", "task")
}
"""Few, so that rows come and go under the same one, and references lead to rows that are there, gone or to come."""

TEXTS = ["", "a", "b", "tab\tand 'quote' <&> %.\n", "\u00e9\U0001f600"]
KEYS = TEXTS[1:]
UUIDS = [f"uuid-{number}" for number in range(12)]


def ref(cls: str) -> list[str]:
    return [*REFS[cls], NULL, ""]


def sets(items: list[str]) -> list[list[str]]:
    """Of up to three, in any order."""
    return [list(chosen) for count in range(4) for chosen in itertools.permutations(items[:3], count)]


FIELDS: dict[str, dict[str, list[Any]]] = {
    "VM": {
        "name_label": TEXTS,
        "parent": ref("VM"),
        "snapshot_of": ref("VM"),
        "appliance": ref("VM_appliance"),
        "groups": sets(REFS["VM_group"]),
        "VCPUs_max": [0, 1, -(2**63), 2**63 - 1],
        "tags": sets(TEXTS),
        "other_config": [{}, {"a": ""}, {"a": "b", "b": "a"}, {TEXTS[3]: TEXTS[4]}],
        "allowed_operations": sets(["start", "clone"]),
    },
    "VM_group": {"name_label": TEXTS},
    "VM_appliance": {"name_label": TEXTS},
    "VBD": {"VM": ref("VM"), "VDI": ref("VDI"), "empty": [True, False]},
    "VDI": {"snapshot_of": ref("VDI"), "name_label": TEXTS},
    "PCI": {"attached_VMs": sets(REFS["VM"]), "physical_function": ref("PCI")},
    "GPU_group": {"supported_VGPU_types": sets(REFS["VGPU_type"]), "enabled_VGPU_types": sets(REFS["VGPU_type"])},
    "VGPU_type": {"compatible_types_in_vm": sets(REFS["VGPU_type"])},
    "session": {"parent": ref("session")},
    "task": {
        "session": ref("session"),
        "subtask_of": ref("task"),
        "progress": [0.0, 0.1, 1.0, 1e-300],
    },
}
"""What is written, and with which values."""

NONSENSE = [None, 5.5, math.nan, math.inf, [1], {"a": 1}, {"": ""}, "\x00"]


def of(items: Iterable[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(items))


class Draws:
    """Transactions, mostly about rows that are there."""

    def __init__(self, data: st.DataObject, rows: Iterable[Key]) -> None:
        self._data = data
        self._there = sorted(rows)
        self._all = [(cls, name) for cls, names in REFS.items() for name in names]

    def _key(self, cls: str = "") -> Key:
        keys = [key for key in self._there if not cls or key[0] == cls]
        if not keys or self._data.draw(st.integers(0, 9)) == 0:
            keys = [key for key in self._all if not cls or key[0] == cls]
        return self._data.draw(of(keys))  # type: ignore[no-any-return]

    def _values(self, cls: str) -> dict[str, Any]:
        names = self._data.draw(st.lists(of(FIELDS[cls]), max_size=3, unique=True))
        return {name: self._data.draw(of(FIELDS[cls][name])) for name in names}

    def create(self) -> Change:
        free = [key for key in self._all if key not in self._there]
        cls, name = self._data.draw(of(free)) if free else self._key()
        uuid = {"uuid": self._data.draw(of(UUIDS))} if self._data.draw(st.booleans()) else {}
        return Create(cls=cls, ref=name, fields={**self._values(cls), **uuid})

    def update(self) -> Change:
        cls, name = self._key()
        return Update(cls=cls, ref=name, fields=self._values(cls))

    def new_uuid(self) -> Change:
        cls, name = self._key()
        return Update(cls=cls, ref=name, fields={"uuid": self._data.draw(of(UUIDS))})

    def delete(self) -> Change:
        cls, name = self._key()
        return Delete(cls=cls, ref=name)

    def touch(self) -> Change:
        cls, name = self._key()
        return Touch(cls=cls, ref=name)

    def part(self) -> Change:
        """Of a set or a map."""
        _, name = self._key("VM")
        draw = self._data.draw
        match draw(st.integers(0, 3)):
            case 0:
                new = draw(st.booleans())
                key, value = draw(of(KEYS)), draw(of(TEXTS))
                return MapPut(cls="VM", ref=name, field="other_config", key=key, value=value, new=new)
            case 1:
                return MapDrop(cls="VM", ref=name, field="other_config", key=draw(of(KEYS)))
            case 2:
                return SetAdd(cls="VM", ref=name, field="groups", value=draw(of(REFS["VM_group"])))
            case _:
                return SetDrop(cls="VM", ref=name, field="groups", value=draw(of(REFS["VM_group"])))

    def fact(self) -> Precondition:
        cls, name = self._key()
        draw = self._data.draw
        match draw(st.integers(0, 4)):
            case 0:
                return RowPresent(cls=cls, ref=name)
            case 1:
                return RowAbsent(cls=cls, ref=name)
            case 2:
                return Unchanged(cls=cls, ref=name, generation=draw(st.integers(0, 40)))
            case 3:
                _, name = self._key("VM")
                return KeyAbsent(cls="VM", ref=name, field="other_config", key=draw(of(KEYS)))
            case _:
                field = draw(of(FIELDS[cls]))
                return Equals(cls=cls, ref=name, field=field, value=draw(of(FIELDS[cls][field])))

    def transaction(self) -> Transact:
        kinds = [self.create, self.update, self.update, self.delete, self.touch, self.new_uuid, self.part]
        changes = [self._data.draw(of(kinds))() for _ in range(self._data.draw(st.integers(1, 4)))]
        facts = [self.fact()] if self._data.draw(st.integers(0, 3)) == 0 else []
        return Transact(changes=changes, preconditions=facts)


def through_json(rows: list[SnapshotRow]) -> list[SnapshotRow]:
    """As a checkpoint or a page of a snapshot brings them."""
    return msgspec.json.decode(orjson.dumps(rows, default=msgspec.to_builtins), type=list[SnapshotRow])


def loaded(store: Store) -> Store:
    made = Store()
    made.load(through_json(list(store.snapshot())), store.generation, store.term)
    return made


def delta(store: Store, made: list[RowChange]) -> Delta:
    """What followers get over the wire."""
    plain = Delta(term=1, generation=store.generation + 1, previous=store.generation, changes=made)
    return msgspec.json.decode(orjson.dumps(plain, default=msgspec.to_builtins), type=Delta)


def rows_of(store: Store) -> dict[Key, tuple[int, int, dict[str, Any]]]:
    """All fields of all rows, lists that follow from others without their order."""
    found = {}
    for cls, table in store.tables.items():
        unordered = {*LINKS[cls].derived, *LINKS[cls].right_ends}
        for name, row in table.rows.items():
            fields = {key: sorted(value) if key in unordered else value for key, value in row.fields.items()}
            found[cls, name] = (row.created, row.modified, fields)
    return found


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.store = Store()
        self.follower = Store()
        """Gets every delta, and a snapshot now and then."""
        self.known_since = 0
        """Generation since when the store remembers what was touched and deleted."""

    # ---- what happens

    @rule(data=st.data())
    def transact(self, data: st.DataObject) -> None:
        self._transact(Draws(data, self.model.rows).transaction())

    @rule(data=st.data())
    def create(self, data: st.DataObject) -> None:
        self._transact(Transact(changes=[Draws(data, self.model.rows).create()]))

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """A commit that could not be made durable: rows are what they were."""
        try:
            made = resolve(self.store, Draws(data, self.model.rows).transaction())
        except ApiError:
            return
        copy = loaded(self.store)
        undo = inverse(copy, made)
        copy.apply(delta(copy, made))
        copy.apply(delta(copy, undo))
        assert {key: fields for key, (_, _, fields) in rows_of(copy).items()} == {
            key: fields for key, (_, _, fields) in rows_of(self.store).items()
        }
        soundness.assert_sound(copy)

    @rule()
    def start_anew(self) -> None:
        self.store = loaded(self.store)
        self.known_since = self.store.generation

    @rule()
    def follow_anew(self) -> None:
        self.follower = loaded(self.store)

    @rule(cls=of(REFS), value=of(NONSENSE), data=st.data())
    def write_nonsense(self, cls: str, value: Any, data: st.DataObject) -> None:
        """Refused or made storable; never half done."""
        field = data.draw(of([*FIELDS[cls], "VBDs", "VMs", "no_field"]))
        request = Transact(changes=[Update(cls=cls, ref=REFS[cls][0], fields={field: value})])
        copy = loaded(self.store)
        try:
            copy.apply(delta(copy, resolve(self.store, request)))
        except ApiError as error:
            event(error.code)
        soundness.assert_sound(copy)

    def _transact(self, request: Transact) -> None:
        try:
            made = resolve(self.store, request)
        except ApiError as error:
            with pytest.raises(ApiError, match=error.code):
                self.model.transact(request, {})
            return
        uuids = {(change.cls, change.ref): change.fields["uuid"] for change in made if isinstance(change, RowCreated)}
        before = {key: row.modified for key, row in self.model.rows.items()}
        kinds = self.model.transact(request, uuids)
        assert bool(made) == bool(kinds)
        if made:
            commit = delta(self.store, made)
            self._check_touched(self.store.apply(commit), kinds, before)
            self.follower.apply(commit)

    @staticmethod
    def _check_touched(touched: list[Touched], kinds: dict[Key, str], before: dict[Key, int]) -> None:
        assert {(item.cls, item.ref): item.kind for item in touched} == kinds
        for item in touched:
            assert item.before == before.get((item.cls, item.ref), 0)

    # ---- what always holds

    @invariant()
    def rows_are_those_of_the_model(self) -> None:
        assert self.store.generation == self.model.generation
        lists = self.model.lists()
        found = rows_of(self.store)
        assert found.keys() == self.model.rows.keys()
        for (cls, name), (created, modified, fields) in found.items():
            row = self.model.rows[cls, name]
            assert (created, modified) == (row.created, row.modified)
            for field, value in fields.items():
                if field in row.fields:
                    assert value == row.fields[field]
                else:
                    assert set(value) == lists.get((cls, name, field), set())
                    assert len(set(value)) == len(value)

    @invariant()
    def followers_agree(self) -> None:
        assert rows_of(self.follower) == rows_of(self.store)

    @invariant()
    def the_database_is_sound(self) -> None:
        soundness.assert_sound(self.store)
        soundness.assert_sound(self.follower)

    @invariant()
    def what_changed_is_known(self) -> None:
        for generation in (self.known_since, (self.known_since + self.store.generation) // 2, self.store.generation):
            changed = self.store.changes_since(generation)
            expected = {key for at, keys in self.model.touched if at > generation for key in keys}
            assert changed is not None
            assert set(changed) == expected
            assert len(changed) == len(expected)
        for cls in REFS:
            expected_deletions = [item for item in self.model.deleted.get(cls, []) if item[1] > self.known_since]
            assert sorted(self.store.tables[cls].tombstones) == sorted(expected_deletions)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
