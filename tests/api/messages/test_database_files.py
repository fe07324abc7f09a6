"""Sessions on a database in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.api import opened_databases
from shared.database_dump.writer import moment, pieces
from shared.store import Store
from tests.api.core.role_matrix import log_in
from tests.api.harness import Client, Pool


@pytest.fixture
async def file(pool: Pool, client: Client, tmp_path: Path) -> Path:
    """The pool's database, with its network under another name."""
    path = tmp_path / "state.db"
    content = b"".join(pieces(moment(pool.store)))
    path.write_bytes(content.replace(b' name__label="network"', b' name__label="in%.the%.file"'))
    return path


async def opened(client: Client, path: Path | str) -> Client:
    session = await client.call("session.create_from_db_file", str(path))
    other = client.sending()
    other.session = session
    return other


async def test_it_reads_the_file_and_not_the_pool(pool: Pool, client: Client, file: Path) -> None:
    other = await opened(client, file)
    network = pool.ref("network", "network")
    assert await other.call("network.get_name_label", network) == "in the file"
    assert await other.call("network.get_by_name_label", "in the file") == [network]
    records = await other.call("network.get_all_records_where", 'field "name__label" = "in the file"')
    assert list(records) == [network]
    assert set(await other.call("host.get_all_records")) == set(pool.store.rows("host"))
    assert await client.call("network.get_name_label", network) == "network"


async def test_it_changes_nothing(pool: Pool, client: Client, file: Path) -> None:
    other = await opened(client, file)
    network = pool.ref("network", "network")
    assert (await other.refusal("network.set_name_label", network, "x"))[0] == "RBAC_PERMISSION_DENIED"
    for method in ("event.from", "Async.event.from"):
        assert (await other.refusal(method, ["*"], "", 1.0))[0] in ("NOT_IMPLEMENTED", "RBAC_PERMISSION_DENIED")


async def test_it_ends_with_a_logout(client: Client, file: Path) -> None:
    other = await opened(client, file)
    await other.call("session.logout")
    assert (await other.refusal("network.get_all"))[0] == "SESSION_INVALID"


async def test_one_whose_database_is_closed_never_sees_the_pool(
    client: Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many are open, or the API process was started anew."""
    monkeypatch.setattr(opened_databases, "LIMIT", 1)
    first = await opened(client, file)
    second = await opened(client, file)
    assert (await first.refusal("network.get_all"))[0] == "SESSION_INVALID"
    assert await second.call("network.get_all")
    await first.call("session.logout")


async def test_databases_of_sessions_that_are_gone_are_closed(client: Client, pool: Pool) -> None:
    databases = opened_databases.OpenedDatabases()
    databases.open("gone", Store())
    databases.keep(lambda session: False)
    assert databases._rows == {}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("missing", None, "No such file or directory"),
        ("folder", "", "Is a directory"),
        ("text", "hello", "not a database: line 1"),
        ("empty", "", "not a database"),
    ],
)
async def test_what_is_no_database_is_refused(
    client: Client, tmp_path: Path, name: str, content: Any, why: str
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    error = await client.refusal("session.create_from_db_file", str(path))
    assert error[0] == "INTERNAL_ERROR"
    assert why in error[1]


async def test_a_file_needs_a_name(client: Client) -> None:
    assert await client.refusal("session.create_from_db_file", "") == [
        "INTERNAL_ERROR",
        'Sys_error(": No such file or directory")',
    ]


async def test_only_the_superuser_opens_files(pool: Pool, file: Path) -> None:
    admin = await log_in(pool, "pool-admin")
    assert (await admin.refusal("session.create_from_db_file", str(file)))[0] == "RBAC_PERMISSION_DENIED"
