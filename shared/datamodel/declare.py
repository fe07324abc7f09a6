"""The words in which classes are declared (see `docs/datamodel.md`).

    VBD = declare(
        "VBD",
        "A drive of a VM.",
        since="rio",
        roles=VM_ADMIN,
        fields=[UUID, operations(OPERATIONS), static("VM", refs.VM, "The VM that sees it."), ...],
        messages=[message("plug", "Attaches it to the running VM.", {"self": refs.VBD}), ...],
    )

What follows from a field (getters, setters, `create`, ...) is derived in `derive`, never declared.

`since` tells the history: `"rio"` (published then), or `"prototyped kolkata, published lima, deprecated ely"`.
A field or message without one has its class's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from shared.datamodel.roles import READ_ONLY, Roles
from shared.datamodel.schema import MISSING, Qualifier
from shared.datamodel.types import STRING, STRING_MAP, VOID, EnumType, MapType, RefType, SetType, Type


class _Empty(Enum):
    EMPTY = "the type's empty value"


EMPTY: Final = _Empty.EMPTY
"""The default of a field or parameter whose default is its type's empty value."""

UNSET_REF: Final = ""
"""The default of the few references that start out as no text at all rather than as the null reference."""


@dataclass(frozen=True, slots=True)
class FieldDecl:
    """A field as declared; `schema.Field` explains the names. None: as the class says."""

    name: str
    type: Type
    qualifier: Qualifier
    doc: str
    default: Any = MISSING
    since: str | None = None
    roles: Roles | None = None
    get_roles: Roles = READ_ONLY
    keys: Mapping[str, Roles] = field(default_factory=dict)
    persist: bool = True
    internal: bool = False
    stored_here: bool = False
    set_has_effect: bool = False
    namespace: str = ""
    maintained_from: tuple[str, str] | None = None

    @property
    def wire_name(self) -> str:
        return f"{self.namespace}_{self.name}" if self.namespace else self.name

    @property
    def column(self) -> str:
        return f"{self.namespace}__{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Optional:
    """A parameter that may be left out."""

    type: Type
    default: Any = EMPTY


ParamDecls = Mapping[str, Type | Optional]


@dataclass(frozen=True, slots=True)
class MessageDecl:
    """A custom message as declared; `schema.Message` explains the names. None: as the class says."""

    name: str
    doc: str
    params: ParamDecls
    result: Type
    since: str | None
    roles: Roles | None
    keys: Mapping[str, Roles]
    errors: tuple[str, ...]
    sync_only: bool
    session: bool
    pool_internal: bool
    emergency: bool
    hidden: bool
    secret: bool
    local_on_member: bool
    no_current_operations: bool
    custom_marshaller: bool
    forward: str


FieldDecls = Sequence["FieldDecl | FieldDecls"]


@dataclass(frozen=True, slots=True)
class ClassDecl:
    """A class as declared. `roles`: of setters, messages and the default constructor unless they say otherwise."""

    name: str
    doc: str
    since: str
    roles: Roles
    fields: tuple[FieldDecl, ...]
    messages: tuple[MessageDecl, ...]
    in_database: bool
    gen_events: bool
    persist: bool
    default_ctor_dtor: bool
    enumerable: bool
    object_roles: Roles
    getters_have_effect: bool


def declare(
    name: str,
    doc: str,
    *,
    since: str = "rio",
    roles: Roles,
    fields: FieldDecls = (),
    messages: Sequence[MessageDecl] = (),
    in_database: bool = True,
    gen_events: bool = True,
    persist: bool = True,
    default_ctor_dtor: bool = False,
    enumerable: bool = True,
    object_roles: Roles = READ_ONLY,
    getters_have_effect: bool = False,
) -> ClassDecl:
    """A class. `enumerable`: has `get_all` and its kin. `object_roles`: who may call those and `get_record`.

    `getters_have_effect`: rows are computed, so reads are calls of their own instead of database look-ups.
    """
    return ClassDecl(
        name,
        doc,
        since,
        roles,
        tuple(_flatten(fields)),
        tuple(messages),
        in_database,
        gen_events,
        persist and in_database,
        default_ctor_dtor,
        enumerable,
        object_roles,
        getters_have_effect,
    )


def _flatten(fields: FieldDecls) -> list[FieldDecl]:
    flat: list[FieldDecl] = []
    for item in fields:
        if isinstance(item, FieldDecl):
            flat.append(item)
        else:
            flat.extend(_flatten(item))
    return flat


# ---- fields


def rw(name: str, type: Type, doc: str, default: Any = MISSING, **more: Any) -> FieldDecl:
    """A field that clients may set."""
    return FieldDecl(name, type, "RW", doc, default, **more)


def static(name: str, type: Type, doc: str, default: Any = MISSING, **more: Any) -> FieldDecl:
    """A field that is given at creation and then is the server's."""
    return FieldDecl(name, type, "RO/constructor", doc, default, **more)


def runtime(name: str, type: Type, doc: str, default: Any = MISSING, **more: Any) -> FieldDecl:
    """A field that is the server's."""
    return FieldDecl(name, type, "RO/runtime", doc, default, **more)


def maintained(name: str, source: str, doc: str, **more: Any) -> FieldDecl:
    """The other side of a relation: the rows whose field `source` (such as `VBD.VM`) names this one."""
    cls, _, source_field = source.partition(".")
    return FieldDecl(name, SetType(RefType(cls)), "RO/runtime", doc, [], maintained_from=(cls, source_field), **more)


def namespace(prefix: str, *fields: FieldDecl) -> list[FieldDecl]:
    """Fields that share the beginning of their names: `memory` + `static_max` is `memory_static_max` on the wire."""
    return [replace(decl, namespace=prefix) for decl in fields]


UUID: Final = runtime("uuid", STRING, "The object's unique identifier.")


def uuid(**more: Any) -> FieldDecl:
    return replace(UUID, **more)


def names(
    thing: str, make: Any = rw, default: Any = EMPTY, *, make_description: Any = None, **more: Any
) -> list[FieldDecl]:
    """`name_label` and `name_description`, for people; made by `make` (and `make_description` where they differ)."""
    return namespace(
        "name",
        make("label", STRING, f"What people call the {thing}.", default, **more),
        (make_description or make)(
            "description", STRING, f"What people want to remember about the {thing}.", default, **more
        ),
    )


def operations(enum: EnumType, **more: Any) -> list[FieldDecl]:
    """What may be done to the object now, and what is being done to it (task -> operation). Rebuilt after a restart."""
    return [
        runtime(
            "allowed_operations",
            SetType(enum),
            "Operations that its present state allows.",
            EMPTY,
            persist=False,
            **more,
        ),
        runtime(
            "current_operations",
            MapType(STRING, enum),
            "Operations in progress, by the task that runs them.",
            EMPTY,
            persist=False,
            **more,
        ),
    ]


def other_config(make: Any = rw, default: Any = EMPTY, **more: Any) -> FieldDecl:
    """Settings that have no field of their own."""
    return make("other_config", STRING_MAP, "Further settings, for the server and for clients.", default, **more)  # type: ignore[no-any-return]


# ---- messages


def message(
    name: str,
    doc: str,
    params: ParamDecls | None = None,
    result: Type = VOID,
    *,
    since: str | None = None,
    roles: Roles | None = None,
    keys: Mapping[str, Roles] | None = None,
    errors: Sequence[str] = (),
    sync_only: bool = False,
    session: bool = True,
    pool_internal: bool = False,
    emergency: bool = False,
    hidden: bool = False,
    secret: bool = False,
    local_on_member: bool = False,
    no_current_operations: bool = False,
    custom_marshaller: bool = False,
    forward: str = "",
) -> MessageDecl:
    """A message that no field implies. `sync_only`: has no `Async.` form. What only hosts may call is always hidden."""
    return MessageDecl(
        name,
        doc,
        params or {},
        result,
        since,
        roles,
        keys or {},
        tuple(errors),
        sync_only,
        session,
        pool_internal,
        emergency,
        hidden or pool_internal,
        secret,
        local_on_member,
        no_current_operations,
        custom_marshaller,
        forward,
    )
