"""Authentication and certificates of the pool."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.enums import CERTIFICATE_PURPOSE
from shared.datamodel.classes.pool.enums import POOL_GUEST_SECUREBOOT_READINESS
from shared.datamodel.declare import MessageDecl, Optional, message, setter
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR_OR_CERT
from shared.datamodel.types import BOOL, INT, STRING, STRING_MAP, STRING_SET, SetType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "enable_external_auth",
        "Turns on external authentication on every host.",
        {"pool": refs.pool, "config": STRING_MAP, "service_name": STRING, "auth_type": STRING},
        since="george",
        roles=POOL_ADMIN,
        sync_only=True,
    ),
    message(
        "disable_external_auth",
        "Turns off external authentication on every host.",
        {"pool": refs.pool, "config": Optional(STRING_MAP)},
        since="george",
        roles=POOL_ADMIN,
        sync_only=True,
    ),
    message(
        "external_auth_set_ldaps",
        "Chooses between LDAP over TLS and plain LDAP on every host.",
        {"pool": refs.pool, "ldaps": BOOL, "force": Optional(BOOL)},
        since="26.16.0",
        roles=POOL_ADMIN,
        sync_only=True,
    ),
    message(
        "detect_nonhomogeneous_external_auth",
        "Raises an alert for each host whose external authentication is not the coordinator's.",
        {"pool": refs.pool},
        since="george",
        sync_only=True,
    ),
    message(
        "certificate_install",
        "Installs a CA certificate on every host.",
        {"name": STRING, "cert": STRING},
        since="george, deprecated 1.290.0",
    ),
    message(
        "certificate_uninstall",
        "Removes a CA certificate from every host.",
        {"name": STRING},
        since="george, deprecated 1.290.0",
    ),
    message("certificate_list", "Names of the CA certificates.", result=STRING_SET, since="george, deprecated 1.290.0"),
    message(
        "install_ca_certificate",
        "Installs a CA certificate on every host.",
        {"name": STRING, "cert": STRING},
        since="1.290.0, deprecated 26.13.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "uninstall_ca_certificate",
        "Removes a CA certificate from every host.",
        {"name": STRING, "force": Optional(BOOL)},
        since="1.290.0, changed 24.35.0, deprecated 26.13.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "crl_install", "Installs a revocation list on every host.", {"name": STRING, "cert": STRING}, since="george"
    ),
    message("crl_uninstall", "Removes a revocation list from every host.", {"name": STRING}, since="george"),
    message("crl_list", "Names of the revocation lists.", result=STRING_SET, since="george"),
    message(
        "certificate_sync",
        "Copies the coordinator's CA certificates and revocation lists to every host.",
        since="george",
    ),
    message(
        "enable_tls_verification",
        "Has all hosts verify certificates from now on.",
        since="1.290.0",
        roles=POOL_ADMIN,
        sync_only=True,
    ),
    message(
        "audit_log_append",
        "Adds a line to the coordinator's audit log.",
        {"line": STRING},
        since="midnight-ride",
        roles=POOL_ADMIN,
        pool_internal=True,
    ),
    message(
        "enable_ssl_legacy",
        "Lets every host accept outdated TLS.",
        {"self": refs.pool},
        since="dundee, deprecated dundee, removed stockholm",
    ),
    message(
        "disable_ssl_legacy",
        "Lets no host accept outdated TLS.",
        {"self": refs.pool},
        since="dundee, deprecated stockholm",
    ),
    message(
        "enable_client_certificate_auth",
        "Lets clients log in with a certificate of this name.",
        {"self": refs.pool, "name": STRING},
        since="1.318.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "disable_client_certificate_auth",
        "Ends login with client certificates.",
        {"self": refs.pool},
        since="1.318.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    setter(
        "uefi_certificates",
        "Sets the secure boot certificates of VMs.",
        since="22.16.0, deprecated 24.0.0",
        roles=POOL_ADMIN,
    ),
    setter(
        "custom_uefi_certificates",
        "Sets secure boot certificates to use instead of the bundled ones.",
        roles=POOL_ADMIN,
    ),
    message(
        "set_https_only",
        "Closes or opens port 80 on every host.",
        {"self": refs.pool, "value": BOOL},
        since="prototyped 22.27.0",
    ),
    setter("local_auth_max_threads", "Sets how many local logins are checked at once.", sync_only=True),
    setter("ext_auth_max_threads", "Sets how many external logins are checked at once.", sync_only=True),
    setter("ext_auth_cache_enabled", "Turns remembering external logins on or off."),
    setter("ext_auth_cache_size", "Sets how many external logins are remembered."),
    setter("ext_auth_cache_expiry", "Sets for how many seconds external logins are remembered."),
    message(
        "get_guest_secureboot_readiness",
        "Whether the pool has the certificates that VMs need for secure boot.",
        {"self": refs.pool},
        POOL_GUEST_SECUREBOOT_READINESS,
        since="prototyped 24.17.0",
        sync_only=True,
    ),
    message(
        "enable_ssh", "Opens SSH on every host.", {"self": refs.pool}, since="prototyped 25.13.0", roles=POOL_ADMIN
    ),
    message(
        "disable_ssh", "Closes SSH on every host.", {"self": refs.pool}, since="prototyped 25.13.0", roles=POOL_ADMIN
    ),
    message(
        "set_ssh_enabled_timeout",
        "Sets for how many seconds SSH stays open on every host.",
        {"self": refs.pool, "value": INT},
        since="prototyped 25.21.0",
        roles=POOL_ADMIN,
    ),
    message(
        "set_console_idle_timeout",
        "Sets after how many idle seconds host consoles log out.",
        {"self": refs.pool, "value": INT},
        since="prototyped 25.21.0",
        roles=POOL_ADMIN,
    ),
    message(
        "set_ssh_auto_mode",
        "Has every host open SSH by itself when its toolstack is down, or not.",
        {"self": refs.pool, "value": BOOL},
        since="prototyped 25.27.0",
        roles=POOL_ADMIN,
    ),
    message(
        "install_trusted_certificate",
        "Has the pool trust a certificate for some purposes.",
        {"self": refs.pool, "ca": BOOL, "cert": STRING, "purpose": SetType(CERTIFICATE_PURPOSE)},
        since="prototyped 26.13.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "uninstall_trusted_certificate",
        "Ends the pool's trust in a certificate.",
        {"self": refs.pool, "certificate": refs.Certificate},
        since="prototyped 26.13.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "sync_trusted_certificates_from",
        "Takes over certificates that another pool trusts.",
        {
            "self": refs.pool,
            "remote_pool": STRING,
            "remote_session": refs.session,
            "remote_certificate": STRING,
            "ca": BOOL,
        },
        SetType(refs.Certificate),
        since="prototyped 26.16.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
)
