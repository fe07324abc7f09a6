"""External directories and certificates."""

from __future__ import annotations

from shared.datamodel.error_tables.declaration import ErrorDecl, error

ERRORS: tuple[ErrorDecl, ...] = (
    error(
        "AUTH_ALREADY_ENABLED",
        "External authentication is on already; disable it before choosing another.",
        "current auth_type",
        "current service_name",
    ),
    error("AUTH_DISABLE_FAILED", "External authentication could not be turned off.", "message"),
    error(
        "AUTH_DISABLE_FAILED_PERMISSION_DENIED",
        "The directory did not allow this account to remove the host.",
        "message",
    ),
    error(
        "AUTH_DISABLE_FAILED_WRONG_CREDENTIALS", "The directory did not accept the account or its password.", "message"
    ),
    error("AUTH_ENABLE_FAILED", "External authentication could not be turned on.", "message"),
    error("AUTH_ENABLE_FAILED_DOMAIN_LOOKUP_FAILED", "The directory's domain was not found in DNS.", "message"),
    error("AUTH_ENABLE_FAILED_INVALID_ACCOUNT", "The account is not one of the directory's.", "message"),
    error("AUTH_ENABLE_FAILED_INVALID_OU", "The directory has no such organizational unit.", "message"),
    error(
        "AUTH_ENABLE_FAILED_INVALID_TRUSTED_CERTS",
        "The certificates meant to verify the directory's servers do not do so.",
        "message",
    ),
    error(
        "AUTH_ENABLE_FAILED_NO_TRUSTED_CERTS",
        "No certificate is installed that could verify the directory's servers.",
        "message",
    ),
    error(
        "AUTH_ENABLE_FAILED_PERMISSION_DENIED", "The directory did not allow this account to add the host.", "message"
    ),
    error("AUTH_ENABLE_FAILED_UNAVAILABLE", "The directory cannot be reached.", "message"),
    error(
        "AUTH_ENABLE_FAILED_WRONG_CREDENTIALS", "The directory did not accept the account or its password.", "message"
    ),
    error("AUTH_INVALID_TRUSTED_CERTS", "The installed certificates do not verify the directory's servers.", "message"),
    error("AUTH_IS_DISABLED", "External authentication is off, so there is no directory to ask."),
    error("AUTH_NO_TRUSTED_CERTS", "No certificate is installed that could verify the directory's servers.", "message"),
    error("AUTH_SERVICE_ERROR", "The directory could not answer.", "message"),
    error("AUTH_SETUP_TLS_CONNECTION", "No TLS connection to the directory could be made.", "message"),
    error("AUTH_SET_LDAPS_FAILED", "LDAP over TLS could not be turned on or off on this host.", "host", "message"),
    error("AUTH_UNKNOWN_TYPE", "There is no plug-in for this kind of authentication.", "type"),
    error("CERTIFICATE_ALREADY_EXISTS", "A certificate of this name is installed already.", "name"),
    error("CERTIFICATE_CORRUPT", "The certificate cannot be read.", "name"),
    error("CERTIFICATE_DOES_NOT_EXIST", "No certificate of this name is installed.", "name"),
    error("CERTIFICATE_LACKS_PURPOSE", "The trusted certificate is given no purpose."),
    error("CERTIFICATE_LIBRARY_CORRUPT", "The store of certificates is damaged on this host."),
    error("CERTIFICATE_NAME_INVALID", "The certificate's name is not a plain file name.", "name"),
    error("CRL_ALREADY_EXISTS", "A revocation list of this name is installed already.", "name"),
    error("CRL_CORRUPT", "The revocation list cannot be read.", "name"),
    error("CRL_DOES_NOT_EXIST", "No revocation list of this name is installed.", "name"),
    error("CRL_NAME_INVALID", "The revocation list's name is not a plain file name.", "name"),
    error("NOT_TRUSTED_CERTIFICATE", "The certificate is not one of the trusted ones.", "ref"),
    error("POOL_AUTH_ALREADY_ENABLED", "This host has external authentication on already.", "host"),
    error(
        "POOL_AUTH_DISABLE_FAILED",
        "External authentication could not be turned off on at least this host.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_DISABLE_FAILED_INVALID_ACCOUNT",
        "The account is not one of the directory's; this host said so first.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_DISABLE_FAILED_PERMISSION_DENIED",
        "The directory did not allow this account to remove the hosts.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_DISABLE_FAILED_WRONG_CREDENTIALS",
        "The directory did not accept the account or its password.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED",
        "External authentication could not be turned on on at least this host.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_DOMAIN_LOOKUP_FAILED",
        "This host did not find the directory's domain in DNS.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_DUPLICATE_HOSTNAME",
        "The directory already has a machine of this host's name.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_INVALID_ACCOUNT",
        "The account is not one of the directory's; this host said so first.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_INVALID_OU",
        "The directory has no such organizational unit; this host said so first.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_INVALID_TRUSTED_CERTS",
        "This host's certificates do not verify the directory's servers.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_NO_SUPPORT_ENCRYPT_TYPE",
        "Host and directory have no encryption type in common.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_NO_TRUSTED_CERTS",
        "This host has no certificate that could verify the directory's servers.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_PERMISSION_DENIED",
        "The directory did not allow this account to add the hosts.",
        "host",
        "message",
    ),
    error(
        "POOL_AUTH_ENABLE_FAILED_SETUP_TLS_CONNECTION",
        "This host could not make a TLS connection to the directory.",
        "host",
        "message",
    ),
    error("POOL_AUTH_ENABLE_FAILED_UNAVAILABLE", "This host cannot reach the directory.", "host", "message"),
    error(
        "POOL_AUTH_ENABLE_FAILED_WRONG_CREDENTIALS",
        "The directory did not accept the account or its password.",
        "host",
        "message",
    ),
    error("SERVER_CERTIFICATE_CHAIN_INVALID", "The chain is not a list of certificates in PEM form."),
    error("SERVER_CERTIFICATE_EXPIRED", "The server certificate's time is over.", "now", "not_after"),
    error("SERVER_CERTIFICATE_INVALID", "The server certificate is not in PEM form."),
    error(
        "SERVER_CERTIFICATE_KEY_ALGORITHM_NOT_SUPPORTED",
        "The private key is of a kind that cannot be used here.",
        "algorithm_oid",
    ),
    error("SERVER_CERTIFICATE_KEY_INVALID", "The private key is not in PEM form."),
    error("SERVER_CERTIFICATE_KEY_MISMATCH", "The private key does not belong to the certificate."),
    error("SERVER_CERTIFICATE_KEY_RSA_LENGTH_NOT_SUPPORTED", "The RSA key is too short or too long.", "length"),
    error("SERVER_CERTIFICATE_KEY_RSA_MULTI_NOT_SUPPORTED", "The RSA key has more than two primes."),
    error("SERVER_CERTIFICATE_NOT_VALID_YET", "The server certificate's time has not begun.", "now", "not_before"),
    error(
        "SERVER_CERTIFICATE_SIGNATURE_NOT_SUPPORTED",
        "The certificate is signed with an algorithm that is not accepted.",
    ),
    error("SSL_VERIFY_ERROR", "The other side's certificate could not be verified.", "reason"),
    error("TLS_CONNECTION_FAILED", "No TLS connection to this address could be made.", "address", "port"),
    error(
        "TRUSTED_CERTIFICATE_ALREADY_EXISTS",
        "A trusted certificate with this fingerprint is installed already.",
        "fingerprint",
    ),
    error("TRUSTED_CERTIFICATE_EXPIRED", "The trusted certificate's time is over.", "now", "not_after"),
    error("TRUSTED_CERTIFICATE_INVALID", "The trusted certificate cannot be read."),
    error("TRUSTED_CERTIFICATE_NOT_VALID_YET", "The trusted certificate's time has not begun.", "now", "not_before"),
    # Raised, but in no documentation of the original.
    error("CA_CERTIFICATE_EXPIRED", "The CA certificate's time is over."),
    error("CA_CERTIFICATE_INVALID", "The CA certificate cannot be read."),
    error("CA_CERTIFICATE_NOT_VALID_YET", "The CA certificate's time has not begun."),
    error("CERT_REFRESH_IN_PROGRESS", "A host's internal certificate is being replaced already."),
    error("TLS_VERIFICATION_ENABLE_IN_PROGRESS", "The verification of certificates is being turned on in the pool."),
)
