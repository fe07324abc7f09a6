"""How the terms of a history followed each other: whether a state of the rows is part of it.

A term begins on the rows of an earlier one, up to a generation (`TermStart.base`); what that one did after it was left
out. So a follower's position, some generation of some term, is part of the history when it is not behind the place
where the next term began: then it only lacks what came since. It is not when it has commits that were left out, or when
other rows have taken the place of all (a restore, a machine that was started anew without its volatile rows): then
only a snapshot helps.

The host that began a term tells terms of the same number apart: two hosts that cannot reach each other may both count
to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.contracts.db import Position, TermStart

KEPT: Final = 200
"""Terms remembered. Followers of older ones fetch a snapshot."""


class Lineage:
    """Immutable. `starts`: oldest first; each one goes on where the one before it ends."""

    __slots__ = ("starts",)

    def __init__(self, starts: Iterable[TermStart] = ()) -> None:
        self.starts = tuple(starts)[-KEPT:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lineage) and other.starts == self.starts

    def __hash__(self) -> int:
        return hash(self.starts)

    @property
    def term(self) -> int:
        return self.starts[-1].term if self.starts else 0

    @property
    def host(self) -> str:
        """That began the present term."""
        return self.starts[-1].host if self.starts else ""

    @property
    def reign(self) -> int:
        """The last term that was taken by force, or whose rows took the place of all others: what is done for
        coordinators of earlier ones is refused.
        """
        return max((start.term for start in self.starts if start.forced or start.after == 0), default=0)

    def at(self, generation: int) -> Position:
        return Position(term=self.term, generation=generation, host=self.host)

    def began(self, start: TermStart) -> Lineage:
        """With one more term, unless it is known. One that does not go on from ours begins a new history."""
        if start in self.starts:
            return self
        goes_on = start.after != 0 and start.after == self.term
        return Lineage((*self.starts, start)) if goes_on else Lineage((start,))

    def after(self, term: int) -> list[TermStart]:
        """The later terms."""
        return [start for start in self.starts if start.term > term]

    def until(self, term: int) -> Lineage:
        """Without later terms, which were announced and never begun."""
        return Lineage(start for start in self.starts if start.term <= term)

    def end(self, position: Position) -> int | None:
        """The last generation of the position's term that is part of the history.

        None: the term is not in it; -1: it is the present one, which has no end yet.
        """
        end = -1
        for start in reversed(self.starts):
            if start.term == position.term and position.host in ("", start.host):
                return end
            end = start.base
        return None

    def includes(self, position: Position, generation: int) -> bool:
        """Whether the history, which is at `generation` now, has all that the position has."""
        end = self.end(position)
        return end is not None and position.generation <= (generation if end < 0 else end)

    def left_out(self, position: Position) -> bool:
        """Whether a later term surely began without what was committed at that position."""
        end = self.end(position)
        return end is not None and 0 <= end < position.generation
