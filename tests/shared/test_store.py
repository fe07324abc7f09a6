"""Rows in memory: relations, indexes, deletions, and agreement between a primary and those who follow it."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import pytest

from shared.columns import LONGEST
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified
from shared.datamodel import model
from shared.store import TOMBSTONES, Store, Touched


def delta(store: Store, *changes: RowChange) -> Delta:
    return Delta(term=1, generation=store.generation + 1, previous=store.generation, changes=list(changes))


def apply(store: Store, *changes: RowChange) -> list[Touched]:
    return store.apply(delta(store, *changes))


def vm(ref: str, **fields: Any) -> RowCreated:
    return RowCreated(cls="VM", ref=ref, fields={"uuid": f"u-{ref}", "name_label": "v", **fields})


def vbd(ref: str, of: str) -> RowCreated:
    return RowCreated(cls="VBD", ref=ref, fields={"uuid": f"u-{ref}", "VM": of})


def test_a_reference_maintains_the_list_on_the_other_side() -> None:
    store = Store()
    apply(store, vm("a"), vm("b"), vbd("x", "a"), vbd("y", "a"))
    assert store.get("VM", "a", "VBDs") == ["y", "x"]
    touched = apply(store, RowModified(cls="VBD", ref="x", fields={"VM": "b"}))
    assert (store.get("VM", "a", "VBDs"), store.get("VM", "b", "VBDs")) == (["y"], ["x"])
    assert {(item.cls, item.ref, item.kind) for item in touched} == {
        ("VBD", "x", "mod"),
        ("VM", "a", "mod"),
        ("VM", "b", "mod"),
    }
    apply(store, RowDeleted(cls="VBD", ref="y"))
    assert store.get("VM", "a", "VBDs") == []


def test_the_order_in_which_rows_arrive_does_not_matter() -> None:
    store = Store()
    apply(store, vbd("x", "a"))
    apply(store, vm("a"))
    assert store.get("VM", "a", "VBDs") == ["x"]


def test_deleting_the_one_side_leaves_the_reference_dangling() -> None:
    store = Store()
    apply(store, vm("a"), vbd("x", "a"))
    apply(store, RowDeleted(cls="VM", ref="a"))
    assert store.get("VBD", "x", "VM") == "a"


def test_many_to_many_follows_the_left_end() -> None:
    store = Store()
    group = RowCreated(cls="VM_group", ref="g", fields={"uuid": "ug", "name_label": "g"})
    apply(store, group, vm("a", groups=["g"]), vm("b"))
    assert store.get("VM_group", "g", "VMs") == ["a"]
    apply(store, RowModified(cls="VM", ref="b", fields={"groups": ["g"]}))
    assert set(store.get("VM_group", "g", "VMs")) == {"a", "b"}
    apply(store, RowDeleted(cls="VM", ref="a"))
    assert store.get("VM_group", "g", "VMs") == ["b"]


def test_the_right_end_says_what_the_left_ends_do_whoever_came_first() -> None:
    store = Store()
    apply(store, vm("a", groups=["g", "g"]), vm("b", groups=["g"]))
    apply(store, RowCreated(cls="VM_group", ref="g", fields={"uuid": "ug", "VMs": ["nobody"]}))
    assert sorted(store.get("VM_group", "g", "VMs")) == ["a", "b"]
    apply(store, RowModified(cls="VM_group", ref="g", fields={"VMs": []}))
    assert sorted(store.get("VM_group", "g", "VMs")) == ["a", "b"]


def test_a_loaded_right_end_keeps_its_order_unless_it_is_untrue() -> None:
    store = Store()
    apply(store, RowCreated(cls="VM_group", ref="g", fields={"uuid": "ug"}), vm("a", groups=["g"]), vm("b"))
    apply(store, RowModified(cls="VM", ref="b", fields={"groups": ["g"]}))
    apply(store, RowModified(cls="VM", ref="a", fields={"groups": []}))
    apply(store, RowModified(cls="VM", ref="a", fields={"groups": ["g"]}))
    rows = {row.ref: row for row in store.snapshot()}
    loaded, mended = Store(), Store()
    loaded.load(rows.values(), store.generation, 1)
    assert loaded.get("VM_group", "g", "VMs") == store.get("VM_group", "g", "VMs") == ["a", "b"]
    rows["g"].fields["VMs"] = ["a", "nobody"]
    mended.load(rows.values(), store.generation, 1)
    assert sorted(mended.get("VM_group", "g", "VMs")) == ["a", "b"]


def test_a_row_that_was_touched_and_deleted_at_once_was_last_changed_before() -> None:
    store = Store()
    apply(store, vm("a"))
    apply(store, vbd("x", "a"))
    at = store.generation
    touched = apply(store, RowDeleted(cls="VBD", ref="x"), RowDeleted(cls="VM", ref="a"))
    assert {item.ref: (item.kind, item.before) for item in touched} == {"x": ("del", at), "a": ("del", at)}


def test_names_and_uuids_are_indexed() -> None:
    store = Store()
    apply(store, vm("a", name_label="one"), vm("b", name_label="one"))
    assert store.by_name_label("VM", "one") == ["a", "b"]
    apply(store, RowModified(cls="VM", ref="a", fields={"name_label": "two"}), RowDeleted(cls="VM", ref="b"))
    assert (store.by_name_label("VM", "one"), store.by_name_label("VM", "two")) == ([], ["a"])
    assert store.ref_of_uuid("VM", "u-a") == "a"
    assert store.ref_of_uuid("host", "u-a") is None
    assert store.ref_of_uuid("VM", "u-b") is None


def test_tombstones_are_bounded() -> None:
    store = Store()
    for number in range(TOMBSTONES + 10):
        apply(store, vm(f"r{number}"))
        apply(store, RowDeleted(cls="VM", ref=f"r{number}"))
    assert TOMBSTONES // 2 <= len(store.tables["VM"].tombstones) < TOMBSTONES


def test_changes_since_names_each_row_once_or_gives_up() -> None:
    store = Store()
    apply(store, vm("a"))
    seen = store.generation
    apply(store, vm("b"))
    apply(store, RowModified(cls="VM", ref="b", fields={"name_label": "n"}))
    apply(store, RowModified(cls="VM", ref="a", fields={"name_label": "n"}))
    assert store.changes_since(seen) == [("VM", "a"), ("VM", "b")]
    assert store.changes_since(store.generation) == []
    assert Store().changes_since(0) == []
    fresh = Store()
    fresh.load(store.snapshot(), store.generation, 1)
    assert fresh.changes_since(seen) is None


def test_changes_since_gives_up_when_it_may_have_forgotten_part_of_a_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.store.HISTORY", 3)
    store = Store()
    store._history = deque(maxlen=3)
    apply(store, vm("a"))
    seen = store.generation
    apply(store, vm("b"), vm("c"), vm("d"), vm("e"))
    assert store.changes_since(seen) is None
    assert store.changes_since(store.generation) == []


def test_a_change_drops_the_encodings_of_the_row() -> None:
    store = Store()
    apply(store, vm("a"), vm("b"))
    for ref in ("a", "b"):
        row = store.find("VM", ref)
        assert row is not None
        row.fragments["xml"] = b"old"
    apply(store, vbd("x", "a"))
    assert store.find("VM", "a").fragments == {}  # type: ignore[union-attr]
    assert store.find("VM", "b").fragments == {"xml": b"old"}  # type: ignore[union-attr]


def test_who_holds_the_fields_of_a_row_keeps_that_state() -> None:
    store = Store()
    apply(store, vm("a", tags=["one"]), vbd("x", "a"))
    held = store.rows("VM")["a"]
    before = dict(held)
    apply(store, RowModified(cls="VM", ref="a", fields={"tags": ["two"], "name_label": "w"}), vbd("y", "a"))
    assert held == before
    held = store.rows("VM")["a"]
    assert held != before
    apply(store, RowDeleted(cls="VBD", ref="x"), RowDeleted(cls="VM", ref="a"))
    assert held["VBDs"] == ["y", "x"]


def test_rows_hold_equal_values_once_and_nobody_can_change_them() -> None:
    store = Store()
    apply(store, vm("a", tags=["one"], platform={"nx": "true"}), vm("b", tags=["one"], platform={"nx": "true"}))
    first, second = store.rows("VM")["a"], store.rows("VM")["b"]
    for name in ("tags", "platform", "VBDs", "current_operations"):
        assert first[name] is second[name]
    with pytest.raises(TypeError):
        first["tags"].append("two")
    with pytest.raises(TypeError):
        first["VBDs"].insert(0, "x")
    with pytest.raises(TypeError):
        first["platform"].update(nx="false")
    with pytest.raises(TypeError):
        first["current_operations"].setdefault("task", "start")
    assert (copy.deepcopy(first["tags"]), {**first["platform"]}) == (["one"], {"nx": "true"})
    copy.copy(first["tags"]).append("two")


def test_long_values_are_kept_by_their_rows_alone() -> None:
    store = Store()
    long = "x" * (LONGEST + 1)
    apply(store, vm("a", tags=[long], platform={"k": long}))
    tags = store.rows("VM")["a"]["tags"]
    assert (tags, store.rows("VM")["a"]["platform"]) == ([long], {"k": long})
    apply(store, vm("b", tags=[long]))
    assert store.rows("VM")["b"]["tags"] is not tags


def test_the_fields_of_a_row_are_in_the_models_order_whatever_was_given() -> None:
    store = Store()
    apply(store, RowCreated(cls="VM", ref="a", fields={"tags": [], "uuid": "u", "nothing": 1, "VBDs": ["x"]}))
    apply(store, RowModified(cls="VM", ref="a", fields={"name_label": "w"}), vbd("x", "a"))
    assert list(store.rows("VM")["a"]) == list(model.classes["VM"].fields)


def written(store: Store, cls: str, ref: str, *names: str) -> list[int]:
    row = store.find(cls, ref)
    assert row is not None
    return [row.field_modified(name) for name in names]


def test_every_field_has_a_generation_of_its_own() -> None:
    store = Store()
    apply(store, vm("a"))
    made = store.generation
    apply(store, RowModified(cls="VM", ref="a", fields={"name_label": "w"}))
    renamed = store.generation
    apply(store, vbd("x", "a"))
    assert written(store, "VM", "a", "tags", "name_label", "VBDs") == [made, renamed, store.generation]
    again = Store()
    again.load(store.snapshot(), store.generation, store.term)
    assert written(again, "VM", "a", "tags", "name_label", "VBDs") == [made, renamed, store.generation]
