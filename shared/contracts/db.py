"""The database process: the only way to change a row, and how replicas follow.

Rows are maps from field name (as on the wire: `name_label`) to plain values: text, int, float, bool, list (set), dict
(map). References and datetimes are text. Classes are named as in the API (`VM`, `host`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shared.bus.contract import Absent, Empty, Method, Record, Scope, Topic

Row = dict[str, Any]


class Position(Record, frozen=True):
    """A state of the rows: the one after `generation`, in the history that ends with `term`.

    `host`: uuid of the host whose process began that term, "" where it has none.
    """

    term: int
    generation: int
    host: str = ""


class TermStart(Record, frozen=True):
    """Where a term begins: its history is that of term `after` up to generation `base`, and then its own.

    `after`: 0 when other rows have taken the place of all earlier ones. `host`: uuid of the host whose process began
    it. `forced`: the primary before had not handed over: what is done for a coordinator of earlier terms is refused.
    """

    term: int
    base: int
    after: int = 0
    host: str = ""
    forced: bool = False


# ---- preconditions: the facts a decision was made on


class Equals(Record, frozen=True, tag="equals"):
    """The field holds this value now. A row that is gone does not."""

    cls: str
    ref: str
    field: str
    value: Any


class Unchanged(Record, frozen=True, tag="unchanged"):
    """The row's last modification is not later than `generation`; that of one `field` where it is given."""

    cls: str
    ref: str
    generation: int
    field: str = ""


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
    """All changes or none, as one generation. Changes apply in order; later ones see the earlier.

    `seen`: the rows that it was decided on, where the caller follows the database: DB_CONFLICT when others have taken
    their place since (a restore, a promotion that lost some commits).
    """

    changes: list[Change]
    preconditions: list[Precondition] = []
    seen: Position | None = None


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

    `task`, `session`: for whom it was made, `call`: by which XenAPI message. `request`: id of the bus request that
    asked for it, so that whoever takes over does not apply it twice. `begins`: it is the first of its term; one that is
    no commit says only that, at the generation that it follows. Numbers after `previous` that were left out were never
    committed.
    """

    term: int
    generation: int
    previous: int
    changes: list[RowChange]
    task: str = ""
    session: str = ""
    request: str = ""
    begins: TermStart | None = None
    call: str = ""


class Deltas(Delta, frozen=True):
    """One message: a commit, and those after it that became durable with it, oldest first.

    Whoever reads only the first sees a gap, and asks for the others.
    """

    more: list[Delta] = []

    @classmethod
    def of(cls, deltas: Sequence[Delta]) -> Deltas:
        """At least one."""
        first = deltas[0]
        return cls(**{name: getattr(first, name) for name in _DELTA}, more=list(deltas[1:]))

    def each(self) -> list[Delta]:
        return [Delta(**{name: getattr(self, name) for name in _DELTA}), *self.more]


_DELTA: Final = Delta.__struct_fields__


class SnapshotRequest(Record, frozen=True):
    """Page 0 opens a snapshot; later pages name it. A snapshot is dropped after its last page or a minute.

    `requests`: page 0 brings the ids of finished requests as well.
    """

    snapshot: str = ""
    page: int = 0
    requests: bool = False


class SnapshotRow(Record, frozen=True):
    """`written`: generations of the fields that have changed since the row was made."""

    cls: str
    ref: str
    created: int
    modified: int
    fields: Row
    written: dict[str, int] = {}


class SnapshotPage(Record, frozen=True):
    """All rows as they were at `generation`. `lineage`: how the terms of their history followed each other, oldest
    first. `requests`: ids of finished requests, with their generations.
    """

    snapshot: str
    term: int
    generation: int
    page: int
    pages: int
    rows: list[SnapshotRow]
    lineage: list[TermStart] = []
    requests: dict[str, int] = {}


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
    """`durable`: highest generation on stable storage. `log_bytes`, `syncs`, `commits`: since start.

    `host`: uuid of the host whose process is primary. `standbys`: the hosts that keep what they follow, with the
    generation that they have durably. `degraded`: why commits do not wait for standbys as they should, or "".
    `unmerged`: files that tell of commits which a promotion left out, as `<host uuid>:<path>`.
    `redo_log_disk`: path of the disk of an SR that the redo log is on as well, "" for none; `redo_log_disk_state`:
    idle | broken | empty | filling | current. `read_from`: the path, where the last start has taken its rows from it.
    """

    term: int
    generation: int
    durable: int
    rows: int
    log_bytes: int
    syncs: int
    commits: int
    redo_log: str
    healthy: bool
    host: str = ""
    standbys: dict[str, int] = {}
    degraded: str = ""
    unmerged: list[str] = []
    redo_log_disk: str = ""
    redo_log_disk_state: str = ""
    read_from: str = ""


# ---- a redo log on a disk of an SR


REDO_LOG_DATAPATHS: Final = "static/redo-log/"
"""Before the uuid of a disk: the datapaths by which hosts have it open."""


class RedoLogDisk(Record, frozen=True):
    """`vdi`, `sr`: uuids."""

    vdi: str
    sr: str
    location: str

    @property
    def datapath(self) -> str:
        """By which each host of the pool has it open, over restarts."""
        return REDO_LOG_DATAPATHS + self.vdi


class UseRedoLog(Record, frozen=True):
    """`vdi`: its reference; "": none."""

    vdi: str = ""


# ---- standbys and promotion


class Changes(Record, frozen=True):
    """`deltas`: oldest first, the first follows the position asked for; None when the rows there are no part of this
    history, or too long ago: fetch a snapshot. `at`: how far there are any, in the term that is the present one; ask
    again for what is missing. `starts`: of the terms after the one asked for.
    """

    at: Position
    deltas: list[Delta] | None = None
    starts: list[TermStart] = []


class DbRole(Record, frozen=True):
    """What the database process of one host is, and what it could bring into a promotion.

    `role`: primary | standby (keeps what it follows) | idle (could be promoted, holds what it kept before)
    | promoting | fenced (was primary, and has found another one). `generation`: newest commit that it has, of `term`;
    `durable`: the newest that it holds on stable storage. `promised`: the term that it tries to begin, or 0.
    `caught_up`: follows without a gap.
    """

    host: str
    role: str
    term: int
    generation: int
    durable: int
    caught_up: bool = True
    promised: int = 0


class Follow(Record, frozen=True):
    """A process that is not primary reports every few seconds. `host`: its host's uuid. `unmerged`: files on that host
    that tell of commits which were left out.
    """

    host: str
    term: int
    durable: int
    unmerged: list[str] = []


class Following(Record, frozen=True):
    """`keep`: it is one of those that shall persist what they follow. `host`: the primary's; `hosts`: of all processes
    that are there, the primary's as well. `prompt`: commits wait for what standbys report. `durable`:
    how far the primary is.
    """

    keep: bool
    host: str
    term: int
    hosts: list[str] = []
    prompt: bool = False
    durable: int = 0


class DurableAt(Record, frozen=True):
    """All commits up to `generation` of `term` are on that host's stable storage."""

    host: str
    term: int
    generation: int


class Confirmed(Record, frozen=True):
    """Who takes the requests of queue `db`. `process`: a name that no other process has."""

    host: str
    process: str
    term: int


class Promote(Record, frozen=True):
    """`planned`: the present primary is asked to hand over, and nothing changes if it does not; else it is taken for
    dead, and shut out.
    """

    planned: bool = False


class Promoted(Record, frozen=True):
    """`generation`: of the new term's first commit, which makes this host `pool.master`. `source`: uuid of the host
    whose rows were the newest.
    """

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
USE_REDO_LOG = Method(
    "db",
    "use_redo_log",
    UseRedoLog,
    Committed,
    "Keeps the redo log on that disk as well: when it is answered all rows are there, and the pool's row says so.",
    Scope.POOL,
    timeout=90.0,
    absent=Absent.WAIT,
    errors=("CANNOT_ENABLE_REDO_LOG", "INTERNAL_ERROR"),
)
DB_STATUS = Method("db", "db_status", Empty, DbStatus, "Generation, term and health of the store.", Scope.POOL)

CHANGES_SINCE = Method(
    "db",
    "changes_since",
    Position,
    Changes,
    "The commits after those that the caller has, so that it need not fetch all rows.",
    Scope.POOL,
    absent=Absent.WAIT,
)
FOLLOW = Method(
    "db", "follow", Follow, Following, "Says that a standby is there; tells it whether to persist.", Scope.POOL
)
CONFIRM = Method("db", "confirm", Empty, Confirmed, "Who takes the requests of this queue.", Scope.POOL, timeout=2.0)
RESIGN = Method(
    "db",
    "resign",
    Resign,
    Resigned,
    "Ends all commits here, for another host's process that takes over.",
    Scope.POOL,
    timeout=10.0,
    errors=("INTERNAL_ERROR",),
)
DB_ROLE = Method(
    "db", "db_role", Empty, DbRole, "What the database process of that host is, and how far.", Scope.HOST, timeout=2.0
)
PROMOTE = Method(
    "db",
    "promote",
    Promote,
    Promoted,
    "Makes the database process of that host the primary, in a new term, and the host pool.master.",
    Scope.HOST,
    timeout=60.0,
    errors=("INTERNAL_ERROR",),
)
HOST_CHANGES = Method(
    "db", "host_changes", Position, Changes, "As changes_since, of whatever that host's process holds.", Scope.HOST
)
HOST_SNAPSHOT = Method(
    "db", "host_snapshot", SnapshotRequest, SnapshotPage, "As snapshot, of whatever that process holds.", Scope.HOST
)

DELTA: Topic[Deltas] = Topic(
    "db.delta",
    Deltas,
    "Every commit, in order. Also routed as `db.<class>.<add|mod|del>` for each kind of change in the message.",
)
DURABLE: Topic[DurableAt] = Topic("db.durable.{host}", DurableAt, "How far a standby has persisted what it follows.")
