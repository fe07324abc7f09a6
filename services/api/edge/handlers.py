"""The table of all HTTP paths: what each needs, who may use it, what serves it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

RPC_BODY: Final = 300 * 1024
"""Bytes of the largest call."""
CLI_BODY: Final = 200 * 1024
"""Bytes of the largest command line."""
TAKEN: Final = 200
"""Instead of the status that refuses a chunked body."""


class Runs(Enum):
    """What serves a path."""

    XMLRPC = "XML-RPC calls"
    JSONRPC = "JSON-RPC calls"
    PREFLIGHT = "CORS preflight"
    CLI = "the conversation of the xe program"
    CONSOLE = "a console's bytes, both ways"
    CONSOLE_WEBSOCKET = "a console's bytes in websocket frames"
    WEB = "pages"
    HANDLER = "a handler of its own (`services.api.handlers`)"


@dataclass(frozen=True, slots=True)
class Missing:
    """Answered 501, with this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Handler:
    """One row.

    `name`: of the permission `http/<name>` and of the realm in a 401. `path`: a prefix, compared as text.
    `role`: the lowest that may use it; "" needs no login at all; "local root" is the Unix socket only.
    `client_cert`: the role of that name may too. `required`: groups of arguments, one of each must be there (else 400).
    `optional`: the others. `coordinator`: not there at all on members. `body`: bytes read before it runs, at most.
    `task`: it makes itself a task, named after it, unless the client brought one. `chunked`: the status that refuses
    a chunked body, `TAKEN` if it is read. `shares`: the row whose permission it asks for, if it is a path that the
    original does not have.
    """

    name: str
    method: str
    path: str
    runs: Runs | Missing
    summary: str
    role: str = ""
    required: tuple[tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    coordinator: bool = False
    client_cert: bool = False
    body: int = 0
    task: bool = False
    chunked: int = 500
    shares: str = ""

    @property
    def permission(self) -> str:
        return f"http/{self.shares or self.name}".lower()


_DATA = Missing("VMs are not imported with their disks yet.")
_RRD = Missing("Performance data is not served over HTTP yet.")
_UPDATES = Missing("Updates and repositories are not there yet.")
_PROXY = Missing("Local services are not proxied yet.")
_UPKEEP = Missing("Backup and restore of hosts are not there yet.")
_WLB = Missing("Workload balancing is not there.")
_REPLACED = Missing("Hosts replicate the database over the message bus.")

_RRDS = {
    "vm_rrd": "/vm_rrd",
    "host_rrd": "/host_rrd",
    "sr_rrd": "/sr_rrd",
    "get_vm_rrds": "/vm_rrds",
    "get_host_rrds": "/host_rrds",
}
_REF = (("ref", "uuid"),)


def _rpc(name: str, path: str, runs: Runs, summary: str) -> Handler:
    return Handler(name, "POST", path, runs, summary, body=RPC_BODY)


def _services(suffix: str, path: str, role: str, write_role: str, client_cert: bool = False) -> list[Handler]:
    return [
        Handler(f"get_services{suffix}", "GET", path, _PROXY, "Reads from a local service.", role),
        Handler(
            f"post_services{suffix}", "POST", path, _PROXY, "A call to a local service.", write_role,
            client_cert=client_cert,
        ),
        Handler(
            f"put_services{suffix}", "PUT", path, _PROXY, "Data for a local service.", write_role,
            client_cert=client_cert,
        ),
    ]  # fmt: skip


HANDLERS: Final[tuple[Handler, ...]] = (
    # ---- calls
    _rpc("post_root", "/", Runs.XMLRPC, "XenAPI calls over XML-RPC; every POST that no other row takes."),
    _rpc("post_RPC2", "/RPC2", Runs.XMLRPC, "XenAPI calls over XML-RPC."),
    _rpc("post_json", "/json", Runs.XMLRPC, "XenAPI calls over XML-RPC, under an old name."),
    _rpc("post_jsonrpc", "/jsonrpc", Runs.JSONRPC, "XenAPI calls over JSON-RPC 1.0 and 2.0."),
    Handler("post_cli", "POST", "/cli", Runs.CLI, "The xe program's conversation.", body=CLI_BODY),
    Handler("post_root_options", "OPTIONS", "/", Runs.PREFLIGHT, "What browsers ask before a call."),
    Handler("post_json_options", "OPTIONS", "/json", Runs.PREFLIGHT, "What browsers ask before a call."),
    Handler("post_jsonrpc_options", "OPTIONS", "/jsonrpc", Runs.PREFLIGHT, "What browsers ask before a call."),
    # ---- pages
    Handler("get_root", "GET", "/", Runs.WEB, "The host's web pages."),
    Handler("get_health", "GET", "/health", Runs.WEB, "Whether the host's API is ready."),
    Handler("get_metrics", "GET", "/metrics", Runs.WEB, "Counters for Prometheus."),
    Handler("get_docs", "GET", "/docs", Runs.WEB, "The XenAPI reference, to read."),
    Handler("get_openapi", "GET", "/openapi.json", Runs.WEB, "This table, for programs."),
    # ---- consoles
    Handler("connect_console", "CONNECT", "/console", Runs.CONSOLE, "A VM's console.", "vm-operator",
            optional=("ref", "uuid")),
    Handler("connect_console_ws", "GET", "/console", Runs.CONSOLE_WEBSOCKET, "A VM's console, over a websocket.",
            "vm-operator", optional=("ref", "uuid")),
    Handler("get_vncsnapshot", "GET", "/vncsnapshot", Missing("Consoles are not drawn on the server yet."),
            "A picture of a VM's screen.", "vm-operator", optional=("ref", "uuid")),
    # ---- VMs, disks, blobs, messages
    Handler("put_import", "PUT", "/import", _DATA, "A VM with its disks.", "vm-admin",
            optional=("sr_id", "sr_uuid", "restore", "force"), chunked=403),
    Handler("put_import_metadata", "PUT", "/import_metadata", Runs.HANDLER, "A VM without its disks.", "vm-admin",
            optional=("restore", "force", "dry_run", "live", "check_cpu"), task=True, chunked=403),
    Handler("put_import_raw_vdi", "PUT", "/import_raw_vdi", Runs.HANDLER, "A disk's content.", "vm-admin",
            optional=("vdi", "sr_id", "sr_uuid", "format", "chunked"), task=True, chunked=TAKEN),
    Handler("get_export", "GET", "/export", Runs.HANDLER, "A VM with its disks.", "vm-admin",
            optional=("ref", "uuid", "use_compression", "preserve_power_state"), task=True),
    Handler("get_export_metadata", "GET", "/export_metadata", Runs.HANDLER, "A VM without its disks.", "vm-admin",
            optional=("ref", "uuid", "all", "include_dom0", "include_vhd_parents", "export_snapshots",
                      "excluded_device_types"), task=True),
    Handler("get_export_raw_vdi", "GET", "/export_raw_vdi", Runs.HANDLER, "A disk's content.", "vm-admin",
            optional=("vdi", "format", "base"), task=True),
    Handler("get_blob", "GET", "/blob", Runs.HANDLER, "A blob; without login if it is public.", "", _REF),
    Handler("put_blob", "PUT", "/blob", Runs.HANDLER, "A blob's new content.", "vm-power-admin", _REF),
    Handler("put_messages", "PUT", "/messages", Runs.HANDLER, "Messages from another pool.", "vm-power-admin",
            (("cls",), ("uuid",))),
    # ---- performance data
    *(Handler(name, "GET", path, _RRD, "A round-robin database.", "read-only",
              () if "host" in name else (("uuid",),), ("json",))
      for name, path in _RRDS.items()),
    Handler("rrd_updates", "GET", "/rrd_updates", _RRD, "Recent values of all data sources.", "read-only",
            (("start",),), ("cf", "interval", "host", "vm_uuid", "sr_uuid", "json")),
    Handler("rrd", "PUT", "/rrd", _RRD, "A round-robin database to go on with.", "pool-admin", (("uuid",),),
            ("archive",)),
    # ---- upkeep
    Handler("connect_remotecmd", "CONNECT", "/remotecmd", Missing("Hosts do not run rsync for each other."),
            "A command on another host of the pool.", "pool-admin", optional=("cmd", "arg")),
    Handler("get_host_backup", "GET", "/host_backup", _UPKEEP, "The control domain's files.", "pool-admin"),
    Handler("put_host_restore", "PUT", "/host_restore", _UPKEEP, "The control domain's files.", "pool-admin"),
    Handler("get_pool_xml_db_sync", "GET", "/pool/xmldbdump", Runs.HANDLER, "The pool's database.", "pool-admin",
            task=True),
    Handler("put_pool_xml_db_sync", "PUT", "/pool/xmldbdump", Runs.HANDLER, "A database to go on with.", "pool-admin",
            optional=("dry_run",), task=True),
    Handler("get_db_history", "GET", "/db_history", Runs.HANDLER, "Who changed what in the database, as JSON lines.",
            "pool-admin", optional=("ref", "uuid", "class", "field", "task", "session", "user", "since", "until",
                                    "order", "limit", "token"), shares="get_pool_xml_db_sync"),
    Handler("get_host_logs_download", "GET", "/host_logs_download", Runs.HANDLER, "The host's logs.",
            "pool-operator", task=True),
    Handler("get_system_status", "GET", "/system-status", Runs.HANDLER, "A report for support.", "pool-operator",
            optional=("entries", "output", "list"), task=True),
    Handler("get_audit_log", "GET", "/audit_log", Runs.HANDLER, "Who did what.", "read-only", optional=("since",),
            task=True),
    Handler("get_wlb_report", "GET", "/wlb_report", _WLB, "A workload balancing report.", "read-only",
            optional=("report",)),
    Handler("get_wlb_diagnostics", "GET", "/wlb_diagnostics", _WLB, "Workload balancing logs.", "read-only"),
    Handler("get_config_sync", "GET", "/sync_config_files/", Runs.HANDLER, "The superuser's password hash.",
            "pool-admin", task=True),
    Handler("post_remote_db_access", "POST", "/remote_db_access", _REPLACED, "The database, for members.",
            "pool-admin", coordinator=True),
    Handler("post_remote_db_access_v2", "POST", "/remote_db_access_v2", _REPLACED, "The database, for members.",
            "pool-admin", coordinator=True),
    # ---- updates
    Handler("put_pool_patch_upload", "PUT", "/pool_patch_upload", _UPDATES, "An update package.", "pool-operator",
            optional=("sr_id",)),
    Handler("get_pool_update_download", "GET", "/update/", _UPDATES, "An update package's files."),
    Handler("get_repository", "GET", "/repository", _UPDATES, "Package repository files.", "local root",
            coordinator=True),
    Handler("get_enabled_repository", "GET", "/repository/enabled", _UPDATES, "The enabled repository's files.",
            "pool-operator", coordinator=True, client_cert=True),
    Handler("get_host_updates", "GET", "/host_updates", _UPDATES, "Updates for this host.", "pool-operator",
            optional=("installed",), client_cert=True),
    Handler("get_updates", "GET", "/updates", _UPDATES, "Updates for hosts of the pool.", "pool-operator",
            optional=("host_refs",), coordinator=True, client_cert=True),
    Handler("put_bundle", "PUT", "/bundle", _UPDATES, "An update bundle.", "pool-operator"),
    # ---- local services
    *_services("", "/services", "read-only", "pool-admin"),
    *_services("_xenops", "/services/xenops", "vm-power-admin", "vm-power-admin", client_cert=True),
    *_services("_sm", "/services/SM", "vm-power-admin", "vm-power-admin"),
)  # fmt: skip

METHODS: Final = frozenset({"GET", "POST", "PUT", "CONNECT", "OPTIONS"})
"""Any other method is answered 501."""


class Router:
    """The row for a request: of that method, the one with the longest path that the request's path starts with.

    Compared as text, not by segments: `/exportfoo` reaches `/export`, as with the original.
    """

    def __init__(self, *, coordinator: bool) -> None:
        rows = [row for row in HANDLERS if coordinator or not row.coordinator]
        rows.sort(key=lambda row: len(row.path), reverse=True)
        self._rows = {method: [row for row in rows if row.method == method] for method in METHODS}

    def find(self, method: str, path: str) -> Handler | None:
        return next((row for row in self._rows[method] if path.startswith(row.path)), None)
