"""The plug-in for LDAP servers, Active Directory among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeVar

from services.api.directory.ad_schema import AdSchema
from services.api.directory.ldap_client import Conversation, Entry, LdapClient
from services.api.directory.ldap_settings import LdapSettings, settings
from services.api.directory.plugin import AuthFailure, Configuration, ServiceError, SubjectNotFound, Tag
from services.api.directory.rfc_schema import RfcSchema

THREADS: Final = 8
"""Conversations at once."""

PATIENCE: Final = 90.0
"""Seconds in which a conversation has to end: servers that answer slowly, time after time, are given up."""

Result = TypeVar("Result")


class Schema(Protocol):
    """What differs between directories. `attributes`: all that `information` and `groups` look at."""

    @property
    def attributes(self) -> tuple[str, ...]: ...

    def account(self, settings: LdapSettings) -> str:
        """What the pool's own user binds as."""
        ...

    def user_filter(self, name: str) -> str: ...

    def subject_filter(self, name: str) -> str: ...

    def identifier_filter(self, identifier: str) -> str: ...

    def identifier(self, entry: Entry) -> str: ...

    def information(self, entry: Entry) -> dict[str, str]: ...

    def groups(self, conversation: Conversation, entry: Entry) -> list[str]: ...


SCHEMAS: Final[dict[str, Callable[[LdapSettings], Schema]]] = {"LDAP": RfcSchema, "AD": AdSchema}


class LdapPlugin:
    """See `Plugin`. Settings that cannot be meant are told by the first method that is called.

    `trusted`: folders of certificates, for servers' when the configuration brings none.
    """

    def __init__(
        self,
        schema: Callable[[LdapSettings], Schema],
        service_name: str,
        config: Configuration,
        trusted: Sequence[Path] = (),
    ) -> None:
        self._make_schema = schema
        self._trusted = tuple(trusted)
        self._service_name = service_name
        self._config = dict(config)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ldap")
        self._parts: tuple[LdapClient, Schema] | None = None

    def _ready(self) -> tuple[LdapClient, Schema]:
        if self._parts is None:
            given = settings(self._service_name, self._config)
            schema = self._make_schema(given)
            self._parts = LdapClient(given, schema.account(given), self._trusted), schema
        return self._parts

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise ServiceError(Tag.E_UNAVAILABLE, "the directory takes too long to answer") from error

    # ---- users and groups

    async def authenticate_username_password(self, name: str, password: str) -> str:
        client, schema = self._ready()

        def work() -> str:
            try:
                wanted = schema.user_filter(_exact(name))
                entry = client.converse(lambda c: _one(c.find(wanted, schema.attributes), name))
            except SubjectNotFound as error:
                raise AuthFailure(str(error)) from error
            client.check_password(entry.dn, password)
            return schema.identifier(entry)

        return await self._in_thread(work)

    async def authenticate_ticket(self, ticket: str) -> str:
        raise AuthFailure("LDAP servers know no tickets")

    async def get_subject_identifier(self, name: str) -> str:
        client, schema = self._ready()

        def work() -> str:
            wanted = schema.subject_filter(_exact(name))
            return client.converse(lambda c: schema.identifier(_one(c.find(wanted, schema.attributes), name)))

        return await self._in_thread(work)

    async def query_subject_information(self, identifier: str) -> dict[str, str]:
        _, schema = self._ready()
        return await self._about(identifier, lambda _, entry: schema.information(entry))

    async def query_group_membership(self, identifier: str) -> list[str]:
        _, schema = self._ready()
        return await self._about(identifier, schema.groups)

    async def _about(self, identifier: str, look: Callable[[Conversation, Entry], Result]) -> Result:
        client, schema = self._ready()

        def work() -> Result:
            wanted = schema.identifier_filter(_exact(identifier))

            def converse(conversation: Conversation) -> Result:
                return look(conversation, _one(conversation.find(wanted, schema.attributes), identifier))

            return client.converse(converse)

        return await self._in_thread(work)

    # ---- the directory itself

    async def on_enable(self, config: Configuration) -> None:
        await self._try()

    async def _try(self) -> None:
        """Whether the servers can be reached, the pool's own user is let in, and the base is there."""
        client, _ = self._ready()

        def look(conversation: Conversation) -> None:
            if conversation.read(conversation.base, ("objectClass",)) is None:
                raise ServiceError(Tag.E_INVALID_OU, f"{conversation.base} is not there, or not to be seen")

        await self._in_thread(lambda: client.converse(look))

    async def on_disable(self, config: Configuration) -> None:
        """The directory has no record of the pool."""

    async def on_xapi_initialize(self, system_boot: bool) -> None:
        await self._try()

    async def on_xapi_exit(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def set_ldaps(self, ldaps: bool, force: bool) -> dict[str, str]:
        changed = {"ldaps": "true" if ldaps else "false"}
        if not force:
            trial = LdapPlugin(self._make_schema, self._service_name, {**self._config, **changed}, self._trusted)
            try:
                await trial.on_enable({})
            finally:
                await trial.on_xapi_exit()
        return changed


def _exact(text: str) -> str:
    """The library leaves blanks and line ends at the ends of a filter's values out: such names are nobody's."""
    if text != text.strip() or not text:
        raise SubjectNotFound(f"nobody is called {text[:100]!r}")
    return text


def _one(entries: list[Entry], what: str) -> Entry:
    """The only one. Two of a name are nobody: it is not for us to choose who logs in."""
    if len(entries) != 1:
        count = "nobody" if not entries else "more than one"
        raise SubjectNotFound(f"the directory knows {count} by the name {what[:100]!r}")
    return entries[0]
