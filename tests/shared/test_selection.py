"""Rows that are selected, after every change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.contracts.db import RowDeleted, RowModified
from shared.selection import Selection
from shared.store import HISTORY, Store
from tests.shared.test_store import apply, vm


def marked(row: Mapping[str, Any]) -> bool:
    return bool(row["name_label"] == "marked")


def named(ref: str, name: str) -> RowModified:
    return RowModified(cls="VM", ref=ref, fields={"name_label": name})


def test_it_follows_rows_that_come_change_and_go() -> None:
    store, selection = Store(), Selection("VM", marked)
    apply(store, vm("a", name_label="marked"), vm("b"))
    assert selection.among(store) == ["a"]
    apply(store, vm("c", name_label="marked"), named("b", "marked"))
    assert set(selection.among(store)) == {"a", "b", "c"}
    apply(store, named("a", "other"), RowDeleted(cls="VM", ref="b"))
    assert selection.among(store) == ["c"]
    assert selection.among(store) == ["c"]


def test_a_row_that_came_and_went_between_two_looks_is_not_there() -> None:
    store, selection = Store(), Selection("VM", marked)
    assert selection.among(store) == []
    apply(store, vm("a", name_label="marked"))
    apply(store, RowDeleted(cls="VM", ref="a"))
    assert selection.among(store) == []


def test_another_store_is_looked_at_as_a_whole_whatever_its_generation() -> None:
    selection = Selection("VM", marked)
    old, new = Store(), Store()
    apply(old, vm("a", name_label="marked"))
    assert selection.among(old) == ["a"]
    apply(new, vm("b", name_label="marked"))
    assert new.generation == old.generation
    assert selection.among(new) == ["b"]


def test_only_what_has_changed_is_looked_at() -> None:
    looks: list[str] = []

    def holds(row: Mapping[str, Any]) -> bool:
        looks.append(row["uuid"])
        return False

    store, selection = Store(), Selection("VM", holds)
    apply(store, vm("a"), vm("b"))
    selection.among(store)
    looks.clear()
    apply(store, named("b", "new"))
    selection.among(store)
    assert looks == ["u-b"]


def test_after_more_changes_than_are_remembered_nothing_is_missed() -> None:
    store, selection = Store(), Selection("VM", marked)
    apply(store, vm("a"), vm("b"))
    assert selection.among(store) == []
    apply(store, named("a", "marked"))
    for number in range(HISTORY):
        apply(store, named("b", str(number)))
    assert selection.among(store) == ["a"]
