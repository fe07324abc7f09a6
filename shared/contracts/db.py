"""The database process: the only way to change a row, and how replicas follow.

Rows are maps from field name (as on the wire: `name_label`) to plain values: text, int, float, bool, list (set), dict
(map). References and datetimes are text. Classes are named as in the API (`VM`, `host`).
"""

from __future__ import annotations

from typing import Any

from shared.bus.contract import Absent, Empty, Method, Record, Scope, Topic

Row = dict[str, Any]


# ---- preconditions: the facts a decision was made on


class Equals(Record, frozen=True, tag="equals"):
    """The field holds this value now. A row that is gone does not."""

    cls: str
    ref: str
    field: str
    value: Any


class Unchanged(Record, frozen=True, tag="unchanged"):
    """The row's last modification is not later than `generation`."""

    cls: str
    ref: str
    generation: int


class RowAbsent(Record, frozen=True, tag="absent"):
    cls: str
    ref: str


class RowPresent(Record, frozen=True, tag="present"):
    cls: str
    ref: str


class KeyAbsent(Record, frozen=True, tag="key_absent"):
    """The map field has no such key."""

    cls: str
    ref: str
    field: str
    key: str


Precondition = Equals | Unchanged | RowAbsent | RowPresent | KeyAbsent


# ---- changes


class Create(Record, frozen=True, tag="create"):
    """A new row. Fields left out get the model's default; `uuid` is made when absent. An existing ref is a conflict."""

    cls: str
    ref: str
    fields: Row


class Update(Record, frozen=True, tag="update"):
    """New values of some fields. Equal values change nothing and make no event."""

    cls: str
    ref: str
    fields: Row


class Delete(Record, frozen=True, tag="delete"):
    """A row that is already gone is not an error."""

    cls: str
    ref: str


class MapPut(Record, frozen=True, tag="map_put"):
    """Puts a key into a map field. `new`: an existing key is MAP_DUPLICATE_KEY, even when its value is equal."""

    cls: str
    ref: str
    field: str
    key: str
    value: Any
    new: bool = False


class MapDrop(Record, frozen=True, tag="map_drop"):
    """Removes a key; one that is absent changes nothing."""

    cls: str
    ref: str
    field: str
    key: str


class SetAdd(Record, frozen=True, tag="set_add"):
    cls: str
    ref: str
    field: str
    value: Any


class SetDrop(Record, frozen=True, tag="set_drop"):
    cls: str
    ref: str
    field: str
    value: Any


class Touch(Record, frozen=True, tag="touch"):
    """Counts as a modification without changing anything (`event.inject`)."""

    cls: str
    ref: str


Change = Create | Update | Delete | MapPut | MapDrop | SetAdd | SetDrop | Touch


class Transact(Record, frozen=True):
    """All changes or none, as one generation. Changes apply in order; later ones see the earlier."""

    changes: list[Change]
    preconditions: list[Precondition] = []


class Committed(Record, frozen=True):
    """`generation`: of this transaction (of the newest row state if nothing changed). Durable when answered."""

    generation: int
    term: int


# ---- replication


class RowCreated(Record, frozen=True, tag="add"):
    """All stored fields. Derived ones (the many side of relations) are rebuilt by whoever follows."""

    cls: str
    ref: str
    fields: Row


class RowModified(Record, frozen=True, tag="mod"):
    """New values of the stored fields that changed; none for a touch."""

    cls: str
    ref: str
    fields: Row


class RowDeleted(Record, frozen=True, tag="del"):
    cls: str
    ref: str


RowChange = RowCreated | RowModified | RowDeleted


class Delta(Record, frozen=True):
    """One commit. `previous`: the generation it follows; a follower whose own generation differs has missed something.

    `task`, `session`: for whom it was made. `persistent`: some of it went to the redo log.
    """

    term: int
    generation: int
    previous: int
    changes: list[RowChange]
    task: str = ""
    session: str = ""


class SnapshotRequest(Record, frozen=True):
    """Page 0 opens a snapshot; later pages name it. A snapshot is dropped after its last page or a minute."""

    snapshot: str = ""
    page: int = 0


class SnapshotRow(Record, frozen=True):
    cls: str
    ref: str
    created: int
    modified: int
    fields: Row


class SnapshotPage(Record, frozen=True):
    """All rows as they were at `generation`."""

    snapshot: str
    term: int
    generation: int
    page: int
    pages: int
    rows: list[SnapshotRow]


class RestorePart(Record, frozen=True):
    """Some rows of a database to come. `restore`: a name of the caller's; `number`: from 0, in any order.

    Parts are dropped when a minute passes without another, and when the database process is started anew.
    """

    restore: str
    number: int
    rows: list[SnapshotRow]


class Restore(Record, frozen=True):
    """Puts the rows of all `parts` in the place of the present ones. Those of the classes in `keep` and of the
    references in `rows` stay.

    `generation`: of the restored database; the pool's goes on above it and above its own. `renamed`: references to
    rows that have another one now, for the rows that stay.
    """

    restore: str
    parts: int
    generation: int
    keep: list[str] = []
    rows: list[str] = []
    renamed: dict[str, str] = {}


class DbStatus(Record, frozen=True):
    """`durable`: highest generation on stable storage. `log_bytes`, `syncs`, `commits`: since start."""

    term: int
    generation: int
    durable: int
    rows: int
    log_bytes: int
    syncs: int
    commits: int
    redo_log: str
    healthy: bool


class ChangesRequest(Record, frozen=True):
    """What has been committed since `generation` of `term`, for a follower that has missed something."""

    term: int
    generation: int


class Changes(Record, frozen=True):
    """`deltas`: oldest first, the first follows `generation`; None when they are no longer known: fetch a snapshot.

    There may be more of them: `deltas` of a later question bring those.
    """

    deltas: list[Delta] | None = None


class DbRole(Record, frozen=True):
    """What the database process of one host is: primary | standby (keeps what it follows) | idle (could be promoted).

    `durable`: highest generation that it holds on stable storage, of `term`. `caught_up`: follows without a gap.
    """

    host: str
    role: str
    term: int
    generation: int
    durable: int
    caught_up: bool = True


class Promote(Record, frozen=True):
    """`planned`: the present primary is asked to hand over; else it is taken for dead, and shut out."""

    planned: bool = False


class Promoted(Record, frozen=True):
    """`generation`: where the new term begins. `source`: the host whose rows were the newest (uuid)."""

    term: int
    generation: int
    source: str = ""


class Resign(Record, frozen=True):
    """`host`: uuid of the host whose database process takes over."""

    host: str


class Resigned(Record, frozen=True):
    """Nothing is committed after `generation` of `term`."""

    term: int
    generation: int


TRANSACT = Method(
    "db",
    "transact",
    Transact,
    Committed,
    "Applies changes atomically and answers when they are durable.",
    Scope.POOL,
    absent=Absent.WAIT,
    errors=(
        "DB_CONFLICT",
        "HANDLE_INVALID",
        "MAP_DUPLICATE_KEY",
        "DB_UNIQUENESS_CONSTRAINT_VIOLATION",
        "INTERNAL_ERROR",
    ),
)
SNAPSHOT = Method(
    "db",
    "snapshot",
    SnapshotRequest,
    SnapshotPage,
    "A page of all rows at one generation.",
    Scope.POOL,
    absent=Absent.WAIT,
)
RESTORE_PART = Method(
    "db",
    "restore_part",
    RestorePart,
    Empty,
    "Brings some rows of a database that is to be restored; nothing changes yet.",
    Scope.POOL,
    absent=Absent.WAIT,
    errors=("INTERNAL_ERROR",),
)
RESTORE = Method(
    "db",
    "restore",
    Restore,
    Committed,
    "Replaces all rows at once, durably, in a new term: followers fetch a snapshot.",
    Scope.POOL,
    absent=Absent.WAIT,
    errors=("INTERNAL_ERROR",),
)
DB_STATUS = Method("db", "db_status", Empty, DbStatus, "Generation, term and health of the store.", Scope.POOL)

CHANGES_SINCE = Method(
    "db",
    "changes_since",
    ChangesRequest,
    Changes,
    "The commits after one that the caller has, so that it need not fetch all rows.",
    Scope.POOL,
    absent=Absent.WAIT,
)
DB_ROLE = Method("db", "db_role", Empty, DbRole, "What the database process of that host is, and how far.", Scope.HOST)
PROMOTE = Method(
    "db",
    "promote",
    Promote,
    Promoted,
    "Makes the database process of that host the primary, in a new term.",
    Scope.HOST,
    timeout=60.0,
    errors=("INTERNAL_ERROR",),
)
RESIGN = Method(
    "db",
    "resign",
    Resign,
    Resigned,
    "Ends all commits here, for another host's process that takes over.",
    Scope.POOL,
    timeout=30.0,
)

DELTA: Topic[Delta] = Topic(
    "db.delta",
    Delta,
    "Every commit, in order. Also routed as `db.<class>.<add|mod|del>` for each kind of change in it.",
)
