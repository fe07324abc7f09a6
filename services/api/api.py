"""What operations work with: the pool's rows, the database, the bus, and the host they run on."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from services.api.audit.trail import Trail
from services.api.authentication import Authenticator, PoolSecrets
from services.api.blob_files import BlobFiles
from services.api.disks_in_motion import DisksInMotion
from services.api.failed_logins import FailedLogins
from services.api.known_clients import KnownClients
from services.api.local_sessions import LocalSessions
from services.api.opened_databases import OpenedDatabases
from services.api.role import Role
from services.api.running import Running
from services.api.timings import Timings
from services.api.vm_state import SeenStates
from shared.bus.interface import Bus
from shared.config import HostConfig
from shared.database import Database
from shared.errors import ApiError
from shared.replica import Replica
from shared.store import NULL, Store
from shared.turns import Turns

if TYPE_CHECKING:
    from services.api.directory.directory import Directory
    from services.api.events import EventHub
    from services.api.execute import Executor
    from services.api.observers import Observers
    from services.api.placement import Placement
    from services.api.rate_limit.gate import RateLimits
    from services.api.row_waiters import RowWaiters
    from services.api.succession import Succession


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`manage_host`: whether the machine itself may be changed: its clock, name, SSH server, power. `plugins`,
    `extensions`: folders of programs (`docs/host-side.md`), which are killed after `program_timeout` seconds.
    `driver_view`: see `shared.driver_view.namespace`, "" for none. `bundled_plugins`: a folder like `plugins`, for what
    drivers call and the administrator has not put there; "" for none.
    `directories`: the same for external directories (`docs/directory.md`).

    `role_file`: says what the host is in its pool (`shared.host_role`). Without one: `role`: coordinator | member, and
    `coordinator`: its address, for HOST_IS_SLAVE before the database is reached. `keeps_database`: a process of the
    database runs on each host that this one serves.

    `rate_limit`: calls are counted for whoever makes them, and delayed where a Rate_limit says so
    (`docs/rate-limits.md`). `call_costs_file`: what they cost. `max_auto_registered_callers`: negative for no limit.

    `auth`: file | pam. `pool_secret_file`: "" for none, then no other host can log in. `web_dir`: static files, ""
    for none; `website_https_only`: over plain HTTP they are refused rather than moved to HTTPS. `log_dir`: where the
    logs of the host's processes are, "" for nowhere. A port of 0 is not listened on.

    `internal_address`: the host's on its internal management network, "" for none. `proxies`: networks, separated by
    commas, whose connections may begin with who the client is (PROXY v1).
    `connections`: of clients at the same time, waiting ones included.
    """

    role_file: str = ""
    role: str = "coordinator"
    coordinator: str = ""
    keeps_database: bool = False
    http_port: int = 80
    https_port: int = 443
    unix_socket: str = ""
    password_file: str = ""
    auth: str = "file"
    pam_service: str = "xapi"
    pool_secret_file: str = ""
    web_dir: str = ""
    website_https_only: bool = True
    log_dir: str = ""
    audit_log: str = ""
    manage_host: bool = False
    plugins: str = "/etc/xapi.d/plugins"
    extensions: str = "/etc/xapi.d/extensions"
    directories: str = "/etc/xapi.d/extauth"
    program_timeout: float = 3600.0
    driver_view: str = ""
    bundled_plugins: str = ""
    internal_address: str = ""
    proxies: str = "127.0.0.0/8, ::1"
    connections: int = 12_000
    rate_limit: bool = False
    call_costs_file: str = ""
    max_auto_registered_callers: int = 100


@dataclass(slots=True, eq=False)
class Api:
    """One API process. `hosts`: those whose addresses it serves, usually one; operations run on the coordinator's."""

    bus: Bus
    replica: Replica
    database: Database
    hosts: list[HostConfig]
    options: Options
    authenticator: Authenticator
    role: Role
    hub: EventHub = field(init=False)
    executor: Executor = field(init=False)
    placement: Placement = field(init=False)
    waiters: RowWaiters = field(init=False)
    audit: Trail = field(init=False)
    blobs: BlobFiles = field(init=False)
    limits: RateLimits = field(init=False)
    observers: Observers = field(init=False)
    directory: Directory = field(init=False)
    succession: Succession = field(init=False)
    turns: Turns = field(default_factory=Turns)
    """Of the locks on an object: conflicts are for writers in other processes."""
    running: Running = field(default_factory=Running)
    sessions_used: dict[str, float] = field(default_factory=dict)
    """Session to the Unix time of its last call, since that was last written down."""
    clients: KnownClients = field(default_factory=KnownClients)
    pool_secrets: PoolSecrets = field(default_factory=lambda: PoolSecrets(None))
    local_sessions: LocalSessions = field(default_factory=LocalSessions)
    opened: OpenedDatabases = field(default_factory=OpenedDatabases)
    failed_logins: FailedLogins = field(default_factory=FailedLogins)
    vm_states: SeenStates = field(default_factory=SeenStates)
    disks: DisksInMotion = field(default_factory=DisksInMotion)
    timings: Timings = field(default_factory=Timings)
    process: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Another with each start, for what rows say of work that ends with the process."""

    @property
    def store(self) -> Store:
        return self.replica.store

    @property
    def is_coordinator(self) -> bool:
        return self.role.is_coordinator

    @property
    def host_uuid(self) -> str:
        return self.hosts[0].uuid

    @property
    def host_ref(self) -> str:
        """Of the (first) host this process runs on; null until the database knows it."""
        return self.store.ref_of_uuid("host", self.host_uuid) or NULL

    @property
    def coordinator_address(self) -> str:
        pool = next(iter(self.store.rows("pool").values()), None)
        master = self.store.row("host", pool["master"]) if pool is not None else None
        return str(master["address"]) if master is not None else self.role.coordinator

    def pool(self) -> Mapping[str, Any]:
        """The pool's row. Raises HOST_STILL_BOOTING before it exists."""
        row = next(iter(self.store.rows("pool").values()), None)
        if row is None:
            raise ApiError("HOST_STILL_BOOTING")
        return row

    def uuid_of(self, cls: str, ref: str) -> str:
        """Raises HANDLE_INVALID."""
        return str(self.store.get(cls, ref, "uuid"))

    def https_url(self, address: str, path: str) -> str:
        port = "" if self.options.https_port in (0, 443) else f":{self.options.https_port}"
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}{port}{path}"
