"""Which crashes there are, on which redo log."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.redo_blocks.layout import UPSTREAM
from tests.db.crash.campaign import Plan

LOGS: Final = ("file", "block", "quorum", "off")


@dataclass(frozen=True)
class Kind:
    """`actions`: as in `Plan`. `disk`: as in `process.py`. `power`: what is not synced may be lost.

    `broker`: it is killed too, so it must be the campaign's own. `standby`: there is one.
    """

    disk: str
    actions: Mapping[str, int]
    power: bool = False
    broker: bool = False
    standby: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "kill": Kind(
        "real",
        {
            "kill": 6,
            "kill in checkpoint": 3,
            "kill checkpoint": 2,
            "kill while stopping": 1,
            "pause": 2,
        },
    ),
    "power": Kind(
        "lossy",
        {
            "cut power": 4,
            "tear": 4,
            "cut power in checkpoint": 3,
            "kill": 2,
            "kill in checkpoint": 1,
            "kill checkpoint": 1,
        },
        power=True,
    ),
    "errors": Kind("faulty", {"wait": 4, "kill": 1, "kill checkpoint": 1}),
    "errors and power": Kind("lossy+faulty", {"wait": 4, "cut power": 1, "tear": 1, "kill": 1}, power=True),
    "standby": Kind(
        "real", {"kill": 3, "kill standby": 4, "kill in checkpoint": 1, "pause": 1, "wait": 1}, standby=True
    ),
    "broker": Kind("", {"kill broker": 3, "pause broker": 1, "kill": 1, "pause": 1}, broker=True),
}
"""Without a disk it is `python -m services.db` itself; else the same, forked after its imports (`nursery.py`)."""

CHECKPOINT_BYTES: Final = 8_000


def plan(kind: str, rounds: int, seed: int, log: str, folder: Path) -> Plan:
    """`folder`: of the campaign. Raises `ValueError` for what promises nothing."""
    chosen = KINDS[kind]
    if chosen.power and log == "off":
        raise ValueError("without a redo log nothing outlives the machine")
    options: dict[str, object] = {"redo_log": log, "checkpoint_bytes": CHECKPOINT_BYTES}
    if log == "block":
        options["redo_log_device"] = str(_device(folder / "db"))
    if log == "quorum":
        options["redo_log_queue"] = f"redo-log-{uuid.uuid4()}"
    return Plan(
        rounds=rounds,
        seed=seed,
        actions=chosen.actions,
        disk=chosen.disk,
        options=options,
        standby=chosen.standby,
        chapter=6 if chosen.standby else 25,
        refuses="faulty" in chosen.disk or (chosen.broker and log == "quorum"),
    )


def _device(folder: Path) -> Path:
    """A blank one, of which only what is written takes room."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "device"
    path.touch()
    os.truncate(path, -(-UPSTREAM.size // 4096) * 4096)
    return path
