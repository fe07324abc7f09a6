"""Commands that move the pool's database to and from files of the client's."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.cli.protocol import HttpGet, HttpPut
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import Outcome, ThinClient


@pytest.fixture
def ending(api: FakeXenApi) -> dict[str, Any]:
    """What the handler makes of the task."""
    fields: dict[str, Any] = {"status": "success"}

    def create(label: str, description: str) -> str:
        return api.task(status="pending")

    def set_progress(task: str, value: float) -> str:
        api.row(task).update(fields, progress=1.0)
        return ""

    api.on |= {"task.create": create, "task.set_progress": set_progress}
    return fields


def asked(outcome: Outcome) -> tuple[type, str, str, str]:
    """Kind, file, path and `dry_run` of the request that the client was told to make."""
    [moved] = [command for command in outcome.commands if isinstance(command, HttpGet | HttpPut)]
    parts = urlsplit(moved.url)
    return type(moved), moved.filename, parts.path, parse_qs(parts.query).get("dry_run", [""])[0]


async def test_a_dump_goes_to_the_file_and_says_nothing(
    api: FakeXenApi, xe: ThinClient, ending: dict[str, Any]
) -> None:
    outcome = await xe("pool-dump-database", "file-name=/c/db.xml")
    assert (outcome.stdout, outcome.stderr, outcome.status) == ("", "", 0)
    assert asked(outcome) == (HttpGet, "/c/db.xml", "/pool/xmldbdump", "")
    assert api.rows["task"] == {}


async def test_a_restore_must_be_forced(xe: ThinClient, ending: dict[str, Any]) -> None:
    outcome = await xe("pool-restore-database", "file-name=/c/db.xml")
    assert outcome.status == 1
    assert "--force" in outcome.stderr
    outcome = await xe("pool-restore-database", "file-name=/c/db.xml", "--force")
    assert outcome.status == 0
    assert asked(outcome) == (HttpPut, "/c/db.xml", "/pool/xmldbdump", "false")
    assert "in 30 seconds" in outcome.stdout


async def test_a_dry_run_is_one_by_being_asked_for(xe: ThinClient, ending: dict[str, Any]) -> None:
    for word in ("--dry-run", "dry-run=false"):
        outcome = await xe("pool-restore-database", "file-name=/c/db.xml", word)
        assert asked(outcome)[3] == "true"
        assert (len(outcome.stdout.splitlines()), outcome.status) == (1, 0)


async def test_a_backup_that_does_not_fit_fails_the_command(xe: ThinClient, ending: dict[str, Any]) -> None:
    ending.update(status="failure", error_info=["RESTORE_TARGET_MISSING_DEVICE", "eth7"])
    outcome = await xe("pool-restore-database", "file-name=/c/db.xml", "--dry-run")
    assert outcome.status == 1
    assert "eth7" in outcome.stderr
