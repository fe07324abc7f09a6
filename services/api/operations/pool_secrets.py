"""The pool secret, by which hosts know each other, is exchanged in three steps, so that they understand each other at
every moment: all accept the new one, all send it, all forget the old one.

Both are kept in a file of the coordinator until that is done: who calls again after a failure goes on with the same.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.api.call import Call
from services.api.decisions.liveness import is_live
from services.api.on_hosts import live_hosts, on_host
from services.api.operation import operation
from shared import pool_secret
from shared.contracts.db import Update
from shared.contracts.host import SET_POOL_SECRETS, PoolSecrets
from shared.errors import ApiError


@operation("pool.rotate_secret")
async def rotate_secret(call: Call) -> None:
    """Raises HA_IS_ENABLED; CANNOT_CONTACT_HOST [host] while a host is away, which would be locked out."""
    pool = next(iter(call.store.rows("pool")))
    if call.api.pool()["ha_enabled"]:
        raise ApiError("HA_IS_ENABLED")
    for host in call.store.rows("host"):
        if not is_live(call.store, host):
            raise ApiError("CANNOT_CONTACT_HOST", host)
    async with call.api.turns.of("pool secret"):
        old, new = await asyncio.to_thread(
            _pending, call.api.pool_secrets.pending_file, call.api.pool_secrets.current()
        )
        await call.transact([Update(cls="pool", ref=pool, fields={"is_psr_pending": True})])
        for known in ([old, new], [new, old], [new]):
            for host in live_hosts(call):
                await on_host(call, host, SET_POOL_SECRETS, PoolSecrets(secrets=known))
        await asyncio.to_thread(call.api.pool_secrets.pending_file.unlink)
        await call.transact([Update(cls="pool", ref=pool, fields={"is_psr_pending": False})])


def _pending(file: Path, current: str) -> tuple[str, str]:
    """The old and the new secret of an exchange that has begun; else of one that begins now."""
    if file.exists():
        old, new = pool_secret.read(file)
        return old, new
    new = pool_secret.generate()
    pool_secret.write(file, [current, new])
    return current, new


def _step(message: str, order: slice) -> None:
    @operation(f"host.{message}", forwarded=True)
    async def step(call: Call, host: str, old_ps: str, new_ps: str) -> None:
        """One step on one host. Raises INVALID_VALUE for what is no secret."""
        for name, value in (("old_ps", old_ps), ("new_ps", new_ps)):
            if not pool_secret.is_valid(value):
                raise ApiError("INVALID_VALUE", name, "")
        await on_host(call, host, SET_POOL_SECRETS, PoolSecrets(secrets=[old_ps, new_ps, old_ps][order]))


_step("notify_accept_new_pool_secret", slice(0, 2))
_step("notify_send_new_pool_secret", slice(1, 3))
_step("cleanup_pool_secret", slice(1, 2))
