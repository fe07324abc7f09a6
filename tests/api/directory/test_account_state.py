"""Which accounts are closed, from what directories keep of them."""

from __future__ import annotations

import pytest

from services.api.directory import ad_schema, pam, rfc_schema
from services.api.directory import subject_information as info
from services.api.directory.ldap_client import Entry

NOW = 1_800_000_000.0
TODAY = int(NOW // 86400)


def closed(state: dict[str, str]) -> set[str]:
    assert set(state) == set(info.SUSPENSIONS)
    return {key.removeprefix("subject-") for key, value in state.items() if value != "false"}


def entry(**attributes: str) -> Entry:
    return Entry("x", {name.replace("_", "-").lower(): [value.encode()] for name, value in attributes.items()})


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({}, set()),
        ({"shadowExpire": "-1", "shadowMax": "99999", "shadowLastChange": str(TODAY - 5)}, set()),
        ({"shadowExpire": str(TODAY + 1)}, set()),
        ({"shadowExpire": str(TODAY)}, {"account-expired"}),
        ({"shadowExpire": "0"}, {"account-expired"}),
        ({"shadowLastChange": str(TODAY - 91), "shadowMax": "90"}, {"password-expired"}),
        ({"shadowLastChange": str(TODAY - 89), "shadowMax": "90"}, set()),
        ({"shadowLastChange": str(TODAY - 91), "shadowMax": "-1"}, set()),
        ({"shadowLastChange": "0"}, {"password-expired"}),
        ({"shadowExpire": "soon"}, set()),
        ({"pwdAccountLockedTime": "000001010000Z"}, {"account-locked"}),
        ({"pwdReset": "TRUE"}, {"password-expired"}),
        ({"pwdReset": "FALSE"}, set()),
        ({"pwdEndTime": "20200101000000Z"}, {"account-expired"}),
        ({"pwdEndTime": "20990101000000Z"}, set()),
        ({"pwdEndTime": "nonsense"}, {"account-expired"}),
        ({"nsAccountLock": "true"}, {"account-disabled"}),
        ({"loginDisabled": "TRUE"}, {"account-disabled"}),
        ({"krbPrincipalExpiration": "20200101000000Z"}, {"account-expired"}),
        ({"krbPasswordExpiration": "20200101000000.0Z"}, {"password-expired"}),
    ],
    ids=str,
)
def test_accounts_of_ldap_servers(attributes: dict[str, str], wanted: set[str]) -> None:
    assert closed(rfc_schema.account_state(entry(**attributes), NOW)) == wanted


def ticks(seconds: float) -> str:
    return str(int((seconds + ad_schema.EPOCH) * ad_schema.TICKS))


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({}, set()),
        ({"userAccountControl": "512", "accountExpires": "0", "lockoutTime": "0"}, set()),
        ({"accountExpires": "9223372036854775807"}, set()),
        ({"accountExpires": ticks(NOW + 1)}, set()),
        ({"accountExpires": ticks(NOW)}, {"account-expired"}),
        ({"userAccountControl": "66050"}, {"account-disabled"}),
        ({"lockoutTime": ticks(NOW - 60)}, {"account-locked"}),
        ({"lockoutTime": ticks(NOW - 60), "msDS_User_Account_Control_Computed": "0"}, set()),
        ({"msDS_User_Account_Control_Computed": "16"}, {"account-locked"}),
        ({"msDS_User_Account_Control_Computed": "8388608"}, {"password-expired"}),
        ({"pwdLastSet": "0", "userAccountControl": "512"}, {"password-expired"}),
        ({"pwdLastSet": "0", "userAccountControl": "66048"}, set()),
        ({"userAccountControl": "nonsense"}, set()),
    ],
    ids=str,
)
def test_accounts_of_active_directory(attributes: dict[str, str], wanted: set[str]) -> None:
    assert closed(ad_schema.account_state(entry(**attributes), NOW)) == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", set()),
        (f"ann:$6$x:{TODAY}:0:99999:7:::", set()),
        (f"ann:!$6$x:{TODAY}:0:99999:7:::", {"account-locked"}),
        (f"ann:*:{TODAY}:0:99999:7:::", set()),
        ("ann:$6$x:0:0:99999:7:::", {"password-expired"}),
        (f"ann:$6$x:{TODAY - 100}:0:90:7:::", {"password-expired"}),
        (f"ann:$6$x:{TODAY}:0:99999:7::{TODAY - 1}:", {"account-expired"}),
    ],
)
def test_accounts_of_the_host(line: str, wanted: set[str]) -> None:
    assert closed(pam.account_state(line.split(":") if line else [], NOW)) == wanted


@pytest.mark.parametrize("key", info.SUSPENSIONS)
def test_a_directory_has_to_say_that_nothing_is_wrong(key: str) -> None:
    fine = dict.fromkeys(info.SUSPENSIONS, "false")
    assert info.suspension(fine) == ""
    assert info.suspension({**fine, key: "true"}) == info.SUSPENSIONS[key]
    assert info.suspension({**fine, key: ""})
    assert key in info.suspension({name: value for name, value in fine.items() if name != key})
