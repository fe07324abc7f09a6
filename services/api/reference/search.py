"""What the search box of the pages looks through."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from services.api.edge.handlers import HANDLERS
from services.api.reference import links
from shared.datamodel import model
from shared.datamodel.errors import CATALOGUE
from shared.datamodel.roles import HIGH_TO_LOW


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`kind`: class | field | message | enum | error | role | path. `page`: its address, from the pages' folder."""

    name: str
    kind: str
    page: str
    text: str


def entries() -> Iterator[Entry]:
    """Everything that has a place of its own."""
    for cls in model.classes.values():
        yield Entry(cls.name, "class", links.class_page(cls.name), cls.doc)
        for field in cls.fields.values():
            if not field.internal_only:
                yield Entry(f"{cls.name}.{field.name}", "field", links.field(cls.name, field.name), field.doc)
        for message in cls.messages.values():
            yield Entry(message.wire_name, "message", links.message(message.wire_name), message.doc)
        for enum in cls.enums.values():
            yield Entry(enum.name, "enum", links.enum(cls.name, enum.name), ", ".join(enum.values))
    for error in CATALOGUE.values():
        yield Entry(error.code, "error", links.error(error.code), error.doc)
    for role in HIGH_TO_LOW:
        yield Entry(role, "role", links.role(role), "A role of users.")
    for row in HANDLERS:
        yield Entry(f"{row.method} {row.path}", "path", f"handlers.html#{row.name}", row.summary)


def index() -> bytes:
    """JSON: a list of [name, kind, page, text]."""
    return msgspec.json.encode(list(entries()))
