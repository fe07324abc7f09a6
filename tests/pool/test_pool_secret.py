"""The secret of a pool's hosts: made once, private, the same for all, several at once."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from pool.configuration import pool_secret_file
from pool.folder import FolderError, share_pool_secret
from shared import pool_secret


def test_secrets_are_long_enough_and_never_the_same() -> None:
    made = {pool_secret.generate() for _ in range(20)}
    assert len(made) == 20
    assert all(len(secret) >= pool_secret.SHORTEST for secret in made)


def test_every_host_gets_the_same_secret_in_a_file_of_its_own(tmp_path: Path) -> None:
    share_pool_secret(tmp_path, ["host1", "host2"])
    files = [pool_secret_file(tmp_path, group) for group in ("host1", "host2")]
    first, second = (pool_secret.read(path) for path in files)
    assert first == second
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_a_host_that_comes_later_gets_what_the_others_have(tmp_path: Path) -> None:
    share_pool_secret(tmp_path, ["host1"])
    both = [pool_secret.generate(), *pool_secret.read(pool_secret_file(tmp_path, "host1"))]
    pool_secret.write(pool_secret_file(tmp_path, "host1"), both)
    share_pool_secret(tmp_path, ["host1", "host2"])
    assert pool_secret.read(pool_secret_file(tmp_path, "host2")) == both
    assert pool_secret.read(pool_secret_file(tmp_path, "host1")) == both


def test_a_damaged_file_is_named_and_not_shown(tmp_path: Path) -> None:
    path = pool_secret_file(tmp_path, "host1")
    path.parent.mkdir()
    path.write_text("too short\n")
    with pytest.raises(FolderError, match="pool-secret:1") as caught:
        share_pool_secret(tmp_path, ["host1", "host2"])
    assert "too short" not in str(caught.value)


def test_any_of_several_secrets_counts_and_nothing_else_does() -> None:
    old, new = pool_secret.generate(), pool_secret.generate()
    assert pool_secret.matches(old, [new, old])
    assert pool_secret.matches(new, [new, old])
    for wrong in ("", old[:-1], old + "x", "ü", "\udcff"):
        assert not pool_secret.matches(wrong, [new, old])
    assert not pool_secret.matches("", [])


def test_all_secrets_are_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time does not tell whether the first was right already."""
    compared: list[bytes] = []

    def compare(given: bytes, valid: bytes) -> bool:
        compared.append(valid)
        return given == valid

    monkeypatch.setattr(hmac, "compare_digest", compare)
    secrets = [pool_secret.generate(), pool_secret.generate()]
    assert pool_secret.matches(secrets[0], secrets)
    assert len(compared) == 2
