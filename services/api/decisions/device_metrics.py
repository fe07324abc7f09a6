"""Metrics of drives and interfaces: rows that are there because clients follow the reference; they hold no figures."""

from __future__ import annotations

from typing import Any, Literal

from services.api.decisions.rows import Rows, existing
from shared.contracts.db import Change, Create, Delete


def with_metrics(cls: Literal["VBD", "VIF"], device: Create, uuid: str, now: str) -> list[Change]:
    """The new device and its metrics. `uuid`: of the metrics."""
    ref = f"OpaqueRef:{uuid}"
    fields: dict[str, Any] = {"uuid": uuid, "last_updated": now}
    metrics = Create(cls=f"{cls}_metrics", ref=ref, fields=fields)
    return [metrics, Create(cls=cls, ref=device.ref, fields={**device.fields, "metrics": ref})]


def removed(rows: Rows, cls: Literal["VBD", "VIF"], device: str) -> list[Change]:
    """The device goes, and its metrics if they are there: they do not outlive the database process."""
    metrics: str = existing(rows, cls, device)["metrics"]
    has_metrics = rows.row(f"{cls}_metrics", metrics) is not None
    gone: list[Change] = [Delete(cls=f"{cls}_metrics", ref=metrics)] if has_metrics else []
    return [*gone, Delete(cls=cls, ref=device)]
