"""`xe diagnostic-db-history` against the real API and the real database."""

from __future__ import annotations

from pathlib import Path

from shared.contracts.api import XenApiAnswer, XenApiCall
from shared.errors import ApiError
from shared.logs import track_id
from tests.api.harness import Client, Pool
from tests.cli.fake_xenapi import PASSWORD, USER, FakeXenApi
from tests.cli.thin_client import ThinClient


class OverPool(FakeXenApi):
    """The calls of the CLI service go to a pool."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client
        self.latest = ""

    async def transport(self, call: XenApiCall) -> XenApiAnswer:
        try:
            value = await self._client.raw(call.method, *call.params)
        except ApiError as error:
            return XenApiAnswer(error=error.description)
        if call.method == "session.login_with_password":
            self.latest = value
        return XenApiAnswer(value=value)


async def test_xe_tells_what_xe_has_changed(tmp_path: Path) -> None:
    pool = await Pool.start(tmp_path, hosts=1)
    pool.set_password(USER, PASSWORD)
    api = OverPool(pool.client())
    xe = ThinClient(api)
    network = pool.ref("network", "network")
    uuid = pool.row("network", network)["uuid"]
    assert (await xe("network-param-set", f"uuid={uuid}", "name-label=renamed")).status == 0
    session = api.latest
    outcome = await xe("diagnostic-db-history", f"uuid={uuid}", "class=network", "field=name-label", "limit=1")
    assert (outcome.stderr, outcome.status) == ("", 0)
    head, *changes = outcome.stdout.splitlines()
    assert f"network.set_name_label by {USER} (cli) {track_id(session)}" in head
    assert changes == [f"    changed network renamed ({uuid})", "        name-label: network -> renamed"]
    by_session = await xe("diagnostic-db-history", f"session={track_id(session)}", "--minimal")
    assert by_session.stdout.strip().isdecimal()
    wrong = await xe("diagnostic-db-history", "since=yesterday")
    assert (wrong.status, "yesterday" in wrong.stderr) == (1, True)
    await pool.stop()
