"""Passwords of SRs: given to plug-ins, looked up after a restart, never on this host's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.storage.host import HostStorage
from services.storage.journal import Journal
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.secret_settings import SecretOf
from shared.bus.interface import BusError
from shared.contracts.storage import SrAttach
from shared.errors import ApiError
from tests.storage.support import HOST_A, SR, file_plugin

SETTINGS = {"password_secret": "5ec00000-0000-4000-8000-000000000001", "password": "open sesame"}
OTHERS = {"chap": "md5", "chap_secret": "on"}
"""Whose names only look like that."""


async def started(folder: Path, monkeypatch: pytest.MonkeyPatch, secret_of: SecretOf) -> tuple[HostStorage, list[Any]]:
    """And what its plug-in is given."""
    plugin: FilePlugin = file_plugin()
    given: list[Any] = []
    attach = plugin.sr.attach

    async def noting(uuid: str, configuration: dict[str, str], host: str) -> Any:
        given.append(configuration)
        return await attach(uuid, configuration, host)

    monkeypatch.setattr(plugin.sr, "attach", noting)
    journal = Journal(folder / "journal")
    host = HostStorage(HOST_A, {"file": plugin}, journal, secret_of=secret_of)
    await host.start("boot")
    await host.retry()
    return host, given


async def test_a_password_is_looked_up_after_a_restart_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[ApiError] = [BusError("the API is away")]

    async def secret_of(uuid: str) -> str:
        assert uuid == SETTINGS["password_secret"]
        if problems:
            raise problems.pop()
        return SETTINGS["password"]

    (tmp_path / "medium").mkdir()
    settings = {"location": str(tmp_path / "medium"), **SETTINGS, **OTHERS}
    first, given = await started(tmp_path, monkeypatch, secret_of)
    await first.repositories.plugin("file").sr.create(SR, settings, "", "")
    await first.attach_sr(SrAttach(sr=SR, type="file", device_config=settings))
    assert given == [settings]
    assert SETTINGS["password"].encode() not in (tmp_path / "journal").read_bytes()
    assert SETTINGS["password_secret"].encode() in (tmp_path / "journal").read_bytes()

    again, given = await started(tmp_path, monkeypatch, secret_of)
    assert (given, again.repositories.missing()) == ([], [SR])
    await again.retry()
    assert (given, again.repositories.missing()) == ([settings], [])


async def test_a_secret_that_is_gone_is_the_plugins_to_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def secret_of(uuid: str) -> str:
        raise ApiError("UUID_INVALID", "secret", uuid)

    (tmp_path / "medium").mkdir()
    settings = {"location": str(tmp_path / "medium"), **SETTINGS, **OTHERS}
    first, _ = await started(tmp_path, monkeypatch, secret_of)
    await first.repositories.plugin("file").sr.create(SR, settings, "", "")
    await first.attach_sr(SrAttach(sr=SR, type="file", device_config=settings))
    _, given = await started(tmp_path, monkeypatch, secret_of)
    assert given == [{key: value for key, value in settings.items() if key != "password"}]
