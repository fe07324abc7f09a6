"""What a transaction comes to, worked out before anything changes."""

from __future__ import annotations

import pytest

from services.db.transaction import check, inverse, persistent_part, resolve
from shared.contracts.db import (
    Change,
    Create,
    Delete,
    Equals,
    KeyAbsent,
    MapDrop,
    MapPut,
    Precondition,
    RowAbsent,
    RowCreated,
    RowDeleted,
    RowModified,
    RowPresent,
    SetAdd,
    SetDrop,
    Touch,
    Transact,
    Unchanged,
    Update,
)
from shared.errors import ApiError, DatabaseConflict
from shared.store import Store
from tests.db import rows


@pytest.fixture
def store() -> Store:
    return Store()


def commit(store: Store, *changes: Change, given: list[Precondition] | None = None) -> None:
    rows.apply(store, resolve(store, Transact(changes=list(changes), preconditions=given or [])))


def refused(store: Store, *changes: Change, given: list[Precondition] | None = None) -> ApiError:
    before = (store.generation, store.count())
    with pytest.raises(ApiError) as caught:
        commit(store, *changes, given=given)
    assert (store.generation, store.count()) == before
    return caught.value


def test_a_new_row_has_defaults_and_a_uuid(store: Store) -> None:
    made = rows.network("lan")
    commit(store, made)
    row = store.row("network", made.ref)
    assert row is not None
    assert (row["name_label"], row["MTU"], row["tags"]) == ("lan", 1500, [])
    assert store.ref_of_uuid("network", row["uuid"]) == made.ref


def test_an_existing_reference_is_a_conflict(store: Store) -> None:
    made = rows.network()
    commit(store, made)
    assert refused(store, made).code == "DB_CONFLICT"


def test_a_uuid_is_unique_over_all_classes(store: Store) -> None:
    commit(store, rows.network(uuid="u"))
    assert refused(store, rows.vm(uuid="u")).code == "DB_UNIQUENESS_CONSTRAINT_VIOLATION"
    assert refused(store, rows.vm(uuid="w"), rows.vm(uuid="w")).code == "DB_UNIQUENESS_CONSTRAINT_VIOLATION"


def test_a_uuid_can_pass_from_a_row_that_goes_to_a_new_one(store: Store) -> None:
    old = rows.vm(uuid="u")
    commit(store, old)
    new = rows.vm(uuid="u")
    commit(store, Delete(cls="VM", ref=old.ref), new)
    assert store.ref_of_uuid("VM", "u") == new.ref


def test_a_uuid_that_another_row_has_is_not_taken_by_an_update(store: Store) -> None:
    one, two = rows.vm(uuid="u"), rows.network(uuid="w")
    commit(store, one, two)
    taken = Update(cls="network", ref=two.ref, fields={"uuid": "u"})
    assert refused(store, taken).code == "DB_UNIQUENESS_CONSTRAINT_VIOLATION"
    assert refused(store, Update(cls="VM", ref=one.ref, fields={"uuid": ""})).code == "INTERNAL_ERROR"


def test_two_rows_can_change_their_uuids_for_each_others(store: Store) -> None:
    one, two = rows.vm(uuid="u"), rows.vm(uuid="w")
    commit(store, one, two)
    steps = ((one.ref, "x"), (two.ref, "u"), (one.ref, "w"))
    commit(store, *(Update(cls="VM", ref=ref, fields={"uuid": uuid}) for ref, uuid in steps))
    assert (store.ref_of_uuid("VM", "u"), store.ref_of_uuid("VM", "w")) == (two.ref, one.ref)
    assert store.ref_of_uuid("VM", "x") is None


def test_a_reference_is_of_one_row_whatever_its_class(store: Store) -> None:
    made = rows.vm()
    assert refused(store, made, Create(cls="network", ref=made.ref, fields={})).code == "DB_CONFLICT"
    assert refused(store, Create(cls="network", ref="OpaqueRef:NULL", fields={})).code == "DB_CONFLICT"


def test_a_value_that_is_written_and_written_back_is_no_change(store: Store) -> None:
    made = rows.network("a")
    commit(store, made)
    back = [Update(cls="network", ref=made.ref, fields={"name_label": name}) for name in ("b", "a")]
    assert resolve(store, Transact(changes=list(back))) == []


def test_the_end_of_a_relation_that_follows_is_not_written(store: Store) -> None:
    group = Create(cls="VM_group", ref="OpaqueRef:g", fields={"name_label": "g"})
    commit(store, group)
    written = Update(cls="VM_group", ref=group.ref, fields={"VMs": ["OpaqueRef:x"]})
    assert refused(store, written).code == "INTERNAL_ERROR"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "nan", "-inf"])
def test_a_number_that_json_cannot_say_is_refused(store: Store, number: object) -> None:
    made = rows.task()
    commit(store, made)
    assert refused(store, Update(cls="task", ref=made.ref, fields={"progress": number})).code == "INTERNAL_ERROR"


def test_equal_values_change_nothing(store: Store) -> None:
    made = rows.network("a")
    commit(store, made)
    assert resolve(store, Transact(changes=[Update(cls="network", ref=made.ref, fields={"name_label": "a"})])) == []


def test_later_changes_see_the_earlier(store: Store) -> None:
    made = rows.network(other_config={"a": "1"})
    changes = resolve(
        store,
        Transact(
            changes=[
                made,
                MapPut(cls="network", ref=made.ref, field="other_config", key="b", value="2", new=True),
                MapDrop(cls="network", ref=made.ref, field="other_config", key="a"),
                SetAdd(cls="network", ref=made.ref, field="tags", value="x"),
                SetAdd(cls="network", ref=made.ref, field="tags", value="y"),
                SetDrop(cls="network", ref=made.ref, field="tags", value="x"),
            ]
        ),
    )
    assert len(changes) == 1
    assert isinstance(changes[0], RowCreated)
    assert changes[0].fields["other_config"] == {"b": "2"}
    assert changes[0].fields["tags"] == ["y"]


def test_a_row_made_and_deleted_in_one_transaction_never_was(store: Store) -> None:
    made = rows.network()
    assert resolve(store, Transact(changes=[made, Delete(cls="network", ref=made.ref)])) == []


def test_writing_a_deleted_row_is_handle_invalid(store: Store) -> None:
    made = rows.network()
    commit(store, made)
    error = refused(
        store, Delete(cls="network", ref=made.ref), Update(cls="network", ref=made.ref, fields={"name_label": "b"})
    )
    assert error.description == ["HANDLE_INVALID", "network", made.ref]


def test_a_new_key_that_exists_is_refused_even_with_the_same_value(store: Store) -> None:
    made = rows.network(other_config={"a": "1"})
    commit(store, made)
    error = refused(store, MapPut(cls="network", ref=made.ref, field="other_config", key="a", value="1", new=True))
    assert error.description == ["MAP_DUPLICATE_KEY", "network", "other_config", made.ref, "a"]


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        ("network", {"no_such_field": 1}),
        ("network", {"MTU": "big"}),
        ("network", {"VIFs": ["OpaqueRef:x"]}),
        ("nonsense", {}),
    ],
)
def test_unknown_classes_fields_and_wrong_types_are_internal_errors(store: Store, cls: str, fields: dict) -> None:  # type: ignore[type-arg]
    made = rows.network()
    commit(store, made)
    assert refused(store, Update(cls=cls, ref=made.ref, fields=fields or {"x": 1})).code == "INTERNAL_ERROR"


def test_text_is_cut_before_what_xml_cannot_hold(store: Store) -> None:
    made = Create(
        cls="network", ref="OpaqueRef:1", fields={"name_label": "a\x00b", "other_config": {"k\x01": "v\x02w"}}
    )
    commit(store, made)
    commit(
        store,
        Update(cls="network", ref=made.ref, fields={"name_description": "tab\tand\x1frest"}),
        MapPut(cls="network", ref=made.ref, field="other_config", key="new\ufffe", value="x\ud800y", new=True),
        SetAdd(cls="network", ref=made.ref, field="tags", value="t\x0bu"),
    )
    row = store.row("network", made.ref)
    assert row is not None
    assert (row["name_label"], row["name_description"], row["tags"]) == ("a", "tab\tand", ["t"])
    assert row["other_config"] == {"k": "v", "new": "x"}


def test_a_key_has_a_name(store: Store) -> None:
    made = rows.network("lan")
    commit(store, made)
    for key in ("", "\x00"):
        put = MapPut(cls="network", ref=made.ref, field="other_config", key=key, value="v")
        assert refused(store, put).code == "INTERNAL_ERROR"


def test_preconditions_name_the_one_that_failed(store: Store) -> None:
    made = rows.network("a", other_config={"k": "v"})
    commit(store, made)
    at = store.generation
    good: list[Precondition] = [
        RowPresent(cls="network", ref=made.ref),
        RowAbsent(cls="network", ref="OpaqueRef:none"),
        Equals(cls="network", ref=made.ref, field="name_label", value="a"),
        Unchanged(cls="network", ref=made.ref, generation=at),
        KeyAbsent(cls="network", ref=made.ref, field="other_config", key="z"),
    ]
    bad: list[Precondition] = [
        RowAbsent(cls="network", ref=made.ref),
        RowPresent(cls="network", ref="OpaqueRef:none"),
        Equals(cls="network", ref=made.ref, field="name_label", value="b"),
        Unchanged(cls="network", ref=made.ref, generation=at - 1),
        KeyAbsent(cls="network", ref=made.ref, field="other_config", key="k"),
    ]
    touch = Touch(cls="network", ref=made.ref)
    for fact in bad:
        error = refused(store, touch, given=[*good, fact])
        assert error.code == "DB_CONFLICT"
        assert error.params[0] == str(len(good))
    commit(store, touch, given=good)
    assert store.generation == at + 1


def test_only_persistent_fields_ask_for_stable_storage(store: Store) -> None:
    made = rows.vm()
    commit(store, made)

    def durable(change: Change) -> bool:
        return persistent_part(store, resolve(store, Transact(changes=[change])))

    assert durable(rows.network())
    assert durable(Update(cls="VM", ref=made.ref, fields={"name_label": "new"}))
    assert durable(Delete(cls="VM", ref=made.ref))
    assert not durable(rows.task())
    assert not durable(Update(cls="VM", ref=made.ref, fields={"allowed_operations": ["start"]}))
    assert not durable(Touch(cls="VM", ref=made.ref))


def test_the_inverse_brings_back_every_row(store: Store) -> None:
    kept, gone = rows.network("kept"), rows.network("gone", tags=["a"])
    commit(store, kept, gone)
    before = {item.ref: item.fields.copy() for item in store.snapshot()}
    changes = resolve(
        store,
        Transact(
            changes=[
                Update(cls="network", ref=kept.ref, fields={"name_label": "changed"}),
                Delete(cls="network", ref=gone.ref),
                rows.network("new"),
            ]
        ),
    )
    undo = inverse(store, changes)
    rows.apply(store, changes)
    rows.apply(store, undo)
    assert {item.ref: item.fields for item in store.snapshot()} == before
    assert {type(change) for change in undo} == {RowCreated, RowModified, RowDeleted}


def test_a_created_row_can_refer_to_one_made_in_the_same_transaction(store: Store) -> None:
    vm = rows.vm()
    vbd = Create(
        cls="VBD",
        ref=rows.ref(),
        fields={"VM": vm.ref, "userdevice": "0", "mode": "RW", "type": "Disk", "bootable": True},
    )
    commit(store, vbd, vm)
    assert store.get("VM", vm.ref, "VBDs") == [vbd.ref]


def test_a_fact_may_be_about_one_field_while_others_change(store: Store) -> None:
    made = rows.network("before")
    commit(store, made)
    at = store.generation
    commit(store, Update(cls="network", ref=made.ref, fields={"name_description": "another writer's"}))
    check(store, [Unchanged(cls="network", ref=made.ref, generation=at, field="name_label")])
    for field in ("name_description", ""):
        with pytest.raises(DatabaseConflict):
            check(store, [Unchanged(cls="network", ref=made.ref, generation=at, field=field)])
    with pytest.raises(ApiError, match="no field 'nonsense'"):
        check(store, [Unchanged(cls="network", ref=made.ref, generation=at, field="nonsense")])
