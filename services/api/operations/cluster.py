"""Messages of classes Cluster and Cluster_host. A cluster is made by a cluster stack (corosync) on the hosts, which
none has: what the rows refuse is said first, then that it is not built.
"""

from __future__ import annotations

from typing import Final

from services.api.call import Call
from services.api.decisions import features
from services.api.decisions.numbers import float_text
from services.api.decisions.rows import Record, Rows, existing, the_pool
from services.api.locking import decide
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts.db import Change, Delete
from shared.errors import ApiError, internal_error
from shared.store import Store

STACKS: Final = ("corosync",)
LEAST_TIMEOUT: Final = 1.0
"""Seconds."""
LEAST_COEFFICIENT: Final = 0.65


def _check_timeouts(token_timeout: float, coefficient: float) -> None:
    """Raises INVALID_VALUE."""
    for name, value, least in (
        ("token_timeout", token_timeout, LEAST_TIMEOUT),
        ("token_timeout_coefficient", coefficient, LEAST_COEFFICIENT),
    ):
        if not value >= least:
            raise ApiError("INVALID_VALUE", name, float_text(value))


def _check_pif(rows: Rows, pif: str) -> None:
    """Raises PIF_ALLOWS_UNPLUG, REQUIRED_PIF_IS_UNPLUGGED, PIF_HAS_NO_NETWORK_CONFIGURATION."""
    row = existing(rows, "PIF", pif)
    if not row["disallow_unplug"]:
        raise ApiError("PIF_ALLOWS_UNPLUG", pif)
    if not row["currently_attached"]:
        raise ApiError("REQUIRED_PIF_IS_UNPLUGGED", pif)
    if not row["IP"]:
        raise ApiError("PIF_HAS_NO_NETWORK_CONFIGURATION", pif)


def _check_unused(rows: Rows, member: Record) -> None:
    """Raises CLUSTER_STACK_IN_USE while its host has an SR that needs the cluster's stack."""
    stack: str = existing(rows, "Cluster", member["cluster"])["cluster_stack"]
    needing = {row["type"] for row in rows.rows("SM").values() if stack in row["required_cluster_stack"]}
    for ref in existing(rows, "host", member["host"])["PBDs"]:
        pbd = existing(rows, "PBD", ref)
        if pbd["currently_attached"] and existing(rows, "SR", pbd["SR"])["type"] in needing:
            raise ApiError("CLUSTER_STACK_IN_USE", stack)


def _not_built(call: Call) -> ApiError:
    return ApiError("NOT_IMPLEMENTED", call.message.wire_name)


# ---- clusters


@operation("Cluster.create", built=False)
def create(
    call: Call, pif: str, cluster_stack: str, pool_auto_join: bool, token_timeout: float, coefficient: float
) -> str:
    if call.store.rows("Cluster"):
        raise ApiError("CLUSTER_ALREADY_EXISTS")
    if cluster_stack not in STACKS:
        raise ApiError("INVALID_CLUSTER_STACK", cluster_stack)
    features.require(call.store, "corosync", "Corosync")
    _check_timeouts(token_timeout, coefficient)
    _check_pif(call.store, pif)
    raise _not_built(call)


@operation("Cluster.pool_create", built=False)
async def pool_create(call: Call, network: str, cluster_stack: str, token_timeout: float, coefficient: float) -> str:
    _check_timeouts(token_timeout, coefficient)
    pool = the_pool(call.store)
    master = pool["master"] if pool is not None else ""
    pifs = existing(call.store, "network", network)["PIFs"]
    own = [ref for ref in pifs if existing(call.store, "PIF", ref)["host"] == master]
    if len(own) != 1:
        raise internal_error(f"the coordinator has {len(own)} interfaces on the network {network}, not one")
    made: str = await perform(call, "Cluster.create", own[0], cluster_stack, True, token_timeout, coefficient)
    return made


@operation("Cluster.destroy")
async def destroy(call: Call, self: str) -> None:
    """A cluster without hosts is its row."""

    def decision(store: Store) -> list[Change]:
        members: list[str] = existing(store, "Cluster", self)["cluster_hosts"]
        if len(members) > 1:
            raise ApiError("CLUSTER_DOES_NOT_HAVE_ONE_NODE", len(members))
        if members:
            _check_unused(store, existing(store, "Cluster_host", members[0]))
            raise _not_built(call)
        return [Delete(cls="Cluster", ref=self)]

    await decide(call, "Cluster", self, decision)


@operation("Cluster.get_network")
def get_network(call: Call, self: str) -> str:
    """The one network of all its hosts' interfaces."""
    members = (
        existing(call.store, "Cluster_host", ref) for ref in existing(call.store, "Cluster", self)["cluster_hosts"]
    )
    networks = {str(existing(call.store, "PIF", member["PIF"])["network"]) for member in members}
    if len(networks) != 1:
        raise internal_error(f"the hosts of cluster {self} are on {len(networks)} networks")
    return networks.pop()


# ---- hosts in a cluster


@operation("Cluster_host.create", built=False)
def create_host(call: Call, cluster: str, host: str, pif: str) -> str:
    existing(call.store, "Cluster", cluster)
    existing(call.store, "PIF", pif)
    if pif not in existing(call.store, "host", host)["PIFs"]:
        raise ApiError("PIF_NOT_ATTACHED_TO_HOST", pif, host)
    if any(row["host"] == host for row in call.store.rows("Cluster_host").values()):
        raise internal_error(f"the host {host} is in a cluster already")
    _check_pif(call.store, pif)
    raise _not_built(call)


@operation("Cluster_host.enable", built=False)
def enable(call: Call, self: str) -> None:
    _check_pif(call.store, existing(call.store, "Cluster_host", self)["PIF"])
    raise _not_built(call)


@operation("Cluster_host.destroy", built=False)
def destroy_host(call: Call, self: str) -> None:
    row = existing(call.store, "Cluster_host", self)
    if not row["enabled"]:
        raise ApiError("CLUSTERING_DISABLED", self)
    if len(existing(call.store, "Cluster", row["cluster"])["cluster_hosts"]) == 1:
        raise ApiError("CLUSTER_HOST_IS_LAST", self)
    _check_unused(call.store, row)
    raise _not_built(call)


def _leaving(message: str) -> None:
    @operation(message, built=False)
    def leave(call: Call, self: str) -> None:
        _check_unused(call.store, existing(call.store, "Cluster_host", self))
        raise _not_built(call)


_leaving("Cluster_host.disable")
_leaving("Cluster_host.force_destroy")
