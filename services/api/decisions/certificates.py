"""Which certificates may be installed (host-services 3.4 and 6), decided from their text and the time."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import PublicKeyAlgorithmOID

from shared.errors import ApiError

KEY_BITS = range(2048, 4097)

_ALGORITHMS: tuple[tuple[type, x509.ObjectIdentifier], ...] = (
    (ec.EllipticCurvePrivateKey, PublicKeyAlgorithmOID.EC_PUBLIC_KEY),
    (dsa.DSAPrivateKey, PublicKeyAlgorithmOID.DSA),
    (ed25519.Ed25519PrivateKey, PublicKeyAlgorithmOID.ED25519),
    (ed448.Ed448PrivateKey, PublicKeyAlgorithmOID.ED448),
)


def check_server_certificate(certificate: str, private_key: str, chain: str, now: datetime.datetime) -> None:
    """`chain`: "" or certificates, each issued by the next, the first of which issued the server's.

    Raises SERVER_CERTIFICATE_* in the order key, certificate, chain.
    """
    key = _rsa_key(private_key)
    found = _one(certificate)
    if found is None:
        raise ApiError("SERVER_CERTIFICATE_INVALID")
    if found.public_key() != key.public_key():
        raise ApiError("SERVER_CERTIFICATE_KEY_MISMATCH")
    check_validity(found, "SERVER_CERTIFICATE", now)
    if not isinstance(_hash(found), hashes.SHA256 | hashes.SHA512):
        raise ApiError("SERVER_CERTIFICATE_SIGNATURE_NOT_SUPPORTED")
    if chain.strip():
        _check_chain(found, chain)


def authority(pem: str, error: str, now: datetime.datetime) -> x509.Certificate:
    """A certificate to trust. `error`: beginning of the codes, such as CA_CERTIFICATE. Raises `error`_INVALID,
    `error`_EXPIRED, `error`_NOT_VALID_YET.
    """
    found = _one(pem)
    if found is None:
        raise ApiError(f"{error}_INVALID")
    check_validity(found, error, now)
    return found


def check_validity(certificate: x509.Certificate, error: str, now: datetime.datetime) -> None:
    """Raises `error`_NOT_VALID_YET or `error`_EXPIRED [now, bound]."""
    if now < certificate.not_valid_before_utc:
        raise ApiError(f"{error}_NOT_VALID_YET", _time(now), _time(certificate.not_valid_before_utc))
    if now > certificate.not_valid_after_utc:
        raise ApiError(f"{error}_EXPIRED", _time(now), _time(certificate.not_valid_after_utc))


def is_revocation_list(pem: str) -> bool:
    try:
        x509.load_pem_x509_crl(pem.encode())
    except ValueError:
        return False
    return True


def _rsa_key(pem: str) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ApiError("SERVER_CERTIFICATE_KEY_INVALID") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        oid = next((oid.dotted_string for kind, oid in _ALGORITHMS if isinstance(key, kind)), "")
        raise ApiError("SERVER_CERTIFICATE_KEY_ALGORITHM_NOT_SUPPORTED", oid)
    if key.key_size not in KEY_BITS:
        raise ApiError("SERVER_CERTIFICATE_KEY_RSA_LENGTH_NOT_SUPPORTED", key.key_size)
    return key


def _one(pem: str) -> x509.Certificate | None:
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        found[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return found[0] if len(found) == 1 else None


def _hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _check_chain(certificate: x509.Certificate, chain: str) -> None:
    try:
        for issuer in x509.load_pem_x509_certificates(chain.encode()):
            certificate.verify_directly_issued_by(issuer)
            certificate = issuer
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise ApiError("SERVER_CERTIFICATE_CHAIN_INVALID") from None


def _time(value: datetime.datetime) -> str:
    """RFC 3339, UTC."""
    return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
