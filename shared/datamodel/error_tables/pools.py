"""Pools, high availability, clusters, workload balancing."""

from __future__ import annotations

from shared.datamodel.error_tables.declaration import ErrorDecl, error

ERRORS: tuple[ErrorDecl, ...] = (
    error(
        "CANNOT_DESTROY_DISASTER_RECOVERY_TASK", "The storage brought in for recovery cannot be let go yet.", "reason"
    ),
    error("CANNOT_ENABLE_REDO_LOG", "The redo log could not be turned on.", "reason"),
    error("CLUSTERED_SR_DEGRADED", "The clustered SR lacks hosts that it needs.", "sr"),
    error("CLUSTERING_DISABLED", "Clustering is off on this host.", "cluster_host"),
    error("CLUSTERING_ENABLED", "Clustering is on on this host.", "cluster_host"),
    error("CLUSTER_ALREADY_EXISTS", "The pool has a cluster already."),
    error("CLUSTER_CREATE_IN_PROGRESS", "A cluster is being made; wait for it."),
    error("CLUSTER_DOES_NOT_HAVE_ONE_NODE", "Only a cluster of one host can be destroyed this way.", "number_of_nodes"),
    error(
        "CLUSTER_FORCE_DESTROY_FAILED", "Not all hosts forgot the cluster; try again on those that did not.", "cluster"
    ),
    error("CLUSTER_HOST_IS_LAST", "The last host of a cluster leaves by destroying the cluster.", "cluster_host"),
    error("CLUSTER_HOST_NOT_JOINED", "The host has not joined its cluster yet.", "cluster_host"),
    error("CLUSTER_STACK_IN_USE", "Something still uses this cluster stack.", "cluster_stack"),
    error("HA_ABORT_NEW_MASTER", "The handover to the new coordinator was given up.", "reason"),
    error(
        "HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE",
        "The management interface cannot be bonded or unbonded while HA is on.",
    ),
    error(
        "HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED",
        "A protected VM uses this network, which not every host has.",
        "network",
    ),
    error("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", "A protected VM uses this SR, which not every host has.", "SR"),
    error("HA_DISABLE_IN_PROGRESS", "HA is being turned off."),
    error("HA_ENABLE_IN_PROGRESS", "HA is being turned on."),
    error("HA_FAILED_TO_FORM_LIVESET", "The hosts did not agree on who is alive."),
    error("HA_HEARTBEAT_DAEMON_STARTUP_FAILED", "The liveness daemon did not start on a host."),
    error("HA_HOST_CANNOT_ACCESS_STATEFILE", "A host cannot read or write the HA state file."),
    error("HA_HOST_CANNOT_SEE_PEERS", "This host's network reaches only some of the others.", "host", "all", "subset"),
    error("HA_HOST_IS_ARMED", "The host could still act on HA decisions; disarm it first.", "host"),
    error("HA_IS_ENABLED", "This is not possible while HA is on."),
    error("HA_LOST_STATEFILE", "The host lost access to the HA state file."),
    error("HA_NOT_ENABLED", "This needs HA to be on."),
    error("HA_NOT_INSTALLED", "The host lacks the software for HA.", "host"),
    error("HA_NO_PLAN", "No plan restarts all protected VMs after as many host failures as asked for."),
    error("HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN", "Afterwards the protected VMs could no longer all be restarted."),
    error(
        "HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED", "HA is on but this host is disabled, so VMs must not start on it."
    ),
    error(
        "HA_SHOULD_BE_FENCED",
        "The pool has declared this host dead; it must not run VMs until it has rejoined.",
        "host",
    ),
    error("HA_TOO_FEW_HOSTS", "HA needs more hosts than the pool has."),
    error("INCOMPATIBLE_CLUSTER_STACK_ACTIVE", "Another cluster stack is in use.", "cluster_stack"),
    error("INCOMPATIBLE_STATEFILE_SR", "An SR of this type cannot hold the HA state file.", "SR type"),
    error("INVALID_CLUSTER_STACK", "There is no cluster stack of this name.", "cluster_stack"),
    error(
        "JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS",
        "A coordinator with members cannot join; its members must leave first.",
    ),
    error("JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", "The joining host must not have shared storage."),
    error(
        "JOINING_HOST_CANNOT_HAVE_RUNNING_OR_SUSPENDED_VMS", "The joining host must have no running or suspended VM."
    ),
    error("JOINING_HOST_CANNOT_HAVE_RUNNING_VMS", "The joining host must have no running VM."),
    error(
        "JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS", "Something is being done to VMs of the joining host."
    ),
    error("JOINING_HOST_CONNECTION_FAILED", "The pool's coordinator could not be reached."),
    error("JOINING_HOST_SERVICE_FAILED", "The pool's coordinator did not answer as a toolstack does."),
    error("NO_CLUSTER_HOSTS_REACHABLE", "No other host of the cluster can be reached.", "cluster"),
    error("NO_COMPATIBLE_CLUSTER_HOST", "The host has no cluster membership of the kind needed.", "host"),
    error("NO_HOSTS_AVAILABLE", "No host can run the VM."),
    error("NO_MORE_REDO_LOGS_ALLOWED", "As many redo logs are in use as can be."),
    error("POOL_JOINING_EXTERNAL_AUTH_MISMATCH", "Host and pool use different external authentication."),
    error("POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT", "Host and pool have different CA certificates of one name."),
    error("POOL_JOINING_HOST_HAS_BONDS", "The joining host must have no bonds."),
    error("POOL_JOINING_HOST_HAS_NETWORK_SRIOVS", "The joining host must have no SR-IOV networks."),
    error(
        "POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS",
        "The joining host must have no VLANs but the one it is managed over.",
    ),
    error("POOL_JOINING_HOST_HAS_TUNNELS", "The joining host must have no tunnels."),
    error(
        "POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH",
        "Host and pool are managed over different VLANs.",
        "local",
        "remote",
    ),
    error(
        "POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK",
        "The joining host must have one address in the cluster's network.",
    ),
    error(
        "POOL_JOINING_HOST_MUST_HAVE_PHYSICAL_MANAGEMENT_NIC",
        "The joining host must be managed over a physical interface.",
    ),
    error(
        "POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION",
        "Host and pool have different API versions.",
        "host_api_version",
        "master_api_version",
    ),
    error(
        "POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA",
        "Host and pool have different database schemas.",
        "host_db_schema",
        "master_db_schema",
    ),
    error("POOL_JOINING_HOST_MUST_HAVE_SAME_PRODUCT_VERSION", "Host and pool run different versions."),
    error("POOL_JOINING_HOST_MUST_ONLY_HAVE_PHYSICAL_PIFS", "The joining host must have physical interfaces only."),
    error("POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH", "Only one of host and pool verifies certificates."),
    error(
        "POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT",
        "Host and pool trust different certificates under one name.",
        "ref_in_pool",
        "ref_on_host",
    ),
    error(
        "POOL_JOINING_MASTER_CERTIFICATE_NOT_IN_POOL_BUNDLE",
        "The coordinator's certificate is missing from what the pool hands out.",
        "master_uuid",
    ),
    error(
        "POOL_JOINING_POOL_BUNDLE_EMPTY_AFTER_IMPORT",
        "No certificate was left after taking over the pool's.",
        "bundle_path",
    ),
    error(
        "POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK",
        "A host cannot join while the cluster's network is this VLAN.",
        "vlan",
    ),
    error(
        "POOL_JOINING_SM_FEATURES_INCOMPATIBLE",
        "The host's storage drivers can do less than the pool's.",
        "pool_sm_ref",
        "candidate_sm_ref",
    ),
    error("REDO_LOG_IS_ENABLED", "The redo log is on already."),
    error("TLS_VERIFICATION_NOT_ENABLED_IN_POOL", "The pool does not verify certificates yet."),
    error("VMS_FAILED_TO_COOPERATE", "Some VMs did not give back the memory they were asked for."),
    error("WLB_AUTHENTICATION_FAILED", "The balancing server did not accept the pool's credentials."),
    error("WLB_CONNECTION_REFUSED", "The balancing server refused the connection."),
    error("WLB_CONNECTION_RESET", "The balancing server broke off the connection."),
    error("WLB_DISABLED", "Workload balancing is set up but off."),
    error("WLB_INTERNAL_ERROR", "The balancing server failed."),
    error("WLB_MALFORMED_REQUEST", "The balancing server did not understand the request."),
    error("WLB_MALFORMED_RESPONSE", "The balancing server's answer cannot be read.", "method", "reason", "response"),
    error("WLB_NOT_INITIALIZED", "No balancing server has been set up."),
    error("WLB_TIMEOUT", "The balancing server did not answer in time.", "configured_timeout"),
    error("WLB_UNKNOWN_HOST", "The balancing server's name cannot be resolved."),
    error("WLB_URL_INVALID", "The balancing server's address is not well formed.", "url"),
    error("WLB_XENSERVER_AUTHENTICATION_FAILED", "The pool did not accept the balancing server's credentials."),
    error("WLB_XENSERVER_CONNECTION_REFUSED", "The pool refused the balancing server's connection."),
    error("WLB_XENSERVER_MALFORMED_RESPONSE", "The balancing server cannot read the pool's answer."),
    error("WLB_XENSERVER_TIMEOUT", "The pool did not answer the balancing server in time."),
    error("WLB_XENSERVER_UNKNOWN_HOST", "The balancing server cannot resolve the pool's name."),
    # Raised, but in no documentation of the original.
    error("CLUSTER_HAS_NO_CERTIFICATE", "The cluster has no certificate to secure its traffic with."),
    error("DESIGNATE_NEW_MASTER_IN_PROGRESS", "A new coordinator is being appointed."),
    error("POOL_SECRET_ROTATION_PENDING", "An earlier change of the pool secret must be finished first."),
)
