"""The pool, its hosts, clusters, certificates and messages, as older releases left them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from services.db.upgrade.message_priorities import PRIORITIES
from services.db.upgrade.rule import Surroundings
from shared.contracts.db import Change, MapDrop, MapPut, Update
from shared.store import Store

log = logging.getLogger("db.upgrade")

MAIL: Final = "mail-min-priority"
MAIL_STEPS: Final = ((10, 0), (9, 1), (5, 2), (4, 3), (1, 4))
"""Mail was sent from that priority on, the larger the more urgent; it is up to a priority now, 1 the most urgent."""
MAIL_ALL: Final = 5

FORMER_GUIDANCE: Final = "reboot_host_on_livepatch_failure"
GUIDANCES: Final = ("reboot_host_on_kernel_livepatch_failure", "reboot_host_on_xen_livepatch_failure")
"""What has taken its place."""

MILLISECONDS: Final = 1000.0


def message_priorities(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref, message in store.rows("message").items():
        priority = PRIORITIES.get(message["name"])
        if priority is not None and priority != message["priority"]:
            yield Update(cls="message", ref=ref, fields={"priority": priority})


def mail_priority(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref, pool in store.rows("pool").items():
        shown = pool["other_config"].get(MAIL)
        if shown is None:
            continue
        new = _mail_priority(shown)
        if new is None:
            log.warning("the pool's %s was %r, which is no number: it is removed", MAIL, shown)
            yield MapDrop(cls="pool", ref=ref, field="other_config", key=MAIL)
        else:
            yield MapPut(cls="pool", ref=ref, field="other_config", key=MAIL, value=str(new))


def _mail_priority(shown: str) -> int | None:
    try:
        former = int(shown)
    except ValueError:
        return None
    return next((new for above, new in MAIL_STEPS if former > above), MAIL_ALL)


def legacy_ssl(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref in store.rows("host"):
        yield Update(cls="host", ref=ref, fields={"ssl_legacy": False})


def uefi_certificates(store: Store, _: Surroundings) -> Iterator[Change]:
    """They come with the program."""
    for ref in store.rows("pool"):
        yield Update(cls="pool", ref=ref, fields={"uefi_certificates": ""})


def update_guidances(store: Store, _: Surroundings) -> Iterator[Change]:
    """What was pending is recommended."""
    for ref, host in store.rows("host").items():
        pending, recommended = host["pending_guidances"], list(host["pending_guidances_recommended"])
        for guidance in pending:
            recommended += GUIDANCES if guidance == FORMER_GUIDANCE else (guidance,)
        fields = {"pending_guidances_recommended": list(dict.fromkeys(recommended)), "pending_guidances": []}
        yield Update(cls="host", ref=ref, fields=fields)


def cluster_timeouts(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref, cluster in store.rows("Cluster").items():
        fields = {name: cluster[name] / MILLISECONDS for name in ("token_timeout", "token_timeout_coefficient")}
        yield Update(cls="Cluster", ref=ref, fields=fields)


def authority_fingerprints(store: Store, around: Surroundings) -> Iterator[Change]:
    """Of certificate authorities: from their files, or what the older field says."""
    for ref, row in store.rows("Certificate").items():
        if row["type"] != "ca" or (row["fingerprint_sha256"] and row["fingerprint_sha1"]):
            continue
        certificate = _certificate(around.certificates, row["name"])
        if certificate is not None:
            fields = {
                "fingerprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
                "fingerprint_sha1": certificate.fingerprint(hashes.SHA1()).hex(":").upper(),
            }
            yield Update(cls="Certificate", ref=ref, fields=fields)
        elif not row["fingerprint_sha256"]:
            yield Update(cls="Certificate", ref=ref, fields={"fingerprint_sha256": row["fingerprint"]})


def _certificate(folder: Path | None, name: str) -> x509.Certificate | None:
    """None where there is none that can be read. `name` comes from the rows: it must not lead out of the folder."""
    if folder is None or not name or Path(name).name != name:
        return None
    try:
        return x509.load_pem_x509_certificate((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        log.info("no fingerprints of certificate %s: %s", name, error)
        return None
