"""There is one pool, and its coordinator is one of its hosts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.db.check.findings import Finding, Kind, Repair, SetField
from shared.contracts.db import SnapshotRow


def check(rows: Sequence[SnapshotRow]) -> Iterator[Finding]:
    """A database without any row is that of a pool to come."""
    pools = [row for row in rows if row.cls == "pool"]
    if rows and len(pools) != 1:
        yield Finding(Kind.POOL, "pool", "", "", f"there are {len(pools)} rows of class pool, and not one")
    hosts = [row.ref for row in rows if row.cls == "host"]
    for pool in pools:
        master = pool.fields.get("master")
        if master not in hosts:
            repair: Repair | None = SetField(hosts[0]) if len(hosts) == 1 else None
            what = f"the coordinator {master!r} is none of the {len(hosts)} hosts"
            yield Finding(Kind.POOL, "pool", pool.ref, "master", what, repair)
