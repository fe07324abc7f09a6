"""The pages by path, each rendered when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib.resources import files
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from services.api import coverage
from services.api.edge.handlers import HANDLERS, Missing
from services.api.reference import links, search, stubs
from shared.datamodel import model
from shared.datamodel.errors import CATALOGUE
from shared.datamodel.roles import CLIENT_CERT, HIGH_TO_LOW
from shared.datamodel.schema import MISSING, Class, Relation
from shared.datamodel.types import VOID

HTML: Final = "text/html; charset=utf-8"
API_VERSION: Final = "2.23"
STUBS: Final = "typings/XenAPI.pyi"


class Page(NamedTuple):
    content: bytes
    media_type: str


class Site:
    """`paths()` are relative to wherever the pages are; all links between them are relative too."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("services.api.reference"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._environment.globals.update(
            links=links, model=model, void=VOID, roles=HIGH_TO_LOW, version=API_VERSION, meaning=coverage.MEANING
        )
        self._environment.filters["default_text"] = default_text
        self._made: dict[str, Page] = {}

    def paths(self) -> Iterator[str]:
        return iter(self._makers)

    def page(self, path: str) -> Page | None:
        """None: there is no such page."""
        known = self._made.get(path)
        make = self._makers.get(path)
        if known is None and make is not None:
            known = self._made[path] = make()
        return known

    @cached_property
    def _makers(self) -> dict[str, Callable[[], Page]]:
        makers: dict[str, Callable[[], Page]] = {
            "index.html": self._index,
            "errors.html": self._errors,
            "roles.html": self._roles,
            "handlers.html": self._handlers,
            "search.json": lambda: Page(search.index(), "application/json"),
            "style.css": partial(_static, "style.css", "text/css; charset=utf-8"),
            "search.js": partial(_static, "search.js", "text/javascript; charset=utf-8"),
            STUBS: lambda: Page(stubs.module().encode(), "text/x-python; charset=utf-8"),
        }
        for cls in model.classes.values():
            makers[links.class_page(cls.name)] = partial(self._class, cls)
        return makers

    def _render(self, template: str, **values: Any) -> Page:
        return Page(self._environment.get_template(template).render(**values).encode(), HTML)

    def _index(self) -> Page:
        states = coverage.states().values()
        counts = {state: sum(each == state for each in states) for state in coverage.STATES}
        return self._render("index.html", counts=counts, total=len(states))

    def _class(self, cls: Class) -> Page:
        relations = [each for each in model.relations if cls.name in (each.cls, each.to_cls) and _visible(each)]
        states = coverage.states()
        explicit = [message for message in cls.messages.values() if message.kind == "custom"]
        implicit = [message for message in cls.messages.values() if message.kind != "custom"]
        return self._render(
            "class.html", cls=cls, relations=relations, states=states, explicit=explicit, implicit=implicit
        )

    def _errors(self) -> Page:
        users: dict[str, list[str]] = {}
        for message in model.messages.values():
            for code in message.errors:
                users.setdefault(code, []).append(message.wire_name)
        return self._render("errors.html", errors=sorted(CATALOGUE.values()), users=users)

    def _roles(self) -> Page:
        """What each role may that the next lower one may not."""
        order = [role for role in HIGH_TO_LOW if role != CLIENT_CERT]
        gained: dict[str, list[str]] = {role: [] for role in HIGH_TO_LOW}
        for message in model.messages.values():
            lowest = next((role for role in reversed(order) if role in message.roles), None)
            if lowest is not None:
                gained[lowest].append(message.wire_name)
            if CLIENT_CERT in message.roles:
                gained[CLIENT_CERT].append(message.wire_name)
        superuser = [message.wire_name for message in model.messages.values() if not message.roles and message.session]
        guarded = [
            (message.wire_name, key, roles)
            for message in model.messages.values()
            for key, roles in message.guarded_keys.items()
        ]
        return self._render("roles.html", gained=gained, superuser=superuser, guarded=guarded)

    def _handlers(self) -> Page:
        missing = {row.name: row.runs.reason for row in HANDLERS if isinstance(row.runs, Missing)}
        return self._render("handlers.html", handlers=HANDLERS, missing=missing)


def _visible(relation: Relation) -> bool:
    ends = ((relation.cls, relation.field), (relation.to_cls, relation.to_field))
    return not any(model.classes[cls].fields[name].internal_only for cls, name in ends)


def _static(name: str, media_type: str) -> Page:
    return Page((files("services.api.reference") / "static" / name).read_bytes(), media_type)


def default_text(value: Any) -> str:
    """A default as the pages show it; "" when there is none."""
    if value is MISSING:
        return ""
    match value:
        case bool():
            return str(value).lower()
        case "" | [] | {}:
            return "empty"
    return str(value)
