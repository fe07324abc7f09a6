"""Looking into hosts, and calling what is installed on them."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import MessageDecl, Optional, message
from shared.datamodel.groups import data_sources
from shared.datamodel.roles import POOL_ADMIN, READ_ONLY
from shared.datamodel.types import BOOL, INT, STRING, STRING_MAP, STRING_SET

MESSAGES: tuple[MessageDecl, ...] = (
    message("dmesg", "The hypervisor's messages.", {"host": refs.host}, STRING),
    message("dmesg_clear", "The hypervisor's messages, which are then forgotten.", {"host": refs.host}, STRING),
    message("get_log", "Its log.", {"host": refs.host}, STRING, roles=READ_ONLY),
    message(
        "send_debug_keys", "Sends debug keys to the hypervisor.", {"host": refs.host, "keys": STRING}, roles=POOL_ADMIN
    ),
    message(
        "bugreport_upload",
        "Sends a system status report to this address.",
        {"host": refs.host, "url": STRING, "options": STRING_MAP},
    ),
    message("list_methods", "Names of all messages.", result=STRING_SET, roles=READ_ONLY, sync_only=True),
    *data_sources("host", refs.host, "orlando"),
    message("syslog_reconfigure", "Has it log to where its `logging` says.", {"host": refs.host}, since="miami"),
    message(
        "get_system_status_capabilities",
        "What its system status report can include, as XML.",
        {"host": refs.host},
        STRING,
        since="miami",
        roles=READ_ONLY,
        sync_only=True,
        emergency=True,
    ),
    message(
        "get_diagnostic_timing_stats",
        "How long its calls took.",
        {"host": refs.host, "counts": Optional(BOOL)},
        STRING_MAP,
        since="miami",
        roles=READ_ONLY,
        sync_only=True,
        hidden=True,
    ),
    message(
        "compute_free_memory",
        "Bytes that new VMs could have.",
        {"host": refs.host},
        INT,
        since="orlando",
        roles=READ_ONLY,
    ),
    message(
        "compute_memory_overhead",
        "Bytes that the hypervisor itself takes.",
        {"host": refs.host},
        INT,
        since="midnight-ride",
        roles=READ_ONLY,
    ),
    message(
        "call_plugin",
        "Carries out a function of one of its plug-ins.",
        {"host": refs.host, "plugin": STRING, "fn": STRING, "args": STRING_MAP},
        STRING,
        since="orlando",
        roles=POOL_ADMIN,
    ),
    message(
        "has_extension",
        "Whether it has this extension.",
        {"host": refs.host, "name": STRING},
        BOOL,
        since="ely",
        roles=POOL_ADMIN,
    ),
    message(
        "call_extension",
        "Carries out one of its extensions.",
        {"host": refs.host, "call": STRING},
        STRING,
        since="ely",
        roles=POOL_ADMIN,
        sync_only=True,
        custom_marshaller=True,
    ),
    message(
        "get_sm_diagnostics",
        "What its storage layer is doing.",
        {"host": refs.host},
        STRING,
        since="boston",
        sync_only=True,
        hidden=True,
    ),
    message(
        "get_thread_diagnostics",
        "What its threads are doing.",
        {"host": refs.host},
        STRING,
        since="boston",
        sync_only=True,
        hidden=True,
    ),
    message(
        "sm_dp_destroy",
        "Lets go of a datapath of its storage layer.",
        {"host": refs.host, "dp": STRING, "allow_leak": BOOL},
        since="boston",
        sync_only=True,
        hidden=True,
    ),
    message(
        "get_tracked_user_agents",
        "What kinds of client have called it.",
        {"self": refs.host},
        STRING_MAP,
        since="prototyped 25.34.0",
        roles=READ_ONLY,
    ),
)
