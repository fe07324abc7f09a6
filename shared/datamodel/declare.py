"""The words in which classes are declared (see `docs/datamodel.md`).

    VBD = declare(
        "VBD",
        "A drive of a VM.",
        since="rio",
        roles=VM_ADMIN,
        fields=[UUID, operations(VBD_OPERATIONS), static("VM", refs.VM, "The VM that sees it."), ...],
        messages=[message("plug", "Attaches it to the running VM.", {"self": refs.VBD}), ...],
    )

What follows from a field (getters, setters, `create`, ...) is derived in `derive`, never declared.

`since` tells the history: `"rio"` (published then), or `"prototyped kolkata, published lima, deprecated ely"`.
A field or message without one has its class's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Literal, TypedDict, Unpack

from shared.datamodel.roles import READ_ONLY, Roles
from shared.datamodel.schema import MISSING, Qualifier
from shared.datamodel.types import VOID, RefType, SetType, Type


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
    """A custom message as declared; `schema.Message` explains the names. None: as the class says.

    `modifies`: it writes the field called `name`, and gets its own name and parameters from that field.
    """

    name: str
    doc: str
    params: ParamDecls
    result: Type
    modifies: Literal["setter", "add", "remove"] | None = None
    since: str | None = None
    roles: Roles | None = None
    errors: tuple[str, ...] = ()
    sync_only: bool = False
    session: bool = True
    pool_internal: bool = False
    emergency: bool = False
    hidden: bool = False
    secret: bool = False
    local_on_member: bool = False
    no_current_operations: bool = False
    custom_marshaller: bool = False
    forward: str = ""


FieldDecls = Sequence["FieldDecl | FieldDecls"]


@dataclass(frozen=True, slots=True)
class ClassDecl:
    """A class as declared. `roles`: of setters, messages and the default constructor unless they say otherwise."""

    name: str
    doc: str
    since: str
    parts_since: str
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
    parts_since: str | None = None,
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
    """A class. `parts_since`: the history of fields and messages that do not tell their own, if not the class's.

    `enumerable`: has `get_all` and its kin. `object_roles`: who may call those and `get_record`.
    `getters_have_effect`: rows are computed, so reads are calls of their own instead of database look-ups.
    """
    return ClassDecl(
        name,
        doc,
        since,
        parts_since or since,
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


class FieldOptions(TypedDict, total=False):
    """What is seldom said about a field; see FieldDecl."""

    since: str
    roles: Roles
    get_roles: Roles
    keys: Mapping[str, Roles]
    persist: bool
    internal: bool
    stored_here: bool
    set_has_effect: bool
    maintained_from: tuple[str, str]


FieldMaker = Callable[..., FieldDecl]


def rw(name: str, type: Type, doc: str, default: Any = MISSING, **options: Unpack[FieldOptions]) -> FieldDecl:
    """A field that clients may set."""
    return FieldDecl(name, type, "RW", doc, default, **options)


def static(name: str, type: Type, doc: str, default: Any = MISSING, **options: Unpack[FieldOptions]) -> FieldDecl:
    """A field that is given at creation and then is the server's."""
    return FieldDecl(name, type, "RO/constructor", doc, default, **options)


def runtime(name: str, type: Type, doc: str, default: Any = MISSING, **options: Unpack[FieldOptions]) -> FieldDecl:
    """A field that is the server's."""
    return FieldDecl(name, type, "RO/runtime", doc, default, **options)


def maintained(name: str, source: str, doc: str, **options: Unpack[FieldOptions]) -> FieldDecl:
    """The other side of a relation: the rows whose field `source` (such as `VBD.VM`) names this one."""
    cls, _, source_field = source.partition(".")
    options["maintained_from"] = (cls, source_field)
    return FieldDecl(name, SetType(RefType(cls)), "RO/runtime", doc, EMPTY, **options)


def namespace(prefix: str, *fields: FieldDecl) -> list[FieldDecl]:
    """Fields that share the beginning of their names: `memory` + `static_max` is `memory_static_max` on the wire."""
    return [replace(decl, namespace=prefix) for decl in fields]


# ---- messages


class MessageOptions(TypedDict, total=False):
    """What is seldom said about a message; see MessageDecl. `sync_only`: has no `Async.` form."""

    since: str
    roles: Roles
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


def message(
    name: str, doc: str, params: ParamDecls | None = None, result: Type = VOID, **options: Unpack[MessageOptions]
) -> MessageDecl:
    """A message that no field implies."""
    return MessageDecl(name, doc, params or {}, result, **options)


def setter(field: str, doc: str, **options: Unpack[MessageOptions]) -> MessageDecl:
    """`set_<field>` where setting is the server's work. Its history is the field's, unless it says otherwise."""
    return MessageDecl(field, doc, {}, VOID, "setter", **options)


def adder(field: str, doc: str, **options: Unpack[MessageOptions]) -> MessageDecl:
    """`add_to_<field>` of such a map, `add_<field>` of such a set. Guarded keys are the field's."""
    return MessageDecl(field, doc, {}, VOID, "add", **options)


def remover(field: str, doc: str, **options: Unpack[MessageOptions]) -> MessageDecl:
    """`remove_from_<field>` of such a map, `remove_<field>` of such a set. Guarded keys are the field's."""
    return MessageDecl(field, doc, {}, VOID, "remove", **options)
