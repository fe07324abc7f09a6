"""Pools of these tests end with their process: nothing of theirs has to outlive the machine."""

from __future__ import annotations

import os

import pytest

from services.db.service import Database


@pytest.fixture(autouse=True)
def unhurt_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced, and a database that ends writes its rows neither into a checkpoint nor into another file: both
    took half of most tests' time, and have tests of their own (tests/db). What a killed service has written is there.
    """
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, _nothing)
    monkeypatch.setattr(Database, "checkpoint", _not_written)
    monkeypatch.setattr(Database, "flush", _not_written)


def _nothing(_: int) -> None: ...


async def _not_written(_: Database) -> bool:
    return True
