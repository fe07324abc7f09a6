"""What a directory tells about a user or group: text by key, as clients of the XenAPI know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NAME: Final = "subject-name"
"""Always there."""

DISPLAY_NAME: Final = "subject-displayname"
GECOS: Final = "subject-gecos"
UPN: Final = "subject-upn"
UID: Final = "subject-uid"
GID: Final = "subject-gid"
SID: Final = "subject-sid"
IS_GROUP: Final = "subject-is-group"

ACCOUNT_DISABLED: Final = "subject-account-disabled"
ACCOUNT_EXPIRED: Final = "subject-account-expired"
ACCOUNT_LOCKED: Final = "subject-account-locked"
PASSWORD_EXPIRED: Final = "subject-password-expired"

SUSPENSIONS: Final = {
    ACCOUNT_DISABLED: "the account is disabled",
    ACCOUNT_EXPIRED: "the account has expired",
    ACCOUNT_LOCKED: "the account is locked",
    PASSWORD_EXPIRED: "the password has expired",
}


def flag(value: bool) -> str:
    return "true" if value else "false"


def is_group(information: Mapping[str, str]) -> bool:
    return information.get(IS_GROUP) == "true"


def suspension(information: Mapping[str, str]) -> str:
    """Why that account is not let in; "" if it is. A directory has to say that nothing is wrong: each key must be
    "false".
    """
    for key, reason in SUSPENSIONS.items():
        if information.get(key) != "false":
            return reason if key in information else f"the directory does not tell {key}"
    return ""
