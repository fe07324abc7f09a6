"""Licences, updates and hardware settings of hosts."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.host.enums import HOST_SCHED_GRAN
from shared.datamodel.declare import MessageDecl, Optional, message, setter
from shared.datamodel.groups import new_blob
from shared.datamodel.roles import LOCAL_ONLY, POOL_ADMIN, POOL_OPERATOR_OR_CERT
from shared.datamodel.types import BOOL, STRING, STRING_SET, SetType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "license_apply",
        "Applies a licence file.",
        {"host": refs.host, "contents": STRING},
        since="rio, deprecated clearwater, removed clearwater",
        errors=("LICENSE_PROCESSING_ERROR",),
    ),
    message(
        "license_add",
        "Adds a licence file.",
        {"host": refs.host, "contents": STRING},
        since="indigo",
        errors=("LICENSE_PROCESSING_ERROR",),
    ),
    message("license_remove", "Removes its licence file.", {"host": refs.host}, since="indigo"),
    setter("license_params", "Says what its licence says.", since="orlando", roles=LOCAL_ONLY, pool_internal=True),
    new_blob("host", refs.host),
    message(
        "enable_binary_storage",
        "Allows blobs on it.",
        {"host": refs.host},
        since="orlando",
        roles=LOCAL_ONLY,
        pool_internal=True,
    ),
    message(
        "disable_binary_storage",
        "Forbids blobs on it and deletes them.",
        {"host": refs.host},
        since="orlando",
        roles=LOCAL_ONLY,
        pool_internal=True,
    ),
    message(
        "apply_edition",
        "Gives it this edition.",
        {"host": refs.host, "edition": STRING, "force": Optional(BOOL)},
        since="midnight-ride",
        sync_only=True,
    ),
    message(
        "refresh_pack_info",
        "Has it look again for installed supplemental packs.",
        {"host": refs.host},
        since="midnight-ride, deprecated ely",
    ),
    message(
        "set_cpu_features",
        "Hides CPU features from VMs.",
        {"host": refs.host, "features": STRING},
        since="midnight-ride, deprecated dundee, removed dundee",
        sync_only=True,
    ),
    message(
        "reset_cpu_features",
        "Shows all CPU features to VMs again.",
        {"host": refs.host},
        since="midnight-ride, deprecated dundee, removed dundee",
        sync_only=True,
    ),
    message(
        "apply_guest_agent_config",
        "Shows its guests the pool's settings for them.",
        {"host": refs.host},
        since="dundee",
        roles=POOL_ADMIN,
        hidden=True,
    ),
    message(
        "set_sched_gran",
        "Sets what shares a CPU core at its next boot.",
        {"self": refs.host, "value": HOST_SCHED_GRAN},
        since="1.271.0",
        roles=LOCAL_ONLY,
    ),
    message(
        "get_sched_gran",
        "What shares a CPU core.",
        {"self": refs.host},
        HOST_SCHED_GRAN,
        since="1.271.0",
        roles=LOCAL_ONLY,
    ),
    setter("numa_affinity_policy", "Sets how its VMs' memory is placed on NUMA nodes.", roles=POOL_ADMIN),
    message(
        "apply_updates",
        "Updates it to what was fetched last; answers warnings.",
        {"self": refs.host, "hash": STRING},
        SetType(STRING_SET),
        since="1.301.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "rescan_drivers",
        "Has it look again for drivers and their variants.",
        {"self": refs.host},
        since="prototyped 25.2.0",
        roles=POOL_ADMIN,
    ),
    message(
        "apply_recommended_guidances",
        "Does what should be done to it after updates.",
        {"self": refs.host},
        since="prototyped 23.18.0, removed 23.25.0",
    ),
    message(
        "emergency_clear_mandatory_guidance",
        "Forgets what must be done to this host after updates, for emergencies.",
        since="prototyped 24.10.0",
        roles=LOCAL_ONLY,
        sync_only=True,
        emergency=True,
    ),
    setter("max_cstate", "Sets how deep its idle CPUs may sleep."),
)
