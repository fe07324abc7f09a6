"""The database's history: who changed which field of which object when, the value before and the one after."""

from __future__ import annotations

from typing import Any, Final

from shared.bus.contract import Absent, Method, Record, Scope

HIDDEN: Final = "(hidden)"
"""In the place of passwords, keys and other secrets. That they are named says that they changed."""


class FieldChange(Record, frozen=True, gc=False):
    """Of sets and maps `old` holds what went and `new` what came; a key whose value changed is in both.

    Long texts are cut and end in `… (N characters)`, long sets and maps in an item `… (N in all)`.
    """

    name: str
    old: Any
    new: Any


class ObjectChange(Record, frozen=True, gc=False):
    """`kind`: add | mod | del | rel. `name`: its name_label after the change, "" for a class without one.

    A new object has those fields that are not the default, with the default as `old`; a deleted one the other way
    round. `rel`: the object itself was not written, but a reference to it was: lists that follow from references
    (`VM.VBDs`) have gained and lost members.
    """

    cls: str
    ref: str
    kind: str
    uuid: str = ""
    name: str = ""
    fields: list[FieldChange] = []


class HistoryEntry(Record, frozen=True, gc=False):
    """One commit, or something that befell the database. `kind`: commit | restored | started | stopped | gap.

    `time`: Unix, seconds. `task`: reference, also of one that clients cannot see, "" for none. `call`: the XenAPI
    message, or the HTTP request. `session`: as in logs (`shared.logs.track_id`), its reference is a credential.
    `user`, `originator`: of the session. `note`: for people, of what is no commit.
    """

    generation: int
    term: int
    time: float
    kind: str = "commit"
    task: str = ""
    call: str = ""
    session: str = ""
    user: str = ""
    originator: str = ""
    note: str = ""
    changes: list[ObjectChange] = []


class HistoryRequest(Record, frozen=True):
    """What is given must all be so; of a commit, only the changes that fit are told.

    `ref`, `uuid`, `cls`, `field`: of a changed object. `task`: a reference or the name of a call. `session`: a
    reference, or as the history has it. Times are Unix seconds, inclusive as generations are.
    `token`: of the page before; it goes on in the order that it began in. `limit`: entries of a page, at most 1000.
    """

    ref: str = ""
    uuid: str = ""
    cls: str = ""
    field: str = ""
    task: str = ""
    session: str = ""
    user: str = ""
    since: float | None = None
    until: float | None = None
    since_generation: int | None = None
    until_generation: int | None = None
    oldest_first: bool = False
    limit: int = 100
    token: str = ""


class HistoryPage(Record, frozen=True):
    """`more`: there may be more entries than these, perhaps of none that fit. Ask again with `token`.

    With the oldest first there is always a token: what comes later follows it. `recording`: false when history is off.
    """

    entries: list[HistoryEntry]
    token: str = ""
    more: bool = False
    recording: bool = True


HISTORY = Method(
    "db",
    "history",
    HistoryRequest,
    HistoryPage,
    "Who changed what, and when.",
    Scope.POOL,
    absent=Absent.WAIT,
    errors=("INVALID_VALUE",),
)
