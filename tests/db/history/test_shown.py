"""Values that people may read: no secrets, nothing endless."""

from __future__ import annotations

import pytest

from services.db.history.shown import KEPT_TEXT, LONGEST_LIST, LONGEST_TEXT, SHOWN, secret, text
from shared.contracts.db_history import HIDDEN


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "chappassword",
        "incoming_chappassword",
        "cifspassword",
        "password_secret",
        "passwd",
        "passphrase",
        "pass",
        "ldap-pwd",
        "wlb_password",
        "secret",
        "s3.secretKey",
        "client_secret",
        "pool_secret",
        "ptoken",
        "cluster_token",
        "api-token",
        "credentials",
        "private_key",
        "private-key",
        "ssh_key",
        "key",
        "accesskey",
        "AWSACCESSKEY",
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "name_label",
        "token_timeout",
        "passthrough_enabled",
        "keyboard",
        "monkey",
        "keys_pressed",
        "compass",
        "other_config",
        "target",
        "folder",
        "gpgkey_path",
        "device_config",
        "uefi_certificates",
    ],
)
def test_other_names_are_not_taken_for_them(name: str) -> None:
    assert not secret(name)


def test_secret_keys_of_any_map_are_hidden_and_that_they_changed_is_not() -> None:
    for cls, field in (("host", "other_config"), ("PBD", "device_config"), ("VM", "xenstore_data")):
        show = SHOWN[cls][field]
        old = {"password": "one", "same_password": "x", "user": "u"}
        new = {"password": "two", "same_password": "x", "user": "v", "private_key": "k"}
        assert show(old, new) == (
            {"password": HIDDEN, "user": "u"},
            {"password": HIDDEN, "user": "v", "private_key": HIDDEN},
        )


def test_passwords_in_addresses_are_hidden() -> None:
    assert text("https://mary:pw@host/path?a@b") == f"https://mary:{HIDDEN}@host/path?a@b"
    assert text("https://host:8080/path@2") == "https://host:8080/path@2"
    assert SHOWN["VM"]["other_config"]({}, {"proxy": "http://u:p@h"})[1] == {"proxy": f"http://u:{HIDDEN}@h"}


def test_long_texts_are_cut_with_their_length() -> None:
    value = "x" * (LONGEST_TEXT + 1)
    assert text(value) == f"{'x' * KEPT_TEXT}… ({LONGEST_TEXT + 1} characters)"
    assert text(value[1:]) == value[1:]
    _, new = SHOWN["VM"]["other_config"]({}, {"a": value})
    assert new["a"].endswith("characters)")


def test_long_sets_and_maps_are_cut_with_their_length() -> None:
    members = [f"tag {number}" for number in range(1000)]
    old, new = SHOWN["VM"]["tags"]([], members)
    assert (old, len(new), new[-1]) == ([], LONGEST_LIST + 1, "… (1000 in all)")
    old, new = SHOWN["VM"]["tags"](members, members[1:])
    assert (old, new) == (["tag 0"], [])
    _, new = SHOWN["VM"]["other_config"]({}, dict.fromkeys(members, "v"))
    assert (len(new), new["…"]) == (LONGEST_LIST + 1, "(1000 in all)")


def test_a_set_in_another_order_is_told_whole() -> None:
    assert SHOWN["VM"]["tags"](["a", "b"], ["b", "a"]) == (["a", "b"], ["b", "a"])
