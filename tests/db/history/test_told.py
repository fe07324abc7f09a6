"""What the history tells of a commit: who, which object, which fields, the values before and after."""

from __future__ import annotations

from typing import Any

from shared.bus.context import CallContext
from shared.contracts.db import Create, Delete, MapDrop, MapPut, SetAdd, SetDrop, Touch, Update
from shared.contracts.db_history import HIDDEN
from shared.logs import track_id
from shared.store import NULL
from tests.db import rows
from tests.db.history.commits import Told, values


def vbd(vm: str, **fields: Any) -> Create:
    return Create(cls="VBD", ref=rows.ref(), fields={"VM": vm, "VDI": NULL, **fields})


def test_a_changed_field_has_the_value_before_and_after() -> None:
    told, vm = Told(), rows.vm("before", name_description="same")
    told.change(vm)
    entry = told.change(Update(cls="VM", ref=vm.ref, fields={"name_label": "after", "name_description": "same"}))
    assert entry is not None
    assert (entry.generation, entry.term, entry.time, entry.kind) == (2, 1, 1000.0, "commit")
    [change] = entry.changes
    assert (change.cls, change.ref, change.kind, change.name) == ("VM", vm.ref, "mod", "after")
    assert change.uuid == told.store.get("VM", vm.ref, "uuid")
    assert values(change) == {"name_label": ("before", "after")}


def test_a_new_object_is_told_by_what_is_not_the_default() -> None:
    told, vm = Told(), rows.vm("web", VCPUs_max=4, other_config={"a": "1"})
    [fields] = told.told(vm).values()
    assert fields == {"name_label": ("", "web"), "VCPUs_max": (0, 4), "other_config": ({}, {"a": "1"})}


def test_a_deleted_object_is_told_with_what_it_was() -> None:
    told, vm = Told(), rows.vm("web", VCPUs_max=4)
    told.change(vm)
    uuid = told.store.get("VM", vm.ref, "uuid")
    entry = told.change(Delete(cls="VM", ref=vm.ref))
    assert entry is not None
    [change] = entry.changes
    assert (change.kind, change.uuid, change.name) == ("del", uuid, "web")
    assert values(change)["name_label"] == ("web", "")
    assert values(change)["VCPUs_max"][0] == 4


def test_of_maps_and_sets_the_difference_is_told() -> None:
    told, vm = Told(), rows.vm(other_config={"kept": "1", "old": "2", "other": "3"}, tags=["a", "b"])
    told.change(vm)
    assert told.told(
        MapPut(cls="VM", ref=vm.ref, field="other_config", key="old", value="two"),
        MapPut(cls="VM", ref=vm.ref, field="other_config", key="new", value="4"),
        MapDrop(cls="VM", ref=vm.ref, field="other_config", key="other"),
        SetAdd(cls="VM", ref=vm.ref, field="tags", value="c"),
        SetDrop(cls="VM", ref=vm.ref, field="tags", value="a"),
    ) == {
        (vm.ref, "mod"): {
            "other_config": ({"old": "2", "other": "3"}, {"old": "two", "new": "4"}),
            "tags": (["a"], ["c"]),
        }
    }


def test_the_other_end_of_a_relation_tells_who_came_and_went() -> None:
    told, one, two = Told(), rows.vm("one"), rows.vm("two")
    told.change(one, two)
    disk = vbd(one.ref)
    assert told.told(disk)[one.ref, "rel"] == {"VBDs": ([], [disk.ref])}
    assert told.told(Update(cls="VBD", ref=disk.ref, fields={"VM": two.ref})) == {
        (disk.ref, "mod"): {"VM": (one.ref, two.ref)},
        (one.ref, "rel"): {"VBDs": ([disk.ref], [])},
        (two.ref, "rel"): {"VBDs": ([], [disk.ref])},
    }
    assert told.told(Delete(cls="VBD", ref=disk.ref))[two.ref, "rel"] == {"VBDs": ([disk.ref], [])}


def test_both_ends_of_a_relation_of_many_with_many_are_told() -> None:
    told, vm = Told(), rows.vm("one")
    group = Create(cls="VM_group", ref=rows.ref(), fields={"name_label": "group"})
    told.change(vm, group)
    assert told.told(Update(cls="VM", ref=vm.ref, fields={"groups": [group.ref]})) == {
        (vm.ref, "mod"): {"groups": ([], [group.ref])},
        (group.ref, "rel"): {"VMs": ([], [vm.ref])},
    }


def test_an_object_that_goes_with_what_refers_to_it_is_told_once() -> None:
    told, vm = Told(), rows.vm("one")
    disk = vbd(vm.ref)
    told.change(vm, disk)
    assert told.told(Delete(cls="VBD", ref=disk.ref), Delete(cls="VM", ref=vm.ref)).keys() == {
        (disk.ref, "del"),
        (vm.ref, "del"),
    }


def test_what_does_not_outlive_the_machine_is_told_on_request_only() -> None:
    vm, task = rows.vm(), rows.task()
    operations: dict[str, Any] = {"current_operations": ({}, {"t": "start"})}
    for told, expected in ((Told(), {}), (Told(volatile=True), operations)):
        told.change(vm)
        assert (told.change(task) is None) == (not expected)
        fields = {"current_operations": {"t": "start"}}
        assert told.told(Update(cls="VM", ref=vm.ref, fields=fields)).get((vm.ref, "mod"), {}) == expected
        assert told.change(Touch(cls="VM", ref=vm.ref)) is None


def test_who_did_it_is_told_as_far_as_the_call_or_the_rows_know() -> None:
    told = Told()
    session = Create(
        cls="session", ref=rows.ref(), fields={"auth_user_name": "of the row", "originator": "xe", "pool": False}
    )
    task = rows.task("Async.VM.start")
    told.change(session, task)
    told.context = CallContext(task=task.ref, session=session.ref, user="mary", call="VM.start")
    entry = told.change(rows.network())
    assert entry is not None
    assert (entry.task, entry.call, entry.user, entry.originator) == (task.ref, "VM.start", "mary", "xe")
    assert entry.session == track_id(session.ref)
    told.context = CallContext(task=task.ref, session=session.ref)
    entry = told.change(rows.network())
    assert entry is not None
    assert (entry.call, entry.user) == ("Async.VM.start", "of the row")
    told.context = CallContext(origin=task.ref, call="VM.start")
    entry = told.change(rows.network())
    assert entry is not None
    assert (entry.task, entry.session, entry.user) == (task.ref, "", "")


def test_of_a_huge_commit_the_first_thousand_objects_are_told() -> None:
    told = Told()
    entry = told.change(*[rows.network(str(number)) for number in range(1003)])
    assert entry is not None
    assert (len(entry.changes), entry.note) == (1000, "and 3 more objects")


def test_a_secret_is_told_to_have_changed_and_nothing_else() -> None:
    told = Told()
    secret = Create(cls="secret", ref=rows.ref(), fields={"value": "s3cr3t"})
    assert told.told(secret) == {(secret.ref, "add"): {"value": ("", HIDDEN)}}
    assert told.told(Update(cls="secret", ref=secret.ref, fields={"value": "t0ps3cr3t"})) == {
        (secret.ref, "mod"): {"value": (HIDDEN, HIDDEN)}
    }


def test_sessions_are_told_by_their_digest() -> None:
    told = Told(volatile=True)
    session = Create(cls="session", ref=rows.ref(), fields={"auth_user_name": "root"})
    task = rows.task()
    task.fields["session"] = session.ref
    entry = told.change(session, task)
    assert entry is not None
    assert session.ref not in repr(entry)
    assert entry.changes[0].ref == track_id(session.ref)
    assert values(entry.changes[1])["session"] == (NULL, track_id(session.ref))
