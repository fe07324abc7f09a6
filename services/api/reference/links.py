"""Where things of the data model are on the pages."""

from __future__ import annotations

from markupsafe import Markup, escape

from shared.datamodel import model
from shared.datamodel.types import EnumType, MapType, OptionType, RecordType, RefType, SetType, Type


def class_page(name: str) -> str:
    return f"class-{name}.html"


def field(cls: str, name: str) -> str:
    return f"{class_page(cls)}#field-{name}"


def message(wire_name: str) -> str:
    cls, _, name = wire_name.partition(".")
    return f"{class_page(cls)}#message-{name}"


def enum(cls: str, name: str) -> str:
    return f"{class_page(cls)}#enum-{name}"


def error(code: str) -> str:
    return f"errors.html#{code}"


def role(name: str) -> str:
    return f"roles.html#{name}"


def anchor(target: str, text: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(target, text)


def type_link(type_: Type, cls: str) -> Markup:
    """The type in the XenAPI's spelling, its classes and enums as links. `cls`: the page it stands on."""
    match type_:
        case RefType(name):
            return Markup("{} ref").format(anchor(class_page(name), name))
        case RecordType(name):
            return Markup("{} record").format(anchor(class_page(name), name))
        case SetType(of):
            return Markup("{} set").format(type_link(of, cls))
        case MapType(key, value):
            return Markup("({} → {}) map").format(type_link(key, cls), type_link(value, cls))
        case OptionType(of):
            return Markup("{} option").format(type_link(of, cls))
        case EnumType(name):
            return anchor(enum(_home(name, cls), name), name)
    return escape(str(type_))


def _home(name: str, cls: str) -> str:
    """The class on whose page an enum is explained: the one it stands on, if that uses it."""
    if name in model.classes[cls].enums:
        return cls
    return next(each.name for each in model.classes.values() if name in each.enums)
