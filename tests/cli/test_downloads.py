"""Commands whose client fetches a file from an HTTP handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.cli.protocol import HttpGet
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import Outcome, ThinClient

Handler = Callable[..., None]


@pytest.fixture
def handler(api: FakeXenApi) -> Handler:
    """What the handler makes of the task, which it takes over from its owner's -1. Not called: it is never reached."""

    def create(label: str, description: str) -> str:
        return api.task(status="pending")

    def set_progress(task: str, value: float) -> str:
        api.row(task)["progress"] = value
        return ""

    def set_status(task: str, value: str) -> str:
        api.row(task)["status"] = value
        return ""

    def ends(**fields: Any) -> None:
        def set_progress(task: str, value: float) -> str:
            assert value == -1.0
            api.row(task).update(fields, progress=1.0)
            return ""

        api.on["task.set_progress"] = set_progress

    api.on |= {"task.create": create, "task.set_progress": set_progress, "task.set_status": set_status}
    return ends


def asked(outcome: Outcome) -> tuple[str, str, dict[str, list[str]]]:
    """File, path and arguments of the request that the client was told to make."""
    [get] = [command for command in outcome.commands if isinstance(command, HttpGet)]
    parts = urlsplit(get.url)
    return get.filename, parts.path, parse_qs(parts.query)


async def test_the_audit_log_is_fetched_under_a_task_that_goes(
    api: FakeXenApi, xe: ThinClient, handler: Handler
) -> None:
    handler(status="success")
    outcome = await xe("audit-log-get", "filename=/tmp/log", "since=2025-01-02T03:04:05Z")
    assert (outcome.stdout, outcome.status) == ("Audit-log-get succeeded\n", 0)
    filename, path, arguments = asked(outcome)
    assert (filename, path, arguments["since"]) == ("/tmp/log", "/audit_log", ["2025-01-02T03:04:05Z"])
    assert arguments["session_id"] == ["OpaqueRef:session-1"]
    assert api.calls("task.destroy") == [(arguments["task_id"][0],)]


async def test_what_the_handler_says_went_wrong_is_shown(api: FakeXenApi, xe: ThinClient, handler: Handler) -> None:
    xe.transfers = False
    handler(status="failure", error_info=["RBAC_PERMISSION_DENIED", "http/get_audit_log", "no"])
    outcome = await xe("audit-log-get", "filename=/tmp/log")
    assert "http/get_audit_log" in outcome.stderr
    assert outcome.status == 1
    assert "since" not in asked(outcome)[2]


async def test_a_handler_that_is_not_reached_fails_the_command(
    api: FakeXenApi, xe: ThinClient, handler: Handler
) -> None:
    xe.transfers = False
    outcome = await xe("audit-log-get", "filename=/tmp/log")
    assert (outcome.stdout, outcome.status) == ("", 1)
    assert outcome.stderr.startswith("Audit-log-get failed")
    assert api.rows["task"] == {}


async def test_a_file_that_did_not_arrive_is_no_success(xe: ThinClient, handler: Handler) -> None:
    xe.transfers = False
    handler(status="success")
    outcome = await xe("audit-log-get", "filename=/tmp/log")
    assert (outcome.stdout, outcome.status) == ("", 1)
