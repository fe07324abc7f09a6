"""Where disks are served by NBD: on networks whose purpose it is, by hosts that have the SR attached."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from cryptography import x509

from services.api.decisions.rows import Rows, existing
from services.api.decisions.sm_features import plugged_pbds
from shared.contracts.nbd import Serving

SECURE: Final = "nbd"
PURPOSES: Final = frozenset({SECURE, "insecure_nbd"})
PORT: Final = 10809


def addresses(rows: Rows, sr: str) -> dict[str, list[str]]:
    """IP addresses by host, of hosts that have any: those of its attached interfaces there."""
    plugged = plugged_pbds(rows, existing(rows, "SR", sr))
    return {pbd["host"]: ips for pbd in plugged if (ips := list(_of_host(rows, pbd["host"])))}


def serving(rows: Rows, host: str) -> Serving:
    """Where a host (reference) has to serve disks. Nowhere if some networks ask for TLS and others for none of it."""
    purposes = PURPOSES & {purpose for network in rows.rows("network").values() for purpose in network["purpose"]}
    if len(purposes) != 1:
        return Serving()
    return Serving(sorted(filter(_usable, map(_bare, _of_host(rows, host)))), tls=SECURE in purposes)


def _of_host(rows: Rows, host: str) -> Iterator[str]:
    networks = {ref for ref, network in rows.rows("network").items() if PURPOSES & set(network["purpose"])}
    for pif in rows.rows("PIF").values():
        if pif["host"] == host and pif["currently_attached"] and pif["network"] in networks:
            yield from filter(None, (pif["IP"], *pif["IPv6"]))


def _bare(address: str) -> str:
    """Addresses of IPv6 have their prefix's length behind them."""
    return address.partition("/")[0]


def _usable(address: str) -> bool:
    """Link-local ones are none without their interface."""
    try:
        return not ipaddress.ip_address(address).is_link_local
    except ValueError:
        return False


def subject(certificate: str) -> str:
    """The name by which clients check a host's certificate (PEM): the first of those it is for, wildcards last; "" if
    there is none.
    """
    try:
        own = x509.load_pem_x509_certificate(certificate.encode())
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return ""
    hosts = sorted(names.get_values_for_type(x509.DNSName), key=lambda name: (name.startswith("*."), name))
    return hosts[0] if hosts else ""
