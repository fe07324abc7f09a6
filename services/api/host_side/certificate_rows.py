"""Rows of class Certificate: what is known of a certificate, and which rows a host's own ones need."""

from __future__ import annotations

import uuid as uuids
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from services.api import clock
from shared.contracts.db import Change, Create, Delete
from shared.contracts.host import ServerCertificates
from shared.store import Store


def fields(certificate: x509.Certificate) -> dict[str, Any]:
    """What a row says of the certificate itself."""
    return {
        "not_before": clock.stamp(certificate.not_valid_before_utc.timestamp()),
        "not_after": clock.stamp(certificate.not_valid_after_utc.timestamp()),
        "fingerprint": fingerprint(certificate, hashes.SHA256()),
        "fingerprint_sha256": fingerprint(certificate, hashes.SHA256()),
        "fingerprint_sha1": fingerprint(certificate, hashes.SHA1()),
    }


def fingerprint(certificate: x509.Certificate, algorithm: hashes.HashAlgorithm) -> str:
    """Such as `0A:1B:...`."""
    return certificate.fingerprint(algorithm).hex(":").upper()


def new_row(certificate: x509.Certificate, **more: Any) -> Create:
    row = {"uuid": str(uuids.uuid4()), **fields(certificate), **more}
    return Create(cls="Certificate", ref=f"OpaqueRef:{uuids.uuid4()}", fields=row)


def differing(store: Store, host: str, shown: ServerCertificates) -> list[Change]:
    """What makes the rows of a host (uuid) say what it shows; none if they do."""
    ref = store.ref_of_uuid("host", host)
    if ref is None:
        return []
    changes: list[Change] = []
    for kind, pem in (("host", shown.host), ("host_internal", shown.internal)):
        certificate = x509.load_pem_x509_certificate(pem.encode())
        known = [
            (row_ref, row)
            for row_ref in store.get("host", ref, "certificates")
            if (row := store.row("Certificate", row_ref)) is not None and row["type"] == kind
        ]
        sha256 = fingerprint(certificate, hashes.SHA256())
        if [row["fingerprint_sha256"] for _, row in known] == [sha256]:
            continue
        changes += [Delete(cls="Certificate", ref=row_ref) for row_ref, _ in known]
        changes.append(new_row(certificate, type=kind, host=ref))
    return changes
