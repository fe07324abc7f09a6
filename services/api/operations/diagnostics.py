"""Messages of class Diagnostics: figures for developers."""

from __future__ import annotations

from services.api.call import Call
from services.api.on_hosts import on_host
from services.api.operation import operation
from shared.bus.contract import Empty
from shared.contracts.host import GC_COMPACT, GC_STATS


@operation("Diagnostics.gc_compact")
async def gc_compact(call: Call, host: str) -> None:
    await on_host(call, host, GC_COMPACT, Empty())


@operation("Diagnostics.gc_stats")
async def gc_stats(call: Call, host: str) -> dict[str, str]:
    """Of the host's API process."""
    return (await on_host(call, host, GC_STATS, Empty())).figures


@operation("Diagnostics.db_stats")
def db_stats(call: Call) -> dict[str, str]:
    """How many transactions this process has made, and the seconds they took."""
    times = call.api.database.times
    average = times.total / times.count if times.count else 0.0
    return {
        "n": str(times.count),
        "avgtime": f"{average:f}",
        "min": f"{times.shortest:f}",
        "max": f"{times.longest:f}",
    }
