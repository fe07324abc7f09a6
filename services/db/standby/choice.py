"""Who should take over, and who must stand back: decided on what the hosts' processes say of themselves.

The newest rows are those of the highest term, and in it of the highest durable generation. A commit that was answered
after k standbys had it is then part of the new term's history whenever one of those k answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.contracts.db import DbRole

NEVER_KEPT: Final = 0
"""The term of a process that has no rows."""


def newest(candidates: Iterable[DbRole]) -> DbRole | None:
    """Whose rows are the newest; of equals the one with the lowest uuid. None: nobody has any."""
    having = [role for role in candidates if role.term != NEVER_KEPT]
    return min(having, key=lambda role: (-role.term, -role.durable, role.host), default=None)


def is_ahead(other: DbRole, own: DbRole) -> bool:
    """Whether the other has commits that we lack."""
    return (other.term, other.durable) > (own.term, own.durable)


@dataclass(frozen=True, slots=True)
class Rival:
    """Another process that is about to begin a term as high as ours: one of the two must stand back."""

    host: str
    term: int


def rival(own: str, promised: int, others: Iterable[DbRole]) -> Rival | None:
    """Who tries to begin our term or a later one. Whoever sees another stands back.

    Both promised before they asked, so at least one of two sees the other.
    """
    for role in others:
        if role.host != own and max(role.promised, role.term) >= promised:
            return Rival(role.host, max(role.promised, role.term))
    return None


def next_term(own: int, others: Iterable[DbRole]) -> int:
    """Higher than any that somebody has, or has promised to begin."""
    return 1 + max([own, *(max(role.term, role.promised) for role in others)])


class Standing(StrEnum):
    """What a primary learns when it asks the others whether it still is."""

    FIRST = "first"
    WAIT = "wait"
    REPLACED = "replaced"


def standing(own: str, term: int, others: Sequence[DbRole]) -> Standing:
    """REPLACED: somebody has rows of a higher term. WAIT: somebody is about to begin one: it will, or give it up.

    Two primaries of one term have counted to it without hearing of each other: the one with the lower uuid stays.
    """
    if any(role.term > term for role in others):
        return Standing.REPLACED
    if any(role.term == term and role.role == "primary" and role.host < own for role in others):
        return Standing.REPLACED
    if any(role.promised > term for role in others):
        return Standing.WAIT
    return Standing.FIRST


def keepers(reporting: Iterable[str], wanted: int, chosen: Sequence[str] = ()) -> list[str]:
    """The hosts whose processes persist what they follow: those chosen by name, else the first ones by uuid."""
    there = sorted(set(reporting))
    if chosen:
        return [host for host in there if host in chosen]
    return there[:wanted]
