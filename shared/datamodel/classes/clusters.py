"""Clusters of hosts for shared storage."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, Optional, declare, maintained, message, runtime, static
from shared.datamodel.groups import UUID, operations, other_config
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, STRING_SET, EnumType

CLUSTER_HOST_OPERATION = EnumType("cluster_host_operation", ("enable", "disable", "destroy"))
CLUSTER_OPERATION = EnumType("cluster_operation", ("add", "remove", "enable", "disable", "destroy"))

CLUSTER = declare(
    "Cluster",
    "Hosts that form a cluster, so that they can share certain SRs.",
    since="prototyped kolkata, lima",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        maintained("cluster_hosts", "Cluster_host.cluster", "Its hosts."),
        runtime(
            "pending_forget", STRING_SET, "Addresses of hosts that are about to be forgotten.", EMPTY, since="lima"
        ),
        static("cluster_token", STRING, "The secret of its hosts.", EMPTY),
        static("cluster_stack", STRING, "The software it is made with.", "corosync"),
        static(
            "cluster_stack_version", INT, "The version of that software's interface.", 2, since="prototyped 24.15.0"
        ),
        runtime("is_quorate", BOOL, "Whether enough hosts are alive to go on.", EMPTY, since="prototyped 24.3.0"),
        runtime("quorum", INT, "How many hosts are enough.", EMPTY, since="prototyped 24.3.0"),
        runtime("live_hosts", INT, "How many hosts are alive.", EMPTY, since="prototyped 24.3.0"),
        runtime("expected_hosts", INT, "How many hosts there should be.", EMPTY, since="prototyped 25.17.0"),
        operations(CLUSTER_OPERATION, since="rio"),
        static("pool_auto_join", BOOL, "Whether hosts that join the pool join the cluster.", True),
        static(
            "token_timeout",
            FLOAT,
            "Seconds of silence after which a host counts as gone.",
            20.0,
            since="prototyped kolkata, changed lima, lima",
        ),
        static(
            "token_timeout_coefficient",
            FLOAT,
            "Seconds added to that for each host above two.",
            1.0,
            since="prototyped kolkata, changed lima, lima",
        ),
        static("cluster_config", STRING_MAP, "Settings of the cluster stack.", EMPTY),
        other_config(),
    ],
    messages=[
        message(
            "create",
            "Makes a cluster of one host.",
            {
                "PIF": refs.PIF,
                "cluster_stack": STRING,
                "pool_auto_join": BOOL,
                "token_timeout": Optional(FLOAT, 20.0),
                "token_timeout_coefficient": Optional(FLOAT, 1.0),
            },
            refs.Cluster,
            errors=("INVALID_CLUSTER_STACK", "INVALID_VALUE", "PIF_ALLOWS_UNPLUG", "REQUIRED_PIF_IS_UNPLUGGED"),
        ),
        message(
            "destroy",
            "Removes a cluster of one host.",
            {"self": refs.Cluster},
            errors=("CLUSTER_DOES_NOT_HAVE_ONE_NODE", "CLUSTER_STACK_IN_USE"),
        ),
        message(
            "get_network",
            "The network that its hosts talk over.",
            {"self": refs.Cluster},
            refs.network,
            roles=READ_ONLY,
        ),
        message(
            "pool_create",
            "Makes a cluster of all hosts of the pool.",
            {
                "network": refs.network,
                "cluster_stack": STRING,
                "token_timeout": Optional(FLOAT, 20.0),
                "token_timeout_coefficient": Optional(FLOAT, 1.0),
            },
            refs.Cluster,
        ),
        message(
            "pool_force_destroy",
            "Removes the cluster on all hosts, whatever state they are in.",
            {"self": refs.Cluster},
            errors=("CLUSTER_FORCE_DESTROY_FAILED",),
        ),
        message(
            "pool_destroy",
            "Removes the cluster on all hosts.",
            {"self": refs.Cluster},
            errors=("CLUSTER_STACK_IN_USE", "CLUSTERING_DISABLED", "CLUSTER_HOST_IS_LAST"),
        ),
        message("pool_resync", "Brings all hosts into the cluster that should be.", {"self": refs.Cluster}),
        message("cstack_sync", "Reads anew what the cluster stack knows.", {"self": refs.Cluster}, pool_internal=True),
    ],
)

CLUSTER_HOST = declare(
    "Cluster_host",
    "A host's membership of a cluster.",
    since="prototyped kolkata, lima",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("cluster", refs.Cluster, "The cluster.", EMPTY),
        static("host", refs.host, "The host.", EMPTY),
        runtime("enabled", BOOL, "Whether it should take part.", EMPTY),
        static("PIF", refs.PIF, "The interface that it talks over.", EMPTY),
        runtime("joined", BOOL, "Whether it has joined the cluster.", True),
        runtime("live", BOOL, "Whether the cluster counts it as alive.", EMPTY, since="prototyped 24.3.0"),
        runtime("last_update_live", DATETIME, "When that was last learnt.", EMPTY, since="prototyped 24.3.0"),
        operations(CLUSTER_HOST_OPERATION, since="rio"),
        other_config(static),
    ],
    messages=[
        message(
            "create",
            "Has a host join a cluster.",
            {"cluster": refs.Cluster, "host": refs.host, "pif": refs.PIF},
            refs.Cluster_host,
            errors=("PIF_NOT_ATTACHED_TO_HOST", "NO_CLUSTER_HOSTS_REACHABLE"),
        ),
        message(
            "destroy",
            "Has the host leave the cluster.",
            {"self": refs.Cluster_host},
            errors=("CLUSTER_STACK_IN_USE", "CLUSTERING_DISABLED", "CLUSTER_HOST_IS_LAST"),
        ),
        message(
            "enable",
            "Has it take part.",
            {"self": refs.Cluster_host},
            errors=("PIF_ALLOWS_UNPLUG", "REQUIRED_PIF_IS_UNPLUGGED"),
        ),
        message(
            "force_destroy",
            "Removes it, even if the host cannot leave in good order.",
            {"self": refs.Cluster_host},
            errors=("CLUSTER_STACK_IN_USE",),
        ),
        message(
            "forget",
            "Removes a host that is gone for good.",
            {"self": refs.Cluster_host},
            since="lima",
            roles=LOCAL_ONLY,
            hidden=True,
        ),
        message("disable", "Has it stop taking part.", {"self": refs.Cluster_host}, errors=("CLUSTER_STACK_IN_USE",)),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (CLUSTER, CLUSTER_HOST)
