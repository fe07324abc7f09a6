"""`/pool/xmldbdump` over the wire, against the real database."""

from __future__ import annotations

from shared.database_dump.reader import Dump, Reader
from shared.database_dump.schema import SCHEMA_VERSION
from tests.api.core.role_matrix import log_in
from tests.api.handlers.conftest import Site


def parsed(document: bytes) -> Dump:
    reader = Reader()
    reader.feed(document)
    return reader.close()


async def dumped(site: Site) -> bytes:
    reply = await site.ask("GET", "/pool/xmldbdump")
    assert reply.status == 200
    assert "content-length" not in dict(reply.headers)
    return reply.body


async def test_a_dump_has_all_rows_and_nothing_of_sessions(site: Site) -> None:
    dump = parsed(await dumped(site))
    assert dump.schema == SCHEMA_VERSION
    assert 0 < dump.generation <= site.pool.store.generation
    found = {(row.cls, row.ref) for row in dump.rows}
    volatile = {"session", "task", "message"}
    assert found == {(cls, ref) for ref, cls in site.pool.store.by_ref.items() if cls not in volatile}


async def test_a_dump_is_for_pool_administrators(site: Site) -> None:
    session = await log_in(site.pool, "pool-operator")
    assert (await site.ask("GET", "/pool/xmldbdump", session=session.session)).status == 403
