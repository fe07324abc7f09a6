"""Who is live, from heartbeats alone. No I/O; times are seconds of the watcher's own monotonic clock.

This only shows who is up. Whether a host may be taken for dead and its VMs started elsewhere is never decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.bus.contract import Record
from shared.contracts.ha import Heartbeat, Liveness

NEVER = -1.0
"""The age of a heartbeat that has not come."""


class Seen(Record, frozen=True):
    """The last heartbeat of a host, and when it arrived."""

    boot: str
    seq: int
    at: float


def heard(table: Mapping[str, Seen], beat: Heartbeat, now: float) -> dict[str, Seen]:
    """The table after a heartbeat. One that was overtaken by a later one of the same boot counts nothing."""
    last = table.get(beat.host)
    if last is not None and last.boot == beat.boot and beat.seq <= last.seq:
        return dict(table)
    return {**table, beat.host: Seen(boot=beat.boot, seq=beat.seq, at=now)}


def verdicts(
    table: Mapping[str, Seen], hosts: Iterable[str], listening: float, now: float, limit: float
) -> dict[str, bool | None]:
    """For each host: live, not live, or None while that cannot be known.

    `listening`: since when heartbeats can be heard without a gap; silence before that says nothing.
    """
    result: dict[str, bool | None] = {}
    for host in hosts:
        seen = table.get(host)
        if seen is not None and now - seen.at <= limit:
            result[host] = True
        elif now - max(listening, seen.at if seen else listening) > limit:
            result[host] = False
        else:
            result[host] = None
    return result


def changes(verdict: Mapping[str, bool | None], recorded: Mapping[str, bool]) -> dict[str, bool]:
    """What has to be written, given what the database says. Hosts it does not have are left out."""
    return {
        host: live
        for host, live in verdict.items()
        if live is not None and host in recorded and recorded[host] is not live
    }


def report(verdict: Mapping[str, bool | None], table: Mapping[str, Seen], now: float) -> list[Liveness]:
    return [
        Liveness(host=host, live=bool(live), age=now - table[host].at if host in table else NEVER)
        for host, live in sorted(verdict.items())
    ]
