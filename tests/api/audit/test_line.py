"""Lines of the audit log: their form, and that nobody can forge one."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.audit.line import LOCAL_SUPERUSER, Argument, Entry, Kind, Who, is_since, since_key

AT = calendar.timegm((2025, 1, 2, 3, 4, 5)) + 0.678


def entry(**changes: object) -> Entry:
    fields: dict[str, object] = {
        "at": AT,
        "host": "host1",
        "address": "192.0.2.7",
        "task": "Async.VM.start R:1f3c5d7e9a0b",
        "who": Who("trackid=6f", LOCAL_SUPERUSER, "root"),
        "allowed": True,
        "result": "OK",
        "kind": Kind.API,
        "action": "VM.start",
        "arguments": (Argument("vm", "web server", "7c1", "OpaqueRef:9"),),
    }
    return Entry(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_line_is_as_the_original_writes_it() -> None:
    assert entry().line() == (
        "[20250102T03:04:05.678Z|audit|host1|0 192.0.2.7|Async.VM.start R:1f3c5d7e9a0b|audit] "
        "('trackid=6f' 'LOCAL_SUPERUSER' 'root' 'ALLOWED' 'OK' 'API' 'VM.start' "
        "(('vm' 'web server' '7c1' 'OpaqueRef:9')))"
    )


def test_a_refused_call_says_so() -> None:
    line = entry(allowed=False, result="ERROR:RBAC_PERMISSION_DENIED: vm.start", arguments=()).line()
    assert line.endswith("'DENIED' 'ERROR:RBAC_PERMISSION_DENIED: vm.start' 'API' 'VM.start' ())")


@given(st.text(), st.text(), st.text())
def test_no_text_begins_a_line_or_a_word_of_its_own(name: str, user: str, address: str) -> None:
    who = Who("trackid=6f", "S-1", user)
    line = entry(arguments=(Argument("vm", name, "u", "r"),), who=who, address=address).line()
    assert len(line.splitlines()) == 1
    assert line.split("] (")[0].count("|") == 5
    words = line.split("] (", 1)[1].replace("\\\\", "").replace("\\'", "")
    assert words.count("'") == 2 * (7 + 4)


@pytest.mark.parametrize(
    ("since", "counts"),
    [
        ("", True),
        ("2025", True),
        ("20250102T03:04:05Z", True),
        ("2025-01-02T03:04:05Z", True),
        ("2025-01-02T03:04:05.678Z", True),
        ("2025-01-02T03:04:05.679Z", False),
        ("2025-01-02T03:04:06Z", False),
        ("2026", False),
    ],
)
def test_since_is_compared_without_dashes_and_z(since: str, counts: bool) -> None:
    assert is_since(entry().line().encode(), since_key(since).encode()) is counts
