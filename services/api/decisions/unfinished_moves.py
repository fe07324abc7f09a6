"""What rows know of disks that change their SR, so that whoever finds a move without its call can end it. Pure.

The former disk's row names the new one before that is made, and says by which call, and how far it has come.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from services.api.decisions.rows import Record, Rows, busy
from shared.contracts.db import Change, MapDrop, MapPut

KEY: Final = "moving_to"
"""Of the former disk's sm_config, which nobody copies to other disks."""

Stage = Literal["copy", "mirror", "landed"]
"""`copy`: no VM has the new disk. `mirror`: only its VM's host knows whether it has. `landed`: rows have changed, and
the former disk is to be removed.
"""
_STAGES: Final[dict[str, Stage]] = {"copy": "copy", "mirror": "mirror", "landed": "landed"}


@dataclass(frozen=True, slots=True)
class Move:
    """`former`: reference. `sr`, `uuid`: of the new disk. `task`: the call's."""

    former: str
    sr: str
    uuid: str
    task: str
    stage: Stage


def noted(move: Move) -> Change:
    value = f"{move.stage} {move.sr} {move.uuid} {move.task}"
    return MapPut(cls="VDI", ref=move.former, field="sm_config", key=KEY, value=value)


def forgotten(former: str) -> Change:
    return MapDrop(cls="VDI", ref=former, field="sm_config", key=KEY)


def of(rows: Rows, vdi: str) -> Move | None:
    row = rows.row("VDI", vdi)
    said = row["sm_config"].get(KEY, "").split(" ") if row is not None else []
    if len(said) != 4 or said[0] not in _STAGES:
        return None
    return Move(vdi, said[1], said[2], said[3], _STAGES[said[0]])


def require_known(rows: Rows, vdi: str) -> None:
    """That it is this disk that counts: what is written to another is lost. Raises OTHER_OPERATION_IN_PROGRESS."""
    move = of(rows, vdi)
    if move is not None and move.stage == "mirror":
        raise busy("VDI", vdi, "mirror", move.task)


def is_moving(row: Record) -> bool:
    return KEY in row["sm_config"]


def left(rows: Rows, moving: Iterable[str], running: Container[str]) -> list[Move]:
    """Of the disks that move, those whose calls nobody carries out any more."""
    moves = (of(rows, ref) for ref in moving)
    return [move for move in moves if move is not None and move.task not in running]
