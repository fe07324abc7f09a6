"""The declared model equals the reference: every class, field, message, parameter, role, enum and relation."""

from __future__ import annotations

from typing import Any

import pytest

from shared.datamodel import MISSING, Class, Field, Lifecycle, Message, model
from shared.datamodel.types import RefType, SetType, Type
from tests.datamodel import reference

CLASSES = reference.classes()
NAMES = sorted(CLASSES)

FLAGS = {
    "async": "has_async",
    "effect": "effect",
    "pool_internal": "pool_internal",
    "emergency": "emergency",
    "hidden": "hidden",
    "secret": "secret",
    "local_on_member": "local_on_member",
    "no_current_operations": "no_current_operations",
    "custom_marshaller": "custom_marshaller",
}
"""Message flags of the reference, false when absent, and ours."""

KNOWN_KEYS = {
    "class": {
        "name",
        "lifecycle",
        "in_database",
        "gen_events",
        "persist",
        "default_ctor_dtor",
        "fields",
        "enums",
        "messages",
    },
    "field": {
        *("name", "type", "qualifier", "default", "persist", "internal_only", "get_roles", "set_roles"),
        *("guarded_keys", "lifecycle", "stored_here", "set_has_effect"),
    },
    "message": {
        *("name", "kind", "params", "result", "roles", "guarded_keys", "lifecycle", "errors", "session", "forward"),
        *FLAGS,
    },
    "param": {"name", "type", "default"},
}


def is_set_of_refs(type: Type) -> bool:
    return isinstance(type, SetType) and isinstance(type.of, RefType)


def lifecycle(life: Lifecycle) -> dict[str, Any]:
    return {"state": f"{life.state}_s", "transitions": [list(step) for step in life.transitions]}


def guarded(keys: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {key: list(roles) for key, roles in keys.items()}


def describe_field(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": str(field.type),
        "qualifier": field.qualifier,
        "default": field.default,
        "internal_only": field.internal_only,
        "get_roles": list(field.get_roles),
        "set_roles": list(field.set_roles),
        "guarded_keys": guarded(field.guarded_keys),
        "lifecycle": lifecycle(field.lifecycle),
        "stored_here": field.stored_here,
        "set_has_effect": field.set_has_effect,
    }


def expected_field(wanted: dict[str, Any], type: Type) -> dict[str, Any]:
    """The database fills sets of refs, so those need no default and are written without one; ours is the empty set."""
    default = reference.default(wanted, type)
    return {
        "name": wanted["name"],
        "type": wanted["type"],
        "qualifier": wanted["qualifier"],
        "default": [] if default is MISSING and is_set_of_refs(type) else default,
        "internal_only": wanted.get("internal_only", False),
        "get_roles": wanted["get_roles"],
        "set_roles": wanted.get("set_roles", []),
        "guarded_keys": dict(wanted.get("guarded_keys", [])),
        "lifecycle": wanted["lifecycle"],
        "stored_here": wanted.get("stored_here", False),
        "set_has_effect": wanted.get("set_has_effect", False),
    }


def describe_message(message: Message) -> dict[str, Any]:
    return {
        "name": message.name,
        "kind": message.kind,
        "params": [(p.name, str(p.type), p.default) for p in message.params],
        "result": str(message.result),
        "roles": list(message.roles),
        "guarded_keys": guarded(message.guarded_keys),
        "lifecycle": lifecycle(message.lifecycle),
        "errors": list(message.errors),
        "session": message.session,
        "forward": message.forward,
        "flags": {flag for flag, ours in FLAGS.items() if getattr(message, ours)},
    }


def expected_message(wanted: dict[str, Any], types: list[Type]) -> dict[str, Any]:
    return {
        "name": wanted["name"],
        "kind": wanted["kind"],
        "params": [
            (p["name"], p["type"], reference.default(p, type)) for p, type in zip(wanted["params"], types, strict=True)
        ],
        "result": wanted["result"],
        "roles": wanted["roles"],
        "guarded_keys": dict(wanted.get("guarded_keys", [])),
        "lifecycle": wanted["lifecycle"],
        "errors": wanted.get("errors", []),
        "session": wanted.get("session", True),
        "forward": wanted.get("forward", ""),
        "flags": {flag for flag in FLAGS if wanted.get(flag)},
    }


def test_the_reference_says_nothing_that_the_comparison_overlooks() -> None:
    for cls in CLASSES.values():
        assert set(cls) <= KNOWN_KEYS["class"]
        assert all(set(f) <= KNOWN_KEYS["field"] for f in cls["fields"])
        assert all(set(m) <= KNOWN_KEYS["message"] for m in cls["messages"])
        assert all(set(p) <= KNOWN_KEYS["param"] for m in cls["messages"] for p in m["params"])


def test_every_class_is_declared_and_no_other() -> None:
    assert sorted(model.classes) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_class_flags_agree(name: str) -> None:
    cls, wanted = model.classes[name], CLASSES[name]
    assert lifecycle(cls.lifecycle) == wanted["lifecycle"]
    for flag in ("in_database", "gen_events", "persist", "default_ctor_dtor"):
        assert getattr(cls, flag) == wanted[flag], flag


@pytest.mark.parametrize("name", NAMES)
def test_fields_agree_and_are_in_order(name: str) -> None:
    cls, wanted = model.classes[name], CLASSES[name]["fields"]
    assert list(cls.fields) == [f["name"] for f in wanted]
    for field, want in zip(cls.fields.values(), wanted, strict=True):
        assert describe_field(field) == expected_field(want, field.type)


@pytest.mark.parametrize("name", NAMES)
def test_messages_agree(name: str) -> None:
    cls, wanted = model.classes[name], CLASSES[name]["messages"]
    assert set(cls.messages) == {m["name"] for m in wanted}
    for want in wanted:
        message = cls.messages[want["name"]]
        assert [p.name for p in message.params] == [p["name"] for p in want["params"]]
        assert describe_message(message) == expected_message(want, [p.type for p in message.params])


@pytest.mark.parametrize("name", NAMES)
def test_enums_agree(name: str) -> None:
    declared = {enum.name: list(enum.values) for enum in model.classes[name].enums.values()}
    assert declared == {enum["name"]: enum["values"] for enum in CLASSES[name]["enums"]}


def columns() -> dict[tuple[str, str], list[str]]:
    return {(row[0], row[1]): row[2:] for row in reference.table("db-columns.tsv")[1:]}


def test_every_column_is_declared_and_no_other() -> None:
    with_rows = [cls for cls in model.classes.values() if cls.fields]
    assert {(cls.name, f.column) for cls in with_rows for f in cls.fields.values()} == set(columns())


def column_type(type: str) -> str:
    """The table's `set(ref VM)` as `VM ref set`."""
    for prefix, form in (("set(", "{} set"), ("map(", "({}) map"), ("option ", "{} option")):
        if type.startswith(prefix):
            inner = type.removeprefix(prefix).removesuffix(")")
            parts = inner.split(",", 1) if prefix == "map(" else [inner]
            return form.format(" -> ".join(column_type(part) for part in parts))
    for prefix in ("ref ", "record "):
        if type.startswith(prefix):
            return f"{type.removeprefix(prefix)} {prefix.strip()}"
    return type


def test_columns_have_the_type_persistence_default_and_state_of_the_table() -> None:
    for (name, column), (type, table_persists, column_persists, default, state) in columns().items():
        cls = model.classes[name]
        field = next(f for f in cls.fields.values() if f.column == column)
        assert str(field.type) == column_type(type), (name, column)
        assert cls.persist == (table_persists == "Y"), (name, column)
        assert field.persist == (table_persists == column_persists == "Y"), (name, column)
        assert field.lifecycle.state.lower() == state, (name, column)
        ours: Any = [] if is_set_of_refs(field.type) else field.default  # the table leaves all sets of refs empty
        assert ours == reference.column_default(default, field.type), (name, column)


def end(cls: Class, field: str) -> str:
    return f"{cls.name}.{cls.fields[field].name}"


def test_relations_agree() -> None:
    declared = {
        (r.kind, end(model.classes[r.cls], r.field), end(model.classes[r.to_cls], r.to_field)) for r in model.relations
    }
    table = [tuple(row) for row in reference.table("db-relations.tsv")[1:]]
    assert declared == {row for row in table if row[0] != "none"}
    for _, stored, _ in (row for row in table if row[0] == "none"):
        cls, field = stored.split(".")
        assert model.classes[cls].fields[field].stored_here, f"{stored} is declared related and not maintained"
