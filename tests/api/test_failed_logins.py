"""Failed logins: what is counted, what the alert says, when it goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from services.api import failed_logins
from services.api.failed_logins import Client, FailedLogins
from shared.bus.interface import BusError
from shared.contracts.alerts import ALERT, Alert
from tests.api.harness import Pool, error_of

NOON = 1_600_776_193.0  # 20200922T12:03:13Z


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    running = await Pool.start(tmp_path, hosts=1, connect=False)
    yield running
    await running.stop()


def many(found: FailedLogins, count: int, client: Client, at: float = NOON) -> None:
    for _ in range(count):
        found.note(client, at)


def test_the_report_names_the_clients_that_failed_most_often() -> None:
    found = FailedLogins()
    many(found, 10, Client("usr5", "origin5", "", "5.4.3.2"))
    many(found, 6, Client("usr4", "", "UA"))
    many(found, 4, Client("", "", "UA", "4.3.2.1"), NOON - 362)
    many(found, 1, Client("usr1"))
    many(found, 14, Client())
    assert found.report() == (
        "<body><total>35</total>"
        "<known><username>usr5</username><originator>origin5</originator><ip>5.4.3.2</ip><number>10</number>"
        "<date>20200922T12:03:13Z</date></known>"
        "<known><username>usr4</username><useragent>UA</useragent><number>6</number>"
        "<date>20200922T12:03:13Z</date></known>"
        "<known><useragent>UA</useragent><ip>4.3.2.1</ip><number>4</number><date>20200922T11:57:11Z</date></known>"
        "<unknown>14</unknown></body>"
    )


def test_nothing_is_reported_when_nobody_failed() -> None:
    assert FailedLogins().report() == ""


def test_whatever_a_client_sends_the_report_is_well_formed() -> None:
    found = FailedLogins()
    many(found, 1, Client("</username>&<\x00\ud800\uffff", 'x"' * 100_000))
    body = ElementTree.fromstring(found.report())
    assert body.findtext("known/username") == "</username>&<"
    assert len(body.findtext("known/originator") or "") == failed_logins.LONGEST


def test_clients_beyond_the_limit_are_counted_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "CLIENTS", 2)
    found = FailedLogins()
    for name in ("a", "b", "c", "a", "d"):
        found.note(Client(name), NOON)
    body = ElementTree.fromstring(found.report())
    assert (body.findtext("total"), body.findtext("unknown")) == ("5", "2")
    assert [known.findtext("number") for known in body.iter("known")] == ["2", "1"]


async def test_every_wrong_proof_counts_and_an_alert_tells_once(pool: Pool) -> None:
    pool.set_password("root", "correct horse")
    heard: asyncio.Queue[Alert] = asyncio.Queue()
    listener = await pool.broker.connect("listener")
    await listener.subscribe(ALERT, lambda alert, _: heard.put_nowait(alert), name=failed_logins.NAME)
    client = pool.client(user_agent="attacker/1.0", address="192.0.2.7")
    await client.raw("session.login_with_password", "root", "correct horse")
    for user in ("root", "root", "nobody"):
        await error_of(client.raw("session.login_with_password", user, "wrong", "1.0", "door"))
    await error_of(client.raw("session.slave_login", "OpaqueRef:x", "wrong"))
    await error_of(client.raw("session.slave_local_login_with_password", "root", "wrong"))
    await failed_logins.report(pool.api, NOON)
    alert = await asyncio.wait_for(heard.get(), 30)
    pool_uuid = pool.api.pool()["uuid"]
    assert (alert.name, alert.priority, alert.cls, alert.obj_uuid) == ("FAILED_LOGIN_ATTEMPTS", 3, "Pool", pool_uuid)
    body = ElementTree.fromstring(alert.body)
    assert body.findtext("total") == "5"
    worst = body.find("known")
    assert worst is not None
    assert [(part.tag, part.text) for part in worst][:-1] == [
        ("username", "root"),
        ("originator", "door"),
        ("useragent", "attacker/1.0"),
        ("ip", "192.0.2.7"),
        ("number", "2"),
    ]
    await failed_logins.report(pool.api, NOON)
    await listener.close()
    assert heard.empty()


async def test_what_could_not_be_sent_is_kept(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.api.failed_logins.note(Client("root"), NOON)

    async def refuse(*_: object, **__: object) -> None:
        raise BusError("INTERNAL_ERROR", "the broker is away")

    monkeypatch.setattr(pool.api_bus, "publish", refuse)
    with pytest.raises(BusError):
        await failed_logins.report(pool.api, NOON)
    pool.api.failed_logins.note(Client("root"), NOON)
    assert pool.api.failed_logins.report().startswith("<body><total>2</total>")
