"""Filters and tokens, as texts."""

from __future__ import annotations

import pytest

from services.api.events.changes import Changes, Section
from services.api.events.subscription import CLASSES, Subscription
from services.api.events.tokens import BEGINNING, Token
from shared.errors import ApiError

SILENT = ("session", "user", "secret", "auth", "event", "sr_stat", "probe_result", "data_source", "Diagnostics")
BIGGEST = 2**63 - 1


def test_the_star_is_everything_that_has_events() -> None:
    everything = Subscription.parse(["*"])
    assert all(everything.wants(cls, "x") for cls in ("VM", "pool", "message", "task"))
    assert not any(everything.wants(cls, "x") for cls in SILENT)
    assert everything.wants_messages


@pytest.mark.parametrize("text", ["VM", "vm", "Vm"])
def test_classes_are_named_in_any_case(text: str) -> None:
    assert Subscription.parse([text]) == Subscription.parse(["vm"])
    assert Subscription.parse([text]).wants("VM", "anything")
    assert not Subscription.parse([text]).wants("VM_metrics", "anything")


def test_objects_are_named_by_class_in_any_case_and_exact_reference() -> None:
    one = Subscription.parse(["Host/OpaqueRef:a"])
    assert one.wants("host", "OpaqueRef:a")
    assert not one.wants("host", "opaqueref:a")
    assert not one.wants("VM", "OpaqueRef:a")


def test_the_first_slash_divides() -> None:
    assert Subscription.parse(["VM/a/b"]).wants("VM", "a/b")
    assert Subscription.parse(["VM/"]).wants("VM", "")


@pytest.mark.parametrize("text", ["", "/", "nothing", "nothing/x", "*/x", " vm", "**", "session", "user/x"])
def test_what_is_no_class_with_events_matches_nothing(text: str) -> None:
    strange = Subscription.parse([text])
    assert not strange.classes
    assert not strange.objects


def test_an_object_of_a_class_that_is_wanted_as_a_whole_is_wanted_once() -> None:
    assert Subscription.parse(["VM", "VM/x"]) == Subscription.parse(["vm"])
    assert Subscription.parse(["*", "VM/x"]) == Subscription.parse(["*"])


def test_who_follows_tasks_only_is_known() -> None:
    assert Subscription.parse(["task", "Task/x"]).only_tasks
    for texts in (["task", "vm"], ["*"], ["task", "nothing"]):
        assert not Subscription.parse(texts).only_tasks


def test_events_carry_class_names_in_lower_case() -> None:
    assert CLASSES["vm_guest_metrics"] == "VM_guest_metrics"


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("", BEGINNING),
        ("1,2", Token(1, 2)),
        ("00000000000000000001,00000000000000000002", Token(1, 2)),
        ("-1,0", Token(-1, 0)),
        ("0x10,0b11", Token(16, 3)),
        ("1_000,0o17", Token(1000, 15)),
        (f"{BIGGEST},0", Token(BIGGEST, 0)),
    ],
)
def test_a_token_is_two_numbers(text: str, token: Token) -> None:
    assert Token.parse(text) == token


@pytest.mark.parametrize(
    "text", ["bad", "1", ",", "1,", ",1", "1,2,3", " ", "1, 2", "1;2", "1.0,2", f"{BIGGEST + 1},0", "1,2 ", "٣,1"]
)
def test_anything_else_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        Token.parse(text)
    assert refused.value.description == ["EVENT_FROM_TOKEN_PARSE_FAILURE", text]


def test_tokens_are_padded_so_that_they_sort_as_text() -> None:
    assert str(Token(7, 0)) == "00000000000000000007,00000000000000000000"
    assert str(Token(-1, 0)) == "-0000000000000000001,00000000000000000000"
    assert str(Token(9, 0)) < str(Token(10, 0)) < str(Token(10, 1))
    assert Token.parse(str(Token(123, 456))) == Token(123, 456)


def test_a_token_goes_on_to_the_highest_generation_of_what_was_told_and_never_back() -> None:
    everything, vms = Subscription.parse(["*"]), Subscription.parse(["vm"])
    some = [Section("VM", "del", ["x"], deleted=[9])]
    assert Changes(some, 9, 7).after(Token(5, 6), everything) == Token(9, 7)
    assert Changes(some, 4, 0).after(Token(5, 6), everything) == Token(5, 6)
    assert Changes(some, 9, 0).after(Token(5, 6), vms) == Token(9, 0)
    assert Changes([], 9, 7).after(Token(5, 6), everything) == Token(5, 6)
