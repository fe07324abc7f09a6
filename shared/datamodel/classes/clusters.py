"""Clusters of hosts for shared storage."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UUID,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    operations,
    other_config,
    runtime,
    static,
)
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, STRING_SET, EnumType

CLUSTER_HOST_OPERATION = EnumType(
    "cluster_host_operation",
    (
        "enable",
        "disable",
        "destroy",
    ),
)
CLUSTER_OPERATION = EnumType(
    "cluster_operation",
    (
        "add",
        "remove",
        "enable",
        "disable",
        "destroy",
    ),
)

CLUSTER = declare(
    "Cluster",
    "",
    since="prototyped kolkata, lima",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        maintained("cluster_hosts", "Cluster_host.cluster", ""),
        runtime("pending_forget", STRING_SET, "", EMPTY, since="lima"),
        static("cluster_token", STRING, "", EMPTY),
        static("cluster_stack", STRING, "", "corosync"),
        static("cluster_stack_version", INT, "", 2, since="prototyped 24.15.0"),
        runtime("is_quorate", BOOL, "", EMPTY, since="prototyped 24.3.0"),
        runtime("quorum", INT, "", EMPTY, since="prototyped 24.3.0"),
        runtime("live_hosts", INT, "", EMPTY, since="prototyped 24.3.0"),
        runtime("expected_hosts", INT, "", EMPTY, since="prototyped 25.17.0"),
        operations(CLUSTER_OPERATION, since="rio"),
        static("pool_auto_join", BOOL, "", True),
        static("token_timeout", FLOAT, "", 20.0, since="prototyped kolkata, changed lima, lima"),
        static("token_timeout_coefficient", FLOAT, "", 1.0, since="prototyped kolkata, changed lima, lima"),
        static("cluster_config", STRING_MAP, "", EMPTY),
        other_config(),
    ],
    messages=[
        message(
            "create",
            "",
            {
                "PIF": refs.PIF,
                "cluster_stack": STRING,
                "pool_auto_join": BOOL,
                "token_timeout": Optional(FLOAT, 20.0),
                "token_timeout_coefficient": Optional(FLOAT, 1.0),
            },
            refs.Cluster,
            errors=(
                "INVALID_CLUSTER_STACK",
                "INVALID_VALUE",
                "PIF_ALLOWS_UNPLUG",
                "REQUIRED_PIF_IS_UNPLUGGED",
            ),
        ),
        message(
            "destroy",
            "",
            {"self": refs.Cluster},
            errors=(
                "CLUSTER_DOES_NOT_HAVE_ONE_NODE",
                "CLUSTER_STACK_IN_USE",
            ),
        ),
        message("get_network", "", {"self": refs.Cluster}, refs.network, roles=READ_ONLY),
        message(
            "pool_create",
            "",
            {
                "network": refs.network,
                "cluster_stack": STRING,
                "token_timeout": Optional(FLOAT, 20.0),
                "token_timeout_coefficient": Optional(FLOAT, 1.0),
            },
            refs.Cluster,
        ),
        message("pool_force_destroy", "", {"self": refs.Cluster}, errors=("CLUSTER_FORCE_DESTROY_FAILED",)),
        message(
            "pool_destroy",
            "",
            {"self": refs.Cluster},
            errors=(
                "CLUSTER_STACK_IN_USE",
                "CLUSTERING_DISABLED",
                "CLUSTER_HOST_IS_LAST",
            ),
        ),
        message("pool_resync", "", {"self": refs.Cluster}),
        message("cstack_sync", "", {"self": refs.Cluster}, pool_internal=True),
    ],
)

CLUSTER_HOST = declare(
    "Cluster_host",
    "",
    since="prototyped kolkata, lima",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("cluster", refs.Cluster, "", EMPTY),
        static("host", refs.host, "", EMPTY),
        runtime("enabled", BOOL, "", EMPTY),
        static("PIF", refs.PIF, "", EMPTY),
        runtime("joined", BOOL, "", True),
        runtime("live", BOOL, "", EMPTY, since="prototyped 24.3.0"),
        runtime("last_update_live", DATETIME, "", EMPTY, since="prototyped 24.3.0"),
        operations(CLUSTER_HOST_OPERATION, since="rio"),
        other_config(static),
    ],
    messages=[
        message(
            "create",
            "",
            {"cluster": refs.Cluster, "host": refs.host, "pif": refs.PIF},
            refs.Cluster_host,
            errors=(
                "PIF_NOT_ATTACHED_TO_HOST",
                "NO_CLUSTER_HOSTS_REACHABLE",
            ),
        ),
        message(
            "destroy",
            "",
            {"self": refs.Cluster_host},
            errors=(
                "CLUSTER_STACK_IN_USE",
                "CLUSTERING_DISABLED",
                "CLUSTER_HOST_IS_LAST",
            ),
        ),
        message(
            "enable",
            "",
            {"self": refs.Cluster_host},
            errors=(
                "PIF_ALLOWS_UNPLUG",
                "REQUIRED_PIF_IS_UNPLUGGED",
            ),
        ),
        message("force_destroy", "", {"self": refs.Cluster_host}, errors=("CLUSTER_STACK_IN_USE",)),
        message("forget", "", {"self": refs.Cluster_host}, since="lima", roles=LOCAL_ONLY, hidden=True),
        message("disable", "", {"self": refs.Cluster_host}, errors=("CLUSTER_STACK_IN_USE",)),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    CLUSTER,
    CLUSTER_HOST,
)
