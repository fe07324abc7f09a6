"""Where the disks of an SR are served by NBD: networks whose purpose it is, on hosts with the SR attached."""

from __future__ import annotations

from typing import Final

from cryptography import x509

from services.api.decisions.rows import Rows, existing
from services.api.decisions.sm_features import plugged_pbds

PURPOSES: Final = frozenset({"nbd", "insecure_nbd"})
PORT: Final = 10809


def addresses(rows: Rows, sr: str) -> dict[str, list[str]]:
    """IP addresses by host, of hosts that have any: those of its attached interfaces there."""
    found: dict[str, list[str]] = {}
    networks = {ref for ref, network in rows.rows("network").items() if PURPOSES & set(network["purpose"])}
    for pbd in plugged_pbds(rows, existing(rows, "SR", sr)):
        interfaces = [
            pif
            for pif in rows.rows("PIF").values()
            if pif["host"] == pbd["host"] and pif["currently_attached"] and pif["network"] in networks
        ]
        ips = [address for pif in interfaces for address in (pif["IP"], *pif["IPv6"]) if address]
        if ips:
            found[pbd["host"]] = ips
    return found


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
