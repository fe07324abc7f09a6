"""Joining the spans of several processes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pool import waterfall
from pool.waterfall import Span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
MS = 1_000_000


def span(span_id: str, parent: str, service: str, start: int, end: int, trace: str = TRACE) -> Span:
    return Span(trace, span_id, parent, f"{service} work", "server", service, "host1", start * MS, end * MS)


def write(path: Path, *spans: Span) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in spans))


def test_the_files_of_all_processes_are_joined_and_others_traces_left_out(tmp_path: Path) -> None:
    write(tmp_path / "host1/api/spans.jsonl", span("a", "0", "api", 0, 10), span("z", "0", "api", 0, 1, "f" * 32))
    write(tmp_path / "host2/vm/spans.jsonl", span("b", "a", "vm", 2, 9))
    assert [found.span_id for found in waterfall.read(tmp_path, TRACE)] == ["a", "b"]


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "host1/api/spans.jsonl"
    write(path, span("a", "0", "api", 0, 10))
    with path.open("ab") as file:
        file.write(b'{"trace_id": "' + TRACE.encode())
    assert len(waterfall.read(tmp_path, TRACE)) == 1


def test_children_follow_their_parent_and_its_own_time_is_what_they_leave() -> None:
    spans = [
        span("c", "a", "db", 8, 9),
        span("b", "a", "vm", 2, 6),
        span("a", "0", "api", 0, 10),
        span("d", "a", "storage", 4, 7),  # at the same time as b
    ]
    lines = waterfall.lines(spans)
    assert [(line.span.span_id, line.depth) for line in lines] == [("a", 0), ("b", 1), ("d", 1), ("c", 1)]
    assert lines[0].own_ns == 4 * MS


def test_the_rendering_shows_offsets_durations_and_the_time_by_service() -> None:
    text = waterfall.render([span("a", "0", "api", 100, 110), span("b", "a", "vm", 102, 109)])
    assert "0.000    10.000     3.000" in text
    assert "2.000     7.000     7.000" in text
    assert text.splitlines()[-2].split() == ["vm", "7.000", "ms"]
