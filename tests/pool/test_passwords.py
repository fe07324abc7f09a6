from __future__ import annotations

from pathlib import Path

import pytest

from shared import passwords


def test_a_password_is_verified_against_its_own_hash_only() -> None:
    stored = passwords.hash_password("s3cret ü:$")
    assert passwords.verify("s3cret ü:$", stored)
    assert not passwords.verify("s3cret", stored)
    assert stored != passwords.hash_password("s3cret ü:$")


@pytest.mark.parametrize(
    "stored", ["", "s3cret", "scrypt$99$8$1$AA==$AA==", "md5$14$8$1$AA==$AA==", "scrypt$1$8$1$*$*"]
)
def test_what_is_no_hash_is_an_error_not_a_mismatch(stored: str) -> None:
    with pytest.raises(ValueError, match="hash"):
        passwords.verify("s3cret", stored)


def test_the_file_is_private_and_checks_users(tmp_path: Path) -> None:
    path = tmp_path / "users"
    passwords.write(path, {"root": passwords.hash_password("one"), "ann": passwords.hash_password("two")})
    assert path.stat().st_mode & 0o777 == 0o600
    assert passwords.check(path, "ann", "two")
    assert not passwords.check(path, "ann", "one")
    assert not passwords.check(path, "nobody", "")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# users\n\nroot\n")
    with pytest.raises(ValueError, match="users:3"):
        passwords.read(path)
