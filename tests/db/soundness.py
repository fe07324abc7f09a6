"""Every test of crashes, logs and replicas ends with this: what is left is a sound database."""

from __future__ import annotations

from services.db.check.findings import Finding, Kind, damage
from services.db.check.soundness import check_store
from shared.store import Store


def damaged(store: Store) -> list[Finding]:
    """What is wrong with the rows. Tests often have none of a pool; then nothing is said about it."""
    without_pool = not store.tables["pool"].rows
    return [finding for finding in damage(check_store(store)) if not (without_pool and finding.kind is Kind.POOL)]


def assert_sound(store: Store) -> None:
    found = damaged(store)
    assert not found, "\n".join(
        f"{finding.kind} {finding.cls} {finding.ref} {finding.field}: {finding.what}" for finding in found[:20]
    )
