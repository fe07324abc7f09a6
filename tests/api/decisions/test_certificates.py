from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes

from services.api.decisions.certificates import authority, check_server_certificate, is_revocation_list
from shared.errors import ApiError
from tests.api.messages.pki import DAY, NOW, Authority, certificate, ec_key, key_pem, rsa_key

KEY = key_pem(rsa_key())


def refusal(pem: str = "", key: str = KEY, chain: str = "") -> str:
    with pytest.raises(ApiError) as raised:
        check_server_certificate(pem or certificate(), key, chain, NOW)
    return raised.value.code.removeprefix("SERVER_CERTIFICATE_")


def test_a_certificate_goes_with_its_key_and_the_chain_that_leads_to_its_authority() -> None:
    root = Authority()
    pem = certificate(issuer=root)
    check_server_certificate(pem, KEY, "", NOW)
    check_server_certificate(pem, KEY, root.certificate, NOW)


def test_keys_that_servers_cannot_have() -> None:
    assert refusal(key="x") == "KEY_INVALID"
    assert refusal(key=key_pem(rsa_key(0, 1024))) == "KEY_RSA_LENGTH_NOT_SUPPORTED"
    assert refusal(key=key_pem(rsa_key(2))) == "KEY_MISMATCH"
    with pytest.raises(ApiError) as raised:
        check_server_certificate(certificate(), key_pem(ec_key()), "", NOW)
    assert raised.value.description == ["SERVER_CERTIFICATE_KEY_ALGORITHM_NOT_SUPPORTED", "1.2.840.10045.2.1"]


def test_certificates_that_servers_cannot_have() -> None:
    assert refusal("x") == "INVALID"
    assert refusal(certificate(begins=NOW + DAY / 2)) == "NOT_VALID_YET"
    assert refusal(certificate(ends=NOW - DAY / 2)) == "EXPIRED"
    assert refusal(certificate(digest=hashes.SHA384())) == "SIGNATURE_NOT_SUPPORTED"


def test_chains_that_lead_elsewhere() -> None:
    pem = certificate(issuer=Authority())
    assert refusal(pem, chain="x") == "CHAIN_INVALID"
    assert refusal(pem, chain=Authority("another", key=2).certificate) == "CHAIN_INVALID"
    assert refusal(pem, chain=Authority(key=2).certificate) == "CHAIN_INVALID"


def test_an_authority_has_to_be_valid_now() -> None:
    with pytest.raises(ApiError) as raised:
        authority(certificate(ends=NOW - DAY / 2), "CA_CERTIFICATE", NOW)
    code, now, bound = raised.value.description
    assert code == "CA_CERTIFICATE_EXPIRED"
    assert bound < now


def test_what_a_revocation_list_is() -> None:
    assert is_revocation_list(Authority().crl())
    assert not is_revocation_list(certificate())
