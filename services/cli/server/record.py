"""How the fields of `xe`'s records are declared: the words used in `services/cli/records`.

    VIF = records(
        "vif",
        "VIF",
        default="uuid vm-uuid device network-uuid",
        fields=(
            attr("uuid"),
            attr("vm-uuid", "VM"),
            name_of("vm-name-label", "VM"),
            attr("other-config", write="add remove"),
            ...

A field shows an attribute of the object; its type comes from the data model, and with it the format, the parsing of new
values and the messages that set them. `xe`'s name is the attribute's with `-` for `_` unless an attribute is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from services.cli.server.objects import Record, Row
from services.cli.server.values import MISSING, Value, shown
from shared.datamodel import Class, model
from shared.datamodel.types import MapType, RefType, SetType, Type

View = Literal["", "S", "M"]
"""How a field can be taken apart: not at all, as a set, as a map."""

Reader = Callable[[Row], Awaitable[Value]]


@dataclass(frozen=True)
class Field:
    """One field of a record.

    `attribute`: of the object, "" if the value is computed otherwise. `needs`: classes whose records reading looks up.
    `write`: any of set (the whole value), set-key (one key of a map by a message of its own), set-map (the whole map),
    add, remove, clear. `element`: how `add_<element>` and `remove_<element>` spell it, the attribute if "".
    `size`: an integer that may be given as `4GiB`. `ignore_case`: in filters.
    """

    name: str
    attribute: str
    read: Reader
    view: View = ""
    joiner: str = "; "
    write: frozenset[str] = frozenset()
    element: str = ""
    needs: tuple[str, ...] = ()
    size: bool = False
    hidden: bool = False
    deprecated: bool = False
    expensive: bool = False
    ignore_case: bool = False

    @property
    def qualifier(self) -> str:
        """` RO`, `MRW` and so on."""
        writable = "add" in self.write if self.view else "set" in self.write
        return f"{self.view or ' '}{'RW' if writable else 'RO'}"

    @property
    def label(self) -> str:
        """The key of a printed record."""
        return f"{self.name} ({self.qualifier}){' [DEPRECATED]' if self.deprecated else ''}"


@dataclass(frozen=True)
class _Pending:
    """A field before it knows its class."""

    make: Callable[[Class], Field]


@dataclass(frozen=True, eq=False)
class RecordClass:
    """`prefix`: of its commands. `cls`: the XenAPI class. `default`: names of the fields that lists show; "": all.

    `builtin`: the filter that lists always apply (name, displayed value). `only`: which objects belong to it at all.
    `standard`: its list is in the short help.
    """

    prefix: str
    cls: str
    default: str
    declared: Sequence[_Pending] = field(repr=False)
    builtin: tuple[tuple[str, str], ...] = ()
    only: Callable[[Record], bool] = lambda _: True
    standard: bool = False

    @cached_property
    def fields(self) -> dict[str, Field]:
        made = [pending.make(model.classes[self.cls]) for pending in self.declared]
        return {each.name: each for each in made}

    @cached_property
    def defaults(self) -> frozenset[str]:
        return frozenset(self.default.split())


def records(
    prefix: str,
    cls: str,
    *,
    default: str,
    fields: Sequence[_Pending],
    builtin: tuple[tuple[str, str], ...] = (),
    only: Callable[[Record], bool] = lambda _: True,
    standard: bool = False,
) -> RecordClass:
    return RecordClass(prefix, cls, default, fields, builtin, only, standard)


# ---- the words


def attr(
    name: str,
    attribute: str = "",
    *,
    view: View | None = None,
    joiner: str = "; ",
    write: str = "",
    element: str = "",
    size: bool = False,
    hidden: bool = False,
    deprecated: bool = False,
    expensive: bool = False,
    ignore_case: bool = False,
) -> _Pending:
    """An attribute in its type's format. `view`: by its type, unless given."""

    def make(cls: Class) -> Field:
        source = attribute or name.replace("-", "_")
        type = cls.fields[source].type

        async def read(row: Row) -> Value:
            return await shown(type, row.record[source], row.objects)

        return Field(
            name,
            source,
            read,
            natural_view(type) if view is None else view,
            joiner,
            frozenset(write.split()),
            element,
            _referenced(type),
            size,
            hidden,
            deprecated,
            expensive,
            ignore_case,
        )

    return _Pending(make)


def name_of(name: str, attribute: str) -> _Pending:
    """The name-label of the object that a reference means."""

    def make(cls: Class) -> Field:
        type = cls.fields[attribute].type
        if not isinstance(type, RefType):
            raise TypeError(f"{cls.name}.{attribute} is no reference")
        target = type.cls

        async def read(row: Row) -> Value:
            record = await row.behind(attribute, target)
            return MISSING if record is None else str(record["name_label"])

        return Field(name, attribute, read, needs=(target,))

    return _Pending(make)


def values(name: str, attribute: str = "", *, view: View = "S") -> _Pending:
    """The values of a map: the operations of `current_operations`, say."""

    def make(cls: Class) -> Field:
        source = attribute or name.replace("-", "_")
        type = cls.fields[source].type

        async def read(row: Row) -> Value:
            pairs = await shown(type, row.record[source], row.objects)
            return list(pairs.values()) if isinstance(pairs, dict) else pairs

        return Field(name, source, read, view)

    return _Pending(make)


def follow(
    name: str,
    reference: str,
    attribute: str = "",
    *,
    missing: str = MISSING,
    view: View | None = None,
    joiner: str = "; ",
    hidden: bool = False,
    deprecated: bool = False,
) -> _Pending:
    """An attribute of the object that `reference` means (metrics, say). `missing`: shown if there is none."""

    def make(cls: Class) -> Field:
        link = cls.fields[reference].type
        if not isinstance(link, RefType):
            raise TypeError(f"{cls.name}.{reference} is no reference")
        source = attribute or name.replace("-", "_")
        target = link.cls
        type = model.classes[target].fields[source].type

        async def read(row: Row) -> Value:
            record = await row.behind(reference, target)
            return missing if record is None else await shown(type, record[source], row.objects)

        return Field(
            name,
            "",
            read,
            natural_view(type) if view is None else view,
            joiner,
            needs=(target, *_referenced(type)),
            hidden=hidden,
            deprecated=deprecated,
        )

    return _Pending(make)


def computed(
    name: str,
    read: Reader,
    *,
    view: View = "",
    joiner: str = "; ",
    write: str = "",
    attribute: str = "",
    needs: Sequence[str] = (),
    hidden: bool = False,
    deprecated: bool = False,
    expensive: bool = False,
) -> _Pending:
    """A value that a function makes. `attribute`: what writing it sets."""
    made = Field(
        name,
        attribute,
        read,
        view,
        joiner,
        frozenset(write.split()),
        needs=tuple(needs),
        hidden=hidden,
        deprecated=deprecated,
        expensive=expensive,
    )
    return _Pending(lambda _: made)


def natural_view(type: Type) -> View:
    if isinstance(type, SetType):
        return "S"
    return "M" if isinstance(type, MapType) else ""


def _referenced(type: Type) -> tuple[str, ...]:
    if isinstance(type, RefType):
        return (type.cls,)
    if isinstance(type, SetType):
        return _referenced(type.of)
    return _referenced(type.value) if isinstance(type, MapType) else ()
