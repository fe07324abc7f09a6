"""Clusters of hosts."""

from __future__ import annotations

from services.cli.server.record import attr, records, values

CLUSTER = records(
    "cluster",
    "Cluster",
    default=(
        "uuid cluster-hosts cluster-token cluster-stack allowed-operations current-operations pool-auto-join "
        "cluster-config other-config"
    ),
    fields=(
        attr("uuid"),
        attr("cluster-hosts"),
        attr("cluster-token"),
        attr("cluster-stack"),
        attr("cluster-stack-version"),
        attr("token-timeout"),
        attr("token-timeout-coefficient"),
        attr("pending-forget", hidden=True),
        attr("allowed-operations"),
        values("current-operations"),
        attr("pool-auto-join"),
        attr("cluster-config"),
        attr("other-config", write="add remove"),
        attr("is-quorate"),
        attr("quorum"),
        attr("live-hosts"),
        attr("expected-hosts"),
    ),
)

CLUSTER_HOST = records(
    "cluster-host",
    "Cluster_host",
    default="uuid cluster host enabled allowed-operations current-operations other-config",
    fields=(
        attr("uuid"),
        attr("cluster"),
        attr("PIF"),
        attr("host"),
        attr("enabled"),
        attr("joined"),
        attr("live"),
        attr("last-update-live"),
        attr("allowed-operations"),
        values("current-operations"),
        attr("other-config"),
    ),
)
