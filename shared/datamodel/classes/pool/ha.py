"""High availability and workload balancing of the pool."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import MessageDecl, message, setter
from shared.datamodel.roles import LOCAL_ONLY, POOL_ADMIN, POOL_OPERATOR_OR_CERT, READ_ONLY
from shared.datamodel.types import BOOL, INT, STRING, STRING_MAP, STRING_SET, MapType, SetType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "enable_ha",
        "Turns on HA with state files on these SRs.",
        {"heartbeat_srs": SetType(refs.SR), "configuration": STRING_MAP},
        since="miami",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message("disable_ha", "Turns off HA.", since="miami", roles=POOL_OPERATOR_OR_CERT),
    message(
        "ha_prevent_restarts_for",
        "Keeps HA from restarting VMs for some seconds.",
        {"seconds": INT},
        since="orlando-update-1",
        sync_only=True,
    ),
    message(
        "ha_failover_plan_exists",
        "Whether all protected VMs could be restarted after so many host failures.",
        {"n": INT},
        BOOL,
        since="orlando",
        sync_only=True,
    ),
    message(
        "ha_compute_max_host_failures_to_tolerate",
        "The most host failures that a plan exists for.",
        result=INT,
        since="orlando",
        sync_only=True,
    ),
    message(
        "ha_compute_hypothetical_max_host_failures_to_tolerate",
        "The same, were VMs protected as given.",
        {"configuration": MapType(refs.VM, STRING)},
        INT,
        since="orlando",
        roles=READ_ONLY,
        sync_only=True,
    ),
    message(
        "ha_compute_vm_failover_plan",
        "Where VMs would go if these hosts failed.",
        {"failed_hosts": SetType(refs.host), "failed_vms": SetType(refs.VM)},
        MapType(refs.VM, STRING_MAP),
        since="orlando",
        sync_only=True,
    ),
    setter("ha_host_failures_to_tolerate", "Sets how many host failures must be survived; refused if no plan does."),
    message(
        "ha_schedule_plan_recomputation",
        "Has the failover plan worked out anew soon.",
        since="orlando",
        roles=LOCAL_ONLY,
        pool_internal=True,
    ),
    message(
        "initialize_wlb",
        "Introduces the pool to a balancing server.",
        {
            "wlb_url": STRING,
            "wlb_username": STRING,
            "wlb_password": STRING,
            "xenserver_username": STRING,
            "xenserver_password": STRING,
        },
        since="george",
    ),
    message("deconfigure_wlb", "Takes leave of the balancing server.", since="george"),
    message(
        "send_wlb_configuration", "Changes settings of the balancing server.", {"config": STRING_MAP}, since="george"
    ),
    message(
        "retrieve_wlb_configuration",
        "Reads settings of the balancing server.",
        result=STRING_MAP,
        since="george",
        roles=READ_ONLY,
    ),
    message(
        "retrieve_wlb_recommendations",
        "Which VMs the balancing server would move, and why.",
        result=MapType(refs.VM, STRING_SET),
        since="george",
        roles=READ_ONLY,
    ),
    message(
        "send_test_post",
        "Posts text to a host by HTTPS and answers its reply.",
        {"host": STRING, "port": INT, "body": STRING},
        STRING,
        since="george",
        roles=POOL_ADMIN,
    ),
    message("enable_redo_log", "Starts the redo log on a new disk of an SR.", {"sr": refs.SR}, since="midnight-ride"),
    message("disable_redo_log", "Stops the redo log and deletes its disk.", since="midnight-ride"),
)
