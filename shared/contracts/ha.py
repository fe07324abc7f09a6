"""Who is alive. Heartbeats on the bus only show who is up; fencing decisions never rest on them."""

from __future__ import annotations

from shared.bus.contract import Empty, Method, Record, Scope, Topic


class Heartbeat(Record, frozen=True):
    """`boot`: made anew when the host's services start. `interval`: seconds to the next one. `time`: sender's clock."""

    host: str
    boot: str
    seq: int
    interval: float
    time: float


class Liveness(Record, frozen=True):
    """`age`: seconds since the last heartbeat (-1: none since this process started)."""

    host: str
    live: bool
    age: float


class LivenessTable(Record, frozen=True):
    hosts: list[Liveness]


HEARTBEAT: Topic[Heartbeat] = Topic("host.{uuid}.heartbeat", Heartbeat, "That host's services are running.")
LIVENESS = Method(
    "ha", "liveness", Empty, LivenessTable, "Which hosts are alive, as the coordinator sees it.", Scope.POOL
)
