"""Progress and cancellation of tasks, on the bus."""

from __future__ import annotations

from shared.bus.contract import Record, Topic


class Progress(Record, frozen=True):
    """`progress`: 0 to 1."""

    task: str
    progress: float


class Cancel(Record, frozen=True):
    task: str


PROGRESS: Topic[Progress] = Topic("task.{task}.progress", Progress, "How far the work for a task has come.")
CANCEL: Topic[Cancel] = Topic("task.{task}.cancel", Cancel, "Whoever works for that task should stop.")
