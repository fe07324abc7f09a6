"""Passwords: the local file, and real PAM with a real user of the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.api.authentication import Pam, PasswordFile, authenticator
from shared import passwords
from shared.errors import ApiError
from tests.support.accounts import Account


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    passwords.write(path, {"root": passwords.hash_password("right")})
    return path


async def test_the_file_accepts_the_right_password_only(users: Path) -> None:
    check = PasswordFile(users).check
    await check("root", "right")
    await check("root", "right")
    for user, password in (("root", "wrong"), ("root", ""), ("nobody", "right"), ("", "")):
        with pytest.raises(ApiError) as caught:
            await check(user, password)
        assert caught.value.code == "SESSION_AUTHENTICATION_FAILED"
        assert caught.value.params[0] == user


async def test_a_changed_file_forgets_what_passed_before(users: Path) -> None:
    file = PasswordFile(users)
    await file.check("root", "right")
    await file.change("root", "newer")
    await file.check("root", "newer")
    with pytest.raises(ApiError, match="SESSION_AUTHENTICATION_FAILED"):
        await file.check("root", "right")


async def test_an_empty_new_password_is_rejected(users: Path) -> None:
    with pytest.raises(ApiError, match="CHANGE_PASSWORD_REJECTED"):
        await PasswordFile(users).change("root", "")


async def test_a_missing_or_damaged_file_says_so(tmp_path: Path) -> None:
    missing = PasswordFile(tmp_path / "none")
    with pytest.raises(ApiError, match="cannot read the password file"):
        await missing.check("root", "x")
    (tmp_path / "bad").write_text("root:plain text\n")
    with pytest.raises(ApiError, match="cannot be used"):
        await PasswordFile(tmp_path / "bad").check("root", "x")


def test_an_unknown_kind_of_authentication_is_refused() -> None:
    with pytest.raises(ValueError, match="file or pam"):
        authenticator("ldap", "", "")


@pytest.mark.root
async def test_pam_lets_a_real_user_in_with_the_right_password_only(account: Account, pam_service: str) -> None:
    name, password = account
    pam = Pam(pam_service)
    await pam.check(name, password)
    for user, given in ((name, "wrong"), (name, ""), ("no-such-user", password)):
        with pytest.raises(ApiError) as caught:
            await pam.check(user, given)
        assert caught.value.description[:2] == ["SESSION_AUTHENTICATION_FAILED", user]


@pytest.mark.root
async def test_pam_users_change_their_password_on_the_host(pam_service: str) -> None:
    with pytest.raises(ApiError, match="CHANGE_PASSWORD_REJECTED"):
        await Pam(pam_service).change("root", "x")
