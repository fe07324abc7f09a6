"""From declarations to the complete model: defaults resolved, implicit messages and relations derived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

from shared.datamodel.declare import EMPTY, ClassDecl, FieldDecl, MessageDecl, Optional
from shared.datamodel.schema import MISSING, Class, Field, Kind, Lifecycle, Message, Model, Param, Relation
from shared.datamodel.types import (
    STRING,
    VOID,
    EnumType,
    MapType,
    OptionType,
    RecordType,
    RefType,
    SetType,
    Type,
)

Modifier = Literal["setter", "add", "remove"]
Part = TypeVar("Part", Field, Message)


def build(declarations: Iterable[ClassDecl]) -> Model:
    """The model. ValueError: two parts of a class share a name. KeyError: a relation names a missing field."""
    declared = list(declarations)
    relations = _relations(declared)
    many_many_ends = {
        end for r in relations if r.kind == "many-many" for end in ((r.cls, r.field), (r.to_cls, r.to_field))
    }
    classes = {decl.name: _class(decl, many_many_ends) for decl in declared}
    messages = {m.wire_name: m for cls in classes.values() for m in cls.messages.values()}
    return Model(
        classes=classes,
        messages=messages,
        enums={name: enum for cls in classes.values() for name, enum in cls.enums.items()},
        relations=relations,
        underscored={f"{m.cls}_{m.name}": m for m in messages.values()},
    )


def _class(decl: ClassDecl, many_many_ends: set[tuple[str, str]]) -> Class:
    fields = _by_name(decl.name, (_field(decl, f, many_many_ends) for f in decl.fields))
    messages = _by_name(decl.name, _messages(decl, fields))
    return Class(
        name=decl.name,
        doc=decl.doc,
        fields=fields,
        messages=messages,
        enums=_enums(fields, messages),
        in_database=decl.in_database,
        gen_events=decl.gen_events,
        persist=decl.persist,
        default_ctor_dtor=decl.default_ctor_dtor,
        lifecycle=history(decl.since),
    )


def _by_name(cls: str, parts: Iterable[Part]) -> dict[str, Part]:
    named: dict[str, Part] = {}
    for part in parts:
        if part.name in named:
            raise ValueError(f"{cls}.{part.name} is declared twice, or follows from a field already")
        named[part.name] = part
    return named


@cache
def history(since: str) -> Lifecycle:
    """Reads `declare`'s notation: transitions between commas, the word `published` left out where it stands alone."""
    words = (step.split() for step in since.split(", "))
    return Lifecycle(tuple((step[0], step[1]) if len(step) == 2 else ("published", step[0]) for step in words))


def _field(cls: ClassDecl, decl: FieldDecl, many_many_ends: set[tuple[str, str]]) -> Field:
    name = decl.wire_name
    holds_refs = isinstance(decl.type, SetType) and isinstance(decl.type.of, RefType)
    is_rebuilt = holds_refs and not decl.stored_here and (cls.name, name) not in many_many_ends
    return Field(
        cls=cls.name,
        name=name,
        column=decl.column,
        type=decl.type,
        qualifier=decl.qualifier,
        doc=decl.doc,
        default=[] if holds_refs and decl.default is MISSING else _default(decl.default, decl.type),
        persist=cls.persist and decl.persist and not is_rebuilt,
        internal_only=decl.internal,
        get_roles=decl.get_roles,
        set_roles=_or(decl.roles, cls.roles) if decl.qualifier == "RW" else (),
        guarded_keys=dict(decl.keys),
        lifecycle=history(decl.since or cls.parts_since),
        stored_here=decl.stored_here,
        maintained_from=decl.maintained_from,
        set_has_effect=decl.set_has_effect,
    )


def _default(value: Any, type: Type) -> Any:
    return type.empty() if value is EMPTY else value


def _or(roles: tuple[str, ...] | None, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    return otherwise if roles is None else roles


def _relations(declared: list[ClassDecl]) -> tuple[Relation, ...]:
    types = {(c.name, f.wire_name): f.type for c in declared for f in c.fields}
    return tuple(
        Relation(
            "many-many" if isinstance(types[f.maintained_from], SetType) else "one-many",
            *f.maintained_from,
            cls.name,
            f.wire_name,
        )
        for cls in declared
        for f in cls.fields
        if f.maintained_from is not None
    )


def _enums(fields: dict[str, Field], messages: dict[str, Message]) -> dict[str, EnumType]:
    found: dict[str, EnumType] = {}
    for f in fields.values():
        _collect_enums(f.type, found)
    for m in messages.values():
        _collect_enums(m.result, found)
        for param in m.params:
            _collect_enums(param.type, found)
    return {name: found[name] for name in sorted(found)}


def _collect_enums(type: Type, found: dict[str, EnumType]) -> None:
    match type:
        case EnumType():
            found[type.name] = type
        case SetType() | OptionType():
            _collect_enums(type.of, found)
        case MapType():
            _collect_enums(type.key, found)
            _collect_enums(type.value, found)


# ---- messages


def _messages(decl: ClassDecl, fields: dict[str, Field]) -> Iterator[Message]:
    """All messages of a class, in the order documentation shows them."""
    implicit = _Implicit(decl, fields)
    if decl.in_database:
        yield from implicit.handles()
        yield from implicit.constructors()
        yield from implicit.search_by_name()
        yield from implicit.accessors()
    for custom in decl.messages:
        yield _custom(decl, custom, fields)
    if decl.in_database and decl.enumerable:
        yield from implicit.enumerations()


def _custom(cls: ClassDecl, decl: MessageDecl, fields: dict[str, Field]) -> Message:
    if decl.modifies:
        field = fields[decl.name]
        name, params = _modifier(decl.modifies, field)
        otherwise, guarded_keys = field.lifecycle, _guarded(decl.modifies, field)
    else:
        name, params = decl.name, tuple(_param(name, spec) for name, spec in decl.params.items())
        otherwise, guarded_keys = history(cls.parts_since), {}
    return Message(
        cls=cls.name,
        name=name,
        kind="custom",
        params=params,
        result=decl.result,
        doc=decl.doc,
        roles=_or(decl.roles, cls.roles),
        lifecycle=history(decl.since) if decl.since else otherwise,
        guarded_keys=guarded_keys,
        errors=decl.errors,
        has_async=not decl.sync_only,
        effect=not decl.forward,
        session=decl.session,
        pool_internal=decl.pool_internal,
        emergency=decl.emergency,
        hidden=decl.hidden or decl.pool_internal,
        secret=decl.secret,
        local_on_member=decl.local_on_member,
        no_current_operations=decl.no_current_operations,
        custom_marshaller=decl.custom_marshaller,
        forward=decl.forward,
    )


def _modifier(kind: Modifier, field: Field) -> tuple[str, tuple[Param, ...]]:
    """Name and parameters of the message that sets a field, or adds to or removes from it."""
    self = Param("self", RefType(field.cls))
    match kind, field.type:
        case "setter", type:
            return f"set_{field.name}", (self, Param("value", type))
        case "add", MapType(key, value):
            return f"add_to_{field.name}", (self, Param("key", key), Param("value", value))
        case "remove", MapType(key):
            return f"remove_from_{field.name}", (self, Param("key", key))
        case _, SetType(of):
            return f"{kind}_{field.name}", (self, Param("value", of))
    raise TypeError(f"nothing can be added to {field.cls}.{field.name}")


def _guarded(kind: Modifier, field: Field) -> dict[str, tuple[str, ...]]:
    """Only single keys are guarded here; whoever replaces the whole map compares the keys himself."""
    return {} if kind == "setter" else field.guarded_keys


def _param(name: str, spec: Type | Optional) -> Param:
    if isinstance(spec, Optional):
        return Param(name, spec.type, _default(spec.default, spec.type))
    return Param(name, spec)


@dataclass(frozen=True, slots=True)
class _Implicit:
    """The messages that follow from a class having rows and from each of its fields."""

    decl: ClassDecl
    fields: dict[str, Field]

    @property
    def _self(self) -> Param:
        return Param("self", RefType(self.decl.name))

    def _message(
        self, name: str, kind: Kind, params: tuple[Param, ...], result: Type, doc: str, **more: Any
    ) -> Message:
        more.setdefault("roles", self.decl.object_roles)
        more.setdefault("lifecycle", history(self.decl.since))
        return Message(self.decl.name, name, kind, params, result, doc, **more)

    def _look_up(self, name: str, params: tuple[Param, ...], result: Type, doc: str, hidden: bool = False) -> Message:
        return self._message(name, "object", params, result, doc, hidden=hidden, effect=self.decl.getters_have_effect)

    def handles(self) -> Iterator[Message]:
        name = self.decl.name
        yield self._look_up("get_record", (self._self,), RecordType(name), f"All fields of one {name}.")
        yield self._look_up("get_by_uuid", (Param("uuid", STRING),), RefType(name), f"The {name} that has this uuid.")

    def search_by_name(self) -> Iterator[Message]:
        """Only for names as `groups.names` declares them; the pool's `name_label` is another thing."""
        name = self.decl.name
        if any(f.column == "name__label" for f in self.fields.values()):
            yield self._look_up(
                "get_by_name_label",
                (Param("label", STRING),),
                SetType(RefType(name)),
                f"Every {name} that has this name; names need not be unique.",
            )

    def enumerations(self) -> Iterator[Message]:
        name = self.decl.name
        ref_set, records = SetType(RefType(name)), MapType(RefType(name), RecordType(name))
        expr = (Param("expr", STRING),)
        yield self._look_up("get_all", (), ref_set, f"Every {name} of the pool.")
        yield self._look_up("get_all_where", expr, ref_set, f"Every {name} for which the expression holds.", True)
        yield self._look_up(
            "get_all_records_where", expr, records, f"Records of every {name} for which the expression holds.", True
        )
        yield self._look_up("get_all_records", (), records, f"Records of every {name} of the pool.")

    def constructors(self) -> Iterator[Message]:
        """Both exist or neither. Members of the record that `create` does not need are ignored."""
        if not self.decl.default_ctor_dtor:
            return
        name = self.decl.name
        more: dict[str, Any] = {"roles": self.decl.roles, "has_async": True, "effect": True}
        args = Param("args", RecordType(name))
        yield self._message("create", "create", (args,), RefType(name), f"Makes a new {name} from a record.", **more)
        yield self._message("destroy", "destroy", (self._self,), VOID, f"Destroys a {name}.", **more)

    def accessors(self) -> Iterator[Message]:
        visible = [f for f in self.fields.values() if not f.internal_only]
        for f in visible:
            yield self._message(
                f"get_{f.name}",
                "getter",
                (self._self,),
                f.type,
                f"Reads {f.name}: {f.doc}",
                roles=f.get_roles,
                lifecycle=f.lifecycle,
                effect=self.decl.getters_have_effect,
                field=f,
            )
        for f in visible:
            if f.qualifier == "RW":
                yield from self._modifiers(f)

    def _modifiers(self, f: Field) -> Iterator[Message]:
        yield self._modify("setter", f, f"Sets {f.name}.", effect=f.set_has_effect)
        match f.type:
            case MapType():
                yield self._modify("add", f, f"Adds a key, which must be new, to {f.name}.")
                yield self._modify("remove", f, f"Removes a key, if it is there, from {f.name}.")
            case SetType():
                yield self._modify("add", f, f"Adds a value to {f.name}, unless it is there.")
                yield self._modify("remove", f, f"Removes a value, if it is there, from {f.name}.")

    def _modify(self, kind: Modifier, f: Field, doc: str, effect: bool = False) -> Message:
        name, params = _modifier(kind, f)
        return self._message(
            name,
            kind,
            params,
            VOID,
            doc,
            roles=f.set_roles,
            lifecycle=f.lifecycle,
            guarded_keys=_guarded(kind, f),
            effect=effect,
            field=f,
        )
