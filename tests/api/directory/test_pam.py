"""The host's own users as a directory, by real PAM and a real user."""

from __future__ import annotations

import grp
import os
import subprocess
from collections.abc import AsyncIterator

import pytest

from services.api.directory.pam import PamPlugin
from services.api.directory.plugin import AuthFailure, ServiceError, SubjectNotFound
from tests.support.accounts import Account

pytestmark = pytest.mark.root


@pytest.fixture
async def plugin(pam_service: str) -> AsyncIterator[PamPlugin]:
    plugin = PamPlugin(pam_service)
    await plugin.on_enable({})
    yield plugin
    await plugin.on_xapi_exit()


async def test_a_user_is_let_in_with_the_right_password_only(plugin: PamPlugin, account: Account) -> None:
    uid = await plugin.authenticate_username_password(account.name, account.password)
    assert uid == await plugin.get_subject_identifier(account.name)
    for name, password in ((account.name, "wrong"), ("no-such-user", account.password), ("-x", "y")):
        with pytest.raises(AuthFailure):
            await plugin.authenticate_username_password(name, password)


async def test_users_and_groups_are_known_by_their_numbers(plugin: PamPlugin, account: Account) -> None:
    uid = await plugin.get_subject_identifier(account.name)
    told = await plugin.query_subject_information(uid)
    assert (told["subject-name"], told["subject-is-group"]) == (account.name, "false")
    groups = await plugin.query_group_membership(uid)
    assert f"g{told['subject-gid']}" in groups
    root = grp.getgrgid(0).gr_name
    assert await plugin.get_subject_identifier("root") == "u0"
    assert (await plugin.query_subject_information("g0"))["subject-name"] == root
    assert os.getgid() == 0


@pytest.mark.parametrize("identifier", ["", "u", "g", "x1", "u-1", "u99999999999999", "g4294967294", "u1 ", "root"])
async def test_what_is_no_number_of_anybody_is_not_found(plugin: PamPlugin, identifier: str) -> None:
    with pytest.raises(SubjectNotFound):
        await plugin.query_subject_information(identifier)
    with pytest.raises(SubjectNotFound):
        await plugin.query_group_membership(identifier)


def close(name: str) -> None:
    subprocess.run(["usermod", "--lock", "--expiredate", "1", name], check=True)


async def test_a_locked_and_an_expired_account_show(plugin: PamPlugin, account: Account) -> None:
    uid = await plugin.get_subject_identifier(account.name)
    close(account.name)
    told = await plugin.query_subject_information(uid)
    assert (told["subject-account-locked"], told["subject-account-expired"]) == ("true", "true")


async def test_pam_is_not_joined_without_its_service_or_with_settings(plugin: PamPlugin) -> None:
    for wrong, config in ((plugin, {"server": "x"}), (PamPlugin("no-such-service"), {})):
        with pytest.raises(ServiceError):
            await wrong.on_enable(config)
