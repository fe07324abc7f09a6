"""The memory of this process, for developers."""

from __future__ import annotations

import gc

import psutil

from shared.bus.contract import Empty
from shared.contracts.host import Figures


async def gc_stats(_: Empty) -> Figures:
    """Of each of the collector's generations: runs, what they freed, what they could not; bytes of the process."""
    figures: dict[str, int] = {}
    for number, (generation, waiting) in enumerate(zip(gc.get_stats(), gc.get_count(), strict=True)):
        figures |= {f"generation_{number}_{name}": value for name, value in generation.items()}
        figures[f"generation_{number}_waiting"] = waiting
    memory = psutil.Process().memory_info()
    figures |= {"frozen_objects": gc.get_freeze_count(), "resident_bytes": memory.rss, "virtual_bytes": memory.vms}
    return Figures(figures={name: str(value) for name, value in figures.items()})


async def gc_compact(_: Empty) -> Empty:
    """Whoever asks for it accepts that nothing else runs meanwhile."""
    gc.collect()
    return Empty()
