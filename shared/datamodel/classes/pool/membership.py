"""Hosts that join, leave and take over."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.pool.enums import HELLO_RETURN
from shared.datamodel.declare import MessageDecl, message
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR_OR_CERT
from shared.datamodel.types import BOOL, STRING, STRING_MAP, STRING_SET, MapType, SetType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "join",
        "Makes this host a member of another pool.",
        {"master_address": STRING, "master_username": STRING, "master_password": STRING},
        errors=("JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS",),
    ),
    message(
        "join_force",
        "The same, ignoring differences that can be done without.",
        {"master_address": STRING, "master_username": STRING, "master_password": STRING},
    ),
    message("eject", "Takes a host out of the pool; its local storage is lost.", {"host": refs.host}),
    message("initial_auth", "Answers the secret that a joining host needs.", result=STRING, hidden=True),
    message(
        "exchange_certificates_on_join",
        "Takes a joining host's certificate, answers those of the pool's hosts.",
        {"uuid": STRING, "certificate": STRING},
        STRING_MAP,
        since="1.298.0",
        hidden=True,
    ),
    message(
        "exchange_ca_certificates_on_join",
        "Takes a joining host's CA certificates, answers the pool's.",
        {"import": STRING_MAP, "export": SetType(refs.Certificate)},
        STRING_MAP,
        since="1.320.0",
        hidden=True,
    ),
    message(
        "emergency_transition_to_master",
        "Makes this member the coordinator, when the old one is lost.",
        sync_only=True,
        emergency=True,
    ),
    message(
        "emergency_reset_master",
        "Tells this member where its coordinator is now.",
        {"master_address": STRING},
        sync_only=True,
        emergency=True,
    ),
    message(
        "recover_slaves",
        "Tells every member where the coordinator is; answers those who listened.",
        result=SetType(refs.host),
    ),
    message(
        "hello",
        "Asks on behalf of a member whether it is welcome.",
        {"host_uuid": STRING, "host_address": STRING},
        HELLO_RETURN,
        hidden=True,
    ),
    message(
        "is_slave",
        "Whether the host asked is a member and not the coordinator.",
        {"host": refs.host},
        BOOL,
        roles=POOL_ADMIN,
        sync_only=True,
        emergency=True,
        hidden=True,
    ),
    message("sync_database", "Has every host fetch a backup of the database."),
    message(
        "designate_new_master",
        "Hands the coordinator's part to another host in good order.",
        {"host": refs.host},
        since="miami",
    ),
    message(
        "rotate_secret",
        "Replaces the secret that the hosts share.",
        since="stockholm_psr",
        roles=POOL_ADMIN,
        errors=(
            "INTERNAL_ERROR",
            "HOST_IS_SLAVE",
            "CANNOT_CONTACT_HOST",
            "HA_IS_ENABLED",
            "NOT_SUPPORTED_DURING_UPGRADE",
        ),
    ),
    message(
        "exchange_trusted_certificates_on_join",
        "Takes the certificates a joining host trusts, answers the pool's.",
        {"self": refs.pool, "ca": BOOL, "import": MapType(STRING, STRING_SET), "export": SetType(refs.Certificate)},
        MapType(STRING, STRING_SET),
        since="prototyped 26.13.0",
        roles=POOL_OPERATOR_OR_CERT,
        hidden=True,
    ),
    message(
        "exchange_crls_on_join",
        "Takes a joining host's revocation lists, answers the pool's.",
        {"self": refs.pool, "import": STRING_MAP, "export": STRING_SET},
        STRING_MAP,
        since="prototyped 26.13.0",
        roles=POOL_OPERATOR_OR_CERT,
        hidden=True,
    ),
)
