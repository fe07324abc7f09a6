"""Where the disks of an SR could be served by NBD: networks whose purpose it is, on hosts with the SR attached."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Rows, existing
from services.api.decisions.sm_features import plugged_pbds

PURPOSES: Final = frozenset({"nbd", "insecure_nbd"})


def addresses(rows: Rows, sr: str) -> list[str]:
    """IP addresses of the hosts' interfaces there."""
    hosts = {pbd["host"] for pbd in plugged_pbds(rows, existing(rows, "SR", sr))}
    networks = {ref for ref, network in rows.rows("network").items() if PURPOSES & set(network["purpose"])}
    interfaces = [
        pif
        for pif in rows.rows("PIF").values()
        if pif["currently_attached"] and pif["host"] in hosts and pif["network"] in networks
    ]
    return [address for pif in interfaces for address in (pif["IP"], *pif["IPv6"]) if address]
