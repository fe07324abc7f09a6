"""One trace's way through the processes: joins the spans that each wrote in a file of its own (`shared.trace`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

BAR = 40
"""Characters of the longest bar."""


class Span(msgspec.Struct, frozen=True):
    """As `shared.trace` writes it. Times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    host: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int | float] = {}
    error: str = ""


class Line(msgspec.Struct, frozen=True):
    """`depth`: how many calls up to the first. `own_ns`: the time in which no span below it ran."""

    depth: int
    span: Span
    own_ns: int


def read(directory: Path, trace_id: str) -> list[Span]:
    """All spans of that trace in the folder's `spans.jsonl` files. A line that was cut off is left out."""
    found = []
    for path in sorted(directory.glob("**/spans.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if trace_id.encode() not in line:
                    continue
                try:
                    span = msgspec.json.decode(line, type=Span)
                except msgspec.DecodeError:
                    continue
                if span.trace_id == trace_id:
                    found.append(span)
    return found


def newest(directory: Path, count: int) -> list[Span]:
    """The first spans of the traces that were begun last, newest first."""
    first: dict[str, Span] = {}
    for path in directory.glob("**/spans.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                span = msgspec.json.decode(line, type=Span)
            except msgspec.DecodeError:
                continue
            if span.trace_id not in first or span.start_ns < first[span.trace_id].start_ns:
                first[span.trace_id] = span
    return sorted(first.values(), key=lambda span: -span.start_ns)[:count]


def lines(spans: Iterable[Span]) -> list[Line]:
    """Parents before children, siblings by start."""
    spans = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    return list(_walk(children, "", 0))


def _walk(children: dict[str, list[Span]], parent: str, depth: int) -> Iterator[Line]:
    for span in children.get(parent, []):
        covered = _union(span, children.get(span.span_id, []))
        yield Line(depth, span, span.end_ns - span.start_ns - covered)
        yield from _walk(children, span.span_id, depth + 1)


def _union(span: Span, parts: list[Span]) -> int:
    """Nanoseconds of `span` in which at least one of `parts` ran."""
    total, reached = 0, span.start_ns
    for part in sorted(parts, key=lambda part: part.start_ns):
        begin, end = max(part.start_ns, reached), min(part.end_ns, span.end_ns)
        if end > begin:
            total += end - begin
            reached = end
    return total


def render(spans: list[Span]) -> str:
    """The waterfall, then the time by service. Milliseconds."""
    rows = lines(spans)
    begin = min(span.start_ns for span in spans)
    length = max(max(span.end_ns for span in spans) - begin, 1)
    text = [f"{'service':<16} {'host':<8} {'at ms':>9} {'ms':>9} {'own ms':>9}  name"]
    own: dict[str, int] = {}
    for row in rows:
        span = row.span
        own[span.service] = own.get(span.service, 0) + row.own_ns
        left = (span.start_ns - begin) * BAR // length
        width = max(1, (span.end_ns - span.start_ns) * BAR // length)
        bar = (" " * left + "█" * width)[:BAR].ljust(BAR)
        text.append(
            f"{span.service:<16} {span.host:<8} {_ms(span.start_ns - begin):>9} {_ms(span.end_ns - span.start_ns):>9}"
            f" {_ms(row.own_ns):>9}  {bar}  {'  ' * row.depth}{span.name}{f' ! {span.error}' if span.error else ''}"
        )
    text += ["", "own time by service:"]
    text += [f"  {service:<16} {_ms(time):>9} ms" for service, time in sorted(own.items(), key=lambda item: -item[1])]
    return "\n".join(text)


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.3f}"
