"""A pool whose passwords PAM checks, with a real user of the system and the project's own PAM service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import XenAPI

from tests.support.accounts import Account
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.root]


def test_a_system_user_logs_in_with_their_own_password_only(
    new_pool: PoolUnderTest, account: Account, pam_service: str
) -> None:
    told = new_pool.up("--auth", "pam", "--pam-service", pam_service).stdout
    assert "root's on this machine" in told
    assert "XAPI_PASSWORD" not in new_pool.env
    assert not (new_pool.directory / "users").exists()

    session = XenAPI.Session(new_pool.url)
    session.login_with_password(account.name, account.password, "1.0", "tests")
    record = session.xenapi.session.get_record(session._session)
    assert (record["auth_user_name"], record["is_local_superuser"]) == (account.name, True)
    assert len(session.xenapi.host.get_all()) == 1
    with pytest.raises(XenAPI.Failure) as caught:
        session.xenapi.session.change_password(account.password, "another")
    assert caught.value.details[0] == "CHANGE_PASSWORD_REJECTED"
    session.xenapi.session.logout()

    for name, password in ((account.name, "wrong"), (account.name, ""), ("nobody-here", account.password)):
        with pytest.raises(XenAPI.Failure) as caught:
            XenAPI.Session(new_pool.url).login_with_password(name, password, "1.0", "tests")
        assert caught.value.details[:2] == ["SESSION_AUTHENTICATION_FAILED", name]

    xe = str(Path(sys.executable).with_name("xe"))
    words = ["-s", new_pool.hosts["host1"], "-u", account.name, "-pw", account.password, "host-list", "--minimal"]
    done = subprocess.run([xe, *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{new_pool.plan.hosts[0].uuid}\n", "")


def test_without_its_service_file_the_pool_does_not_start(new_pool: PoolUnderTest) -> None:
    """PAM would ask the service `other` instead, and that may let anybody in."""
    done = new_pool.command("up", *new_pool.options, "--auth", "pam", "--pam-service", "xapi-is-not-installed")
    assert done.returncode == 1
    assert "there is no /etc/pam.d/xapi-is-not-installed" in done.stderr
    assert not (new_pool.directory / "rabbitmq").exists()
