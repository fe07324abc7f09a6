"""`xe diagnostic-db-history`: who changed what, readable."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.cli.commands import history
from services.cli.commands.history_lines import lines
from shared.errors import ApiError
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import ThinClient

TRACKID = "trackid=5d41402abc4b2a76b9719d911017c592"


def entry(generation: int, **members: Any) -> dict[str, Any]:
    """As the API tells it: integers are text."""
    change = {
        "class": "VM",
        "ref": "OpaqueRef:vm",
        "uuid": "3f1c",
        "name": "web01",
        "kind": "mod",
        "fields": {"name_label": {"old": "db", "new": "web01"}},
    }
    made = {"time": "2026-11-22T17:03:11.042Z", "generation": str(generation), "term": "3", "kind": "commit"}
    made |= {
        "task": "",
        "call": "VM.set_name_label",
        "session": TRACKID,
        "user": "root",
        "originator": "xe",
        "note": "",
    }
    return {**made, "changes": [change], **members}


class Kept:
    """The history behind the fake: pages of two entries. `asked`: the words of each question."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []
        self.recording = True

    def call_extension(self, host: str, request: str) -> dict[str, Any]:
        call = json.loads(request)
        assert call["method"] == "db.get_history"
        session, words = call["params"]
        assert session.startswith("OpaqueRef:session")
        self.asked.append(words)
        numbered = [(number, one) for number, one in enumerate(self.entries) if self._fits(one, words)]
        if words.get("order") == "oldest":
            begin = int(words.get("token") or 0)
            found = [pair for pair in numbered if pair[0] >= begin][:2]
            more = len(found) == 2
            token = found[-1][0] + 1 if more else len(self.entries)
        else:
            end = int(words["token"])
            found = [pair for pair in reversed(numbered) if pair[0] < end][: min(2, int(words["limit"]))]
            more = len(found) == 2
            token = found[-1][0] if found else 0
        return {"entries": [one for _, one in found], "token": str(token), "more": more, "recording": self.recording}

    @staticmethod
    def _fits(one: dict[str, Any], words: dict[str, str]) -> bool:
        return int(one["generation"]) >= int(words.get("since", "0"))


@pytest.fixture
def kept(api: FakeXenApi) -> Kept:
    made = Kept()
    api.on["host.call_extension"] = made.call_extension
    return made


async def test_the_newest_entries_are_told_like_a_log(xe: ThinClient, kept: Kept) -> None:
    kept.entries = [entry(number) for number in range(1, 8)]
    outcome = await xe("diagnostic-db-history", "limit=5", "uuid=3f1c", "class=vm", "user=root")
    assert (outcome.stderr, outcome.status) == ("", 0)
    told = outcome.stdout.splitlines()
    assert told[:3] == [
        f"2026-11-22T17:03:11.042Z #3 VM.set_name_label by root (xe) {TRACKID}",
        "    changed VM web01 (3f1c)",
        "        name-label: db -> web01",
    ]
    assert [line.split()[1] for line in told[::3]] == ["#3", "#4", "#5", "#6", "#7"]
    assert {name: kept.asked[-1][name] for name in ("uuid", "class", "user")} == {
        "uuid": "3f1c",
        "class": "vm",
        "user": "root",
    }


async def test_minimal_output_is_generations(xe: ThinClient, kept: Kept) -> None:
    kept.entries = [entry(1), entry(2)]
    outcome = await xe("diagnostic-db-history", "--minimal")
    assert sorted(outcome.stdout.strip().split(",")) == ["1", "2"]


async def test_it_follows_what_comes(
    api: FakeXenApi, xe: ThinClient, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the session ends, here."""
    monkeypatch.setattr(history, "PAUSE", 0.0)
    kept.entries = [entry(1)]
    rounds = 0

    def growing(host: str, request: str) -> dict[str, Any]:
        nonlocal rounds
        answer = kept.call_extension(host, request)
        if "token" in kept.asked[-1] and not answer["more"]:
            rounds += 1
            kept.entries += [entry(10 * rounds), entry(10 * rounds + 1), entry(10 * rounds + 2)]
        if rounds == 4:
            raise ApiError("SESSION_INVALID", "OpaqueRef:session-1")
        return answer

    api.on["host.call_extension"] = growing
    outcome = await xe("diagnostic-db-history", "--follow")
    told = [line.split()[1] for line in outcome.stdout.splitlines() if "#" in line]
    assert told[:7] == ["#1", "#10", "#11", "#12", "#20", "#21", "#22"]
    assert outcome.status == 1


@pytest.mark.parametrize(
    "words",
    [("--follow", "until=1h"), ("--follow", "--minimal"), ("limit=0",), ("limit=x",), ("limit=-1",)],
)
async def test_what_makes_no_sense_is_refused(xe: ThinClient, kept: Kept, words: tuple[str, ...]) -> None:
    outcome = await xe("diagnostic-db-history", *words)
    assert outcome.status == 1
    assert outcome.stderr.startswith("Error: ")


async def test_without_a_history_it_says_so(xe: ThinClient, kept: Kept) -> None:
    kept.recording = False
    outcome = await xe("diagnostic-db-history")
    assert (outcome.stdout, outcome.status) == ("", 1)
    assert "history_bytes" in outcome.stderr


def test_maps_sets_and_odd_texts_are_readable_and_command_no_terminal() -> None:
    fields = {
        "other_config": {"old": {"a": "1", "b": "2"}, "new": {"b": "two words", "c": ""}},
        "tags": {"old": ["x"], "new": ["y", "\x1b[2J"]},
        "name_description": {"old": "", "new": "a\nb\u009b"},
        "is_a_template": {"old": False, "new": True},
        "value": {"old": "(hidden)", "new": "(hidden)"},
    }
    change = {"class": "VM", "ref": "OpaqueRef:1", "uuid": "", "name": "\x1b]0;x", "kind": "add", "fields": fields}
    told = list(lines(entry(1, changes=[change], user="\x1bmary", task="OpaqueRef:t")))
    assert told == [
        f"2026-11-22T17:03:11.042Z #1 VM.set_name_label by \\u001bmary (xe) {TRACKID} task OpaqueRef:t",
        '    created VM "\\u001b]0;x" (OpaqueRef:1)',
        "        other-config:a: 1 -> (none)",
        '        other-config:b: 2 -> "two words"',
        '        other-config:c: (none) -> ""',
        '        tags: -x +y +"\\u001b[2J"',
        '        name-description: "" -> "a\\nb\\u009b"',
        "        is-a-template: false -> true",
        "        value: (hidden) -> (hidden)",
    ]


def test_what_is_no_commit_is_told_with_its_reason() -> None:
    gap = entry(9, kind="gap", note="3 entries are missing", call="", user="", originator="", session="", changes=[])
    assert list(lines(gap)) == ["2026-11-22T17:03:11.042Z #9 gap: 3 entries are missing"]
