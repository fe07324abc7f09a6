"""Fields and messages that many classes have alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Unpack

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    FieldDecl,
    FieldMaker,
    FieldOptions,
    MessageDecl,
    Optional,
    ParamDecls,
    message,
    namespace,
    runtime,
    rw,
)
from shared.datamodel.roles import READ_ONLY, VM_OPERATOR, Roles
from shared.datamodel.types import (
    BOOL,
    FLOAT,
    STRING,
    STRING_MAP,
    STRING_SET,
    EnumType,
    MapType,
    RecordType,
    RefType,
    SetType,
)

CLIENT_KEYS: Final = {"folder": VM_OPERATOR, "XenCenter.CustomFields.*": VM_OPERATOR}
"""Keys of `other_config` that clients use to sort and label objects, so less of a role is enough to change them."""

UUID: Final = runtime("uuid", STRING, "The object's unique identifier.")


def uuid(**options: Unpack[FieldOptions]) -> FieldDecl:
    """The uuid of a class whose uuids have a history of their own."""
    return replace(UUID, **options)


def names(
    thing: str,
    make: FieldMaker = rw,
    default: Any = EMPTY,
    *,
    make_description: FieldMaker | None = None,
    **options: Unpack[FieldOptions],
) -> list[FieldDecl]:
    """`name_label` and `name_description`, for people; made by `make` (and `make_description` where they differ)."""
    label, description = f"What people call the {thing}.", f"What people want to remember about the {thing}."
    return namespace(
        "name",
        make("label", STRING, label, default, **options),
        (make_description or make)("description", STRING, description, default, **options),
    )


def operations(enum: EnumType, **options: Unpack[FieldOptions]) -> list[FieldDecl]:
    """What may be done to the object now, and what is being done to it (task -> operation). Lost at a restart."""
    options["persist"] = False
    allowed, current = "Operations that its present state allows.", "Operations in progress, by task."
    return [
        runtime("allowed_operations", SetType(enum), allowed, EMPTY, **options),
        runtime("current_operations", MapType(STRING, enum), current, EMPTY, **options),
    ]


def other_config(make: FieldMaker = rw, default: Any = EMPTY, **options: Unpack[FieldOptions]) -> FieldDecl:
    """Settings that have no field of their own."""
    doc = "Further settings, for the server and for clients."
    return make("other_config", STRING_MAP, doc, default, **options)


TAGS: Final = rw("tags", STRING_SET, "Words to find it by.", EMPTY, since="orlando", roles=VM_OPERATOR)
BLOBS: Final = runtime(
    "blobs", MapType(STRING, refs.blob), "Binary data kept with it, by name.", EMPTY, since="orlando"
)

QOS: Final = namespace(
    "qos",
    rw("algorithm_type", STRING, "How its traffic is limited; empty for not at all."),
    rw("algorithm_params", STRING_MAP, "Settings of that limit."),
    runtime("supported_algorithms", STRING_SET, "Limits that could be used."),
)
"""Limits on a device's traffic."""


def new_blob(param: str, cls: RefType, roles: Roles | None = None) -> MessageDecl:
    """`create_new_blob`, which adds to the field `blobs` of the object that `param` names."""
    params: ParamDecls = {param: cls, "name": STRING, "mime_type": STRING, "public": Optional(BOOL)}
    doc = "Adds an empty piece of binary data to it."
    return replace(message("create_new_blob", doc, params, refs.blob, since="orlando"), roles=roles)


def data_sources(param: str, cls: RefType, since: str) -> tuple[MessageDecl, ...]:
    """The calls about figures that are recorded of the object that `param` names."""
    options: dict[str, Any] = {"since": since, "sync_only": True}
    it: ParamDecls = {param: cls}
    one: ParamDecls = {param: cls, "data_source": STRING}
    sources = SetType(RecordType("data_source"))
    return (
        message("get_data_sources", "Figures that can be recorded about it.", it, sources, roles=READ_ONLY, **options),
        message("record_data_source", "Starts recording a figure.", one, **options),
        message("query_data_source", "The present value of a figure.", one, FLOAT, roles=READ_ONLY, **options),
        message("forget_data_source_archives", "Deletes what has been recorded of a figure.", one, **options),
    )
