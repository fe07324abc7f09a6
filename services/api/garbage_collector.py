"""Removes rows that nothing needs any more, on the coordinator: a look at all rows, in turns with everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from services.api.api import Api
from services.api.decisions import garbage
from services.api.decisions.garbage import Rule
from shared.contracts.db import Change, Precondition
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("api.garbage")

SLICE: Final = 500
"""Rows that are looked at before others get their turn: one or two milliseconds."""

BATCH: Final = 200
"""Rows that go in one transaction."""


async def collect(api: Api) -> int:
    """One pass over all rules; how many rows were garbage. What cannot be removed is left to the next pass."""
    count = 0
    for rule in garbage.RULES:
        refs = await _look(api, rule)
        for begin in range(0, len(refs), BATCH):
            try:
                count += await _remove(api, rule, refs[begin : begin + BATCH])
            except ApiError as error:
                log.warning("garbage of class %s is not removed: %s", rule.cls, error)
                break
    return count


async def _look(api: Api, rule: Rule) -> list[str]:
    """The rows that are there when it begins; which of them are garbage is asked again when they are to go."""
    refs = list(api.store.rows(rule.cls))
    found: list[str] = []
    for begin in range(0, len(refs), SLICE):
        found += garbage.found(api.store, rule, refs[begin : begin + SLICE])
        await asyncio.sleep(0)
    return found


async def _remove(api: Api, rule: Rule, refs: Sequence[str]) -> int:
    count = await api.database.decide(partial(_decision, rule, refs))
    if count:
        log.info("garbage", extra={"class": rule.cls, "rows": count, "first": refs[0]})
    return count


def _decision(rule: Rule, refs: Sequence[str], store: Store) -> tuple[Sequence[Change], Sequence[Precondition], int]:
    return garbage.removal(store, rule, refs)
