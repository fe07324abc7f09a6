"""What readers of the data model get: classes, fields, messages and relations, complete and immutable."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

from shared.datamodel.types import EnumType, RefType, Type


class _Missing(Enum):
    MISSING = "no default"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING
"""A field or parameter without default: the constructor or the caller must give it."""

Qualifier = Literal["RW", "RO/constructor", "RO/runtime"]
Kind = Literal["getter", "setter", "add", "remove", "object", "create", "destroy", "custom"]

_STATES = {
    "prototyped": "Prototyped",
    "published": "Published",
    "changed": "Published",
    "extended": "Published",
    "deprecated": "Deprecated",
    "removed": "Removed",
}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What happened to a part of the API in which release: (`published`, `rio`), (`removed`, `tampa`)."""

    transitions: tuple[tuple[str, str], ...]

    @property
    def state(self) -> str:
        """Prototyped | Published | Deprecated | Removed: what the last transition led to."""
        return _STATES[self.transitions[-1][0]]

    @property
    def removed(self) -> bool:
        return self.state == "Removed"


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a class.

    `name`: on the wire (`name_label`); `column`: in the database, namespaces apart (`name__label`).
    `qualifier`: RW has a setter; RO/constructor can be given to `create`; RO/runtime is the server's.
    `persist`: survives a restart; false too when the class does not, or the value is rebuilt from a relation.
    `internal_only`: never shown to clients. `stored_here`: a set of refs that no relation maintains.
    `maintained_from`: (class, field) whose values this set of refs mirrors.
    `guarded_keys`: map key (a trailing `*` covers all that begin so) -> roles that may add or remove it.
    `set_has_effect`: setting it does more than change the row, so the API must not write it blindly.
    """

    cls: str
    name: str
    column: str
    type: Type
    qualifier: Qualifier
    doc: str
    default: Any
    persist: bool
    internal_only: bool
    get_roles: tuple[str, ...]
    set_roles: tuple[str, ...]
    guarded_keys: dict[str, tuple[str, ...]]
    lifecycle: Lifecycle
    stored_here: bool
    maintained_from: tuple[str, str] | None
    set_has_effect: bool

    def initial(self) -> Any:
        """What the field of a new row holds: a fresh copy of the default, or the type's empty value.

        The empty text that some references have as default is for old databases only; new rows say NULL.
        """
        if self.default is MISSING or (isinstance(self.type, RefType) and not self.default):
            return self.type.empty()
        return deepcopy(self.default)


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter, after the session. Those with a default come last and may be left out."""

    name: str
    type: Type
    default: Any = MISSING


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One call. `params` do not include the session; `session`: it takes one.

    `roles`: who may call it, high to low; empty: only the local superuser, hosts of the pool and local sessions.
    `guarded_keys`: as in Field, for add and remove. `errors`: codes worth documenting, not all that can happen.
    `has_async`: there is an `Async.` form. `effect`: it is more than a look-up or write of one row.
    `pool_internal`: between hosts of a pool. `emergency`: answered while the coordinator is out of reach.
    `hidden`: not in documentation. `secret`: parameters must not be logged. `local_on_member`: members answer it.
    `no_current_operations`: takes no lock. `custom_marshaller`: the server does not type-check the value it returns.
    `forward`: the host extension that carries it out, such as `hostext:pool_update.apply`.
    `field`: of getters, setters, add and remove.
    """

    cls: str
    name: str
    kind: Kind
    params: tuple[Param, ...]
    result: Type
    doc: str
    roles: tuple[str, ...]
    lifecycle: Lifecycle
    guarded_keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    has_async: bool = False
    effect: bool = False
    session: bool = True
    pool_internal: bool = False
    emergency: bool = False
    hidden: bool = False
    secret: bool = False
    local_on_member: bool = False
    no_current_operations: bool = False
    custom_marshaller: bool = False
    forward: str = ""
    field: Field | None = None

    @property
    def wire_name(self) -> str:
        return f"{self.cls}.{self.name}"

    @property
    def removed(self) -> bool:
        return self.lifecycle.removed

    @property
    def required(self) -> int:
        """How many parameters a caller must give."""
        return sum(param.default is MISSING for param in self.params)


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """A class of objects.

    `in_database`: has rows; the others exist only as records or as a group of calls. `gen_events`: changes are events.
    `persist`: rows survive a restart. `default_ctor_dtor`: has `create` (one record) and `destroy`.
    `enums`: those that its fields and messages use.
    """

    name: str
    doc: str
    fields: dict[str, Field]
    messages: dict[str, Message]
    enums: dict[str, EnumType]
    in_database: bool
    gen_events: bool
    persist: bool
    default_ctor_dtor: bool
    lifecycle: Lifecycle


@dataclass(frozen=True, slots=True)
class Relation:
    """`cls.field` is what gets written; the store keeps the set `to_cls.to_field` in step with it.

    one-many: a ref and the set of those who hold it, rebuilt at load. many-many: two sets, both stored, written left.
    """

    kind: Literal["one-many", "many-many"]
    cls: str
    field: str
    to_cls: str
    to_field: str


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The whole data model. `messages` are by wire name."""

    classes: dict[str, Class]
    messages: dict[str, Message]
    enums: dict[str, EnumType]
    relations: tuple[Relation, ...]
    underscored: dict[str, Message] = field(repr=False)

    def message(self, wire_name: str) -> Message | None:
        """The message called `VM.start`, or `VM_start` as some clients spell it."""
        return self.messages.get(wire_name) or self.underscored.get(wire_name)
