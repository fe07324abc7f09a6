"""The reference pages: complete, and without dead ends."""

from __future__ import annotations

import json
from functools import cache
from urllib.parse import urldefrag

import pytest
from lxml import html

from services.api.edge.handlers import HANDLERS
from services.api.reference.site import HTML, Site
from shared.datamodel import model
from shared.datamodel.errors import CATALOGUE

SITE = Site()
ELSEWHERE = {"/openapi.json"}


@cache
def document(path: str) -> html.HtmlElement:
    page = SITE.page(path)
    assert page is not None, path
    return html.document_fromstring(page.content.decode())


@cache
def anchors(path: str) -> frozenset[str]:
    return frozenset(document(path).xpath("//@id"))


def pages() -> list[str]:
    return [path for path in SITE.paths() if path.endswith(".html")]


def leads_somewhere(target: str, here: str) -> bool:
    path, anchor = urldefrag(target)
    path = path or here
    if path in ELSEWHERE:
        return True
    return SITE.page(path) is not None and (not anchor or anchor in anchors(path))


@pytest.mark.parametrize("path", pages())
def test_every_link_leads_to_something_on_the_pages(path: str) -> None:
    targets = document(path).xpath("//@href | //@src")
    assert targets
    assert [target for target in targets if not leads_somewhere(target, path)] == []


def test_every_class_has_a_page_with_all_its_fields_messages_and_enums() -> None:
    for cls in model.classes.values():
        wanted = {f"field-{field.name}" for field in cls.fields.values() if not field.internal_only}
        wanted |= {f"message-{name}" for name in cls.messages} | {f"enum-{name}" for name in cls.enums}
        assert wanted <= anchors(f"class-{cls.name}.html"), cls.name


def test_internal_fields_are_not_shown() -> None:
    hidden = [field for cls in model.classes.values() for field in cls.fields.values() if field.internal_only]
    assert hidden
    assert not [field.name for field in hidden if f"field-{field.name}" in anchors(f"class-{field.cls}.html")]


def test_every_error_and_path_is_there() -> None:
    assert set(CATALOGUE) <= anchors("errors.html")
    assert {row.name for row in HANDLERS} <= anchors("handlers.html")


def test_the_search_finds_each_message_and_its_results_lead_somewhere() -> None:
    page = SITE.page("search.json")
    assert page is not None
    entries = json.loads(page.content)
    assert set(model.messages) <= {name for name, kind, _, _ in entries if kind == "message"}
    assert [where for _, _, where, _ in entries if not leads_somewhere(where, "")] == []


def test_a_message_is_shown_with_its_signature_roles_errors_and_what_works_of_it() -> None:
    (section,) = document("class-VM.html").xpath('//section[@id="message-start"]')
    text = " ".join(section.text_content().split())
    assert "void VM.start(session ref session_id, VM ref vm, bool start_paused, bool force)" in text
    assert "vm-operator" in text
    assert "VM_BAD_POWER_STATE" in text
    assert section.xpath('.//*[@data-state="works"]')


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in SITE.paths():
        page = SITE.page(path)
        assert page is not None
        if page.media_type == HTML:
            assert not [each for each in document(path).xpath("//link/@href | //script/@src") if ":" in each]
        elif not path.endswith(".json"):
            assert b"http://" not in page.content
            assert b"https://" not in page.content


def test_an_unknown_page_is_none() -> None:
    assert SITE.page("../site.py") is None
    assert SITE.page("class-Nothing.html") is None
