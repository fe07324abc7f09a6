"""The error catalogue."""

from __future__ import annotations

import re

from shared.datamodel import model
from shared.datamodel.errors import CATALOGUE
from tests.datamodel import reference


def test_every_documented_code_is_there_with_its_parameters() -> None:
    for code, params in reference.table("errors.tsv"):
        wanted = tuple(name.strip() for name in params.split(",") if name)
        assert CATALOGUE[code].params == wanted, code


def test_the_codes_raised_without_documentation_are_there_too_and_no_others() -> None:
    documented = {row[0] for row in reference.table("errors.tsv")}
    prose = reference.path("wire-protocol.md").read_text()
    [count, listed] = re.findall(r"^(\d+) codes are raised though not .*?: (.*)\.$", prose, re.MULTILINE)[0]
    codes: set[str] = set()
    for item in listed.split(", "):  # A_{B,C}_D stands for two codes; the braces' commas have no blank
        braces = re.search(r"\{(.*)\}", item)
        words = braces[1].split(",") if braces else [""]
        codes |= {re.sub(r"\{.*\}", word, item) for word in words}
    assert len(codes) == int(count)
    assert set(CATALOGUE) == documented | codes


def test_every_code_says_in_one_sentence_what_happened() -> None:
    for decl in CATALOGUE.values():
        assert re.fullmatch(r"[A-Z].{10,118}\.", decl.doc), decl


def test_messages_name_only_codes_of_the_catalogue() -> None:
    assert {code for message in model.messages.values() for code in message.errors} <= set(CATALOGUE)
