"""Applies the rules that a database of an older schema needs, one after another: each sees what those before it did."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from services.db.transaction import resolve
from services.db.upgrade.rule import Rule, RuleError, Schema, Surroundings
from services.db.upgrade.table import RULES
from shared.contracts.db import Delta, Transact
from shared.database_dump.schema import SCHEMA_VERSION
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("db.upgrade")

_FAILURES = (RuleError, ApiError, LookupError, ValueError, TypeError, OSError)
"""What rows can do to a rule that is right about all others."""


def apply(store: Store, schema: tuple[int, int], around: Surroundings, rules: Sequence[Rule] = RULES) -> list[str]:
    """Changes the rows at their present generation; returns what was done. `schema`: of the rows.

    A rule that fails is passed over, with all that it would have changed: a database of which one thing is as old is
    better than none.
    """
    found = Schema(*schema)
    if found >= SCHEMA_VERSION:
        if found > SCHEMA_VERSION:
            log.warning("the database is newer (%d.%d) than this program (%d.%d)", *found, *SCHEMA_VERSION)
        return []
    done = []
    for rule in rules:
        if not rule.bound.covers(found):
            continue
        try:
            count = _apply(store, rule, around)
        except _FAILURES as error:
            log.error("upgrade from schema %d.%d: '%s' is passed over: %s", *found, rule.what, error)
            continue
        if count:
            done.append(rule.what)
            log.info("upgrade from schema %d.%d: %s", *found, rule.what, extra={"rows": count})
    return done


def _apply(store: Store, rule: Rule, around: Surroundings) -> int:
    """How many rows changed: all that the rule wants, or, when anything is wrong with it, none."""
    wanted = list(rule.changes(store, around))
    changes = resolve(store, Transact(changes=wanted)) if wanted else []
    if changes:
        at = store.generation
        store.apply(Delta(term=store.term, generation=at, previous=at, changes=changes))
    return len(changes)
