"""Looks again, while the coordinator runs, whether those who have logged in through the directory are still let in, and
what the directory says about the pool's subjects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from services.api import clock
from services.api.api import Api
from services.api.directory import membership
from services.api.directory import subject_information as info
from services.api.directory.hooks import AFTER_SUBJECT_UPDATE
from services.api.directory.host_directory import HostDirectory
from services.api.directory.logins import Logins, about
from services.api.directory.plugin import Plugin, ServiceError, SubjectNotFound, Tag
from services.api.directory.pool_hooks import PoolHooks
from shared.contracts.db import Change, Delete, Delta, RowPresent, Update
from shared.errors import ApiError
from shared.store import Store, Touched

log = logging.getLogger("api.directory")

EVERY: Final = 300.0
"""Seconds between two looks at all sessions."""

LONGEST_DOUBT: Final = 2400.0
"""Seconds that a session lasts while the directory cannot be asked about its user."""

SUBJECTS_EVERY: Final = 900.0


def external_sessions(store: Store) -> dict[str, list[str]]:
    """References of the sessions of each user (identifier) of a directory."""
    found: dict[str, list[str]] = {}
    for ref, row in store.rows("session").items():
        if row["auth_user_sid"] and not row["is_local_superuser"] and not row["pool"]:
            found.setdefault(row["auth_user_sid"], []).append(ref)
    return found


class Revalidation:
    """Coordinator only. `every`: see `EVERY`."""

    def __init__(self, api: Api, directory: HostDirectory, logins: Logins, hooks: PoolHooks) -> None:
        self.every = EVERY
        self._api = api
        self._directory = directory
        self._logins = logins
        self._hooks = hooks
        self._wake = asyncio.Event()
        self._was_on = directory.wanted is not None
        api.replica.watch(self._on_commit)

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        """Some changes end sessions at once: the directory is switched off, or a subject has gone."""
        if not any(item.cls in ("host", "subject") for item in touched):
            return
        was_on, self._was_on = self._was_on, self._directory.wanted is not None
        if (was_on and not self._was_on) or any(item.cls == "subject" and item.kind == "del" for item in touched):
            self._wake.set()

    async def run(self) -> None:
        """Until the service stops."""
        refreshed = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(self.every):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self.look()
                if time.monotonic() - refreshed >= SUBJECTS_EVERY:
                    refreshed = time.monotonic()
                    await self.refresh_subjects()
            except ApiError as error:
                log.warning("sessions of the directory's users are not looked at: %s", error)

    async def look(self) -> None:
        """At all sessions, once."""
        sessions = external_sessions(self._api.store)
        if not sessions:
            return
        if self._directory.wanted is None:
            for sid in sessions:
                await self._end(sid, "external authentication is off")
            return
        away: ServiceError | None = None
        for sid in sessions:
            try:
                if away is not None:
                    raise away
                reason = await self._refusal(await self._directory.plugin(0), sid)
            except ServiceError as error:
                away = error if error.tag is Tag.E_UNAVAILABLE else None  # no use in asking about everybody else
                await self._doubt(sid, error)
            else:
                await (self._end(sid, reason) if reason else self._confirm(sid))

    async def _refusal(self, plugin: Plugin, sid: str) -> str:
        """Why that user is not let in any more; "" if it is."""
        try:
            information, groups = await about(plugin, sid)
        except SubjectNotFound as error:
            return str(error)
        if not membership.subjects_of(self._api.store, [sid, *groups]):
            return "the user is in none of the pool's subjects"
        return info.suspension(information)

    async def _end(self, sid: str, reason: str) -> None:
        self._logins.cache.clear()
        await self._write(sid, lambda ref, row: Delete(cls="session", ref=ref))
        log.info("sessions of a user of the directory end", extra={"sid": sid, "reason": reason})

    async def _confirm(self, sid: str) -> None:
        now = clock.now()
        await self._write(sid, lambda ref, row: Update(cls="session", ref=ref, fields={"validation_time": now}))

    async def _doubt(self, sid: str, error: ServiceError) -> None:
        """The directory cannot be asked: nobody is thrown out for that, for a while."""
        log.info("a user of the directory cannot be looked at: %s", error.message, extra={"sid": sid})
        now = time.time()

        def decide(ref: str, row: Mapping[str, Any]) -> Change | None:
            is_old = now - clock.seconds(row["validation_time"]) > LONGEST_DOUBT
            return Delete(cls="session", ref=ref) if is_old else None

        await self._write(sid, decide)

    async def _write(self, sid: str, change: Any) -> None:
        def decide(store: Store) -> tuple[list[Change], list[Any], None]:
            refs = external_sessions(store).get(sid, [])
            found = [change(ref, store.row("session", ref)) for ref in refs]
            changes = [one for one in found if one is not None]
            return changes, [RowPresent(cls="session", ref=one.ref) for one in changes], None

        await self._api.database.decide(decide)

    # ---- subjects

    async def refresh_subjects(self) -> None:
        """What the directory says about them now. What it does not know is left as it was."""
        if self._directory.wanted is None:
            return
        changed = False
        try:
            plugin = await self._directory.plugin(0)
            for ref, row in list(self._api.store.rows("subject").items()):
                changed |= await self._refresh(plugin, ref, row)
        except ServiceError as error:
            log.warning("subjects cannot be looked at: %s", error.message)
        if changed:
            self._hooks.begin(AFTER_SUBJECT_UPDATE)

    async def _refresh(self, plugin: Plugin, ref: str, row: Mapping[str, Any]) -> bool:
        try:
            told = await plugin.query_subject_information(row["subject_identifier"])
        except SubjectNotFound:
            return False

        def decide(store: Store) -> tuple[list[Change], list[Any], bool]:
            now = store.row("subject", ref)
            wanted = {**now["other_config"], **told} if now is not None else {}
            if now is None or wanted == now["other_config"]:
                return [], [], False
            return (
                [Update(cls="subject", ref=ref, fields={"other_config": wanted})],
                [RowPresent(cls="subject", ref=ref)],
                True,
            )

        return await self._api.database.decide(decide)
