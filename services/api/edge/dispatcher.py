"""The seam between the edge (sockets, HTTP, codecs) and what XenAPI calls do.

The edge parses a call and hands it over; the answer comes back as a fragment already encoded in the call's codec, so
that cached rows are joined and never encoded again. A read answers at once; what has to wait returns a coroutine.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from services.api.wire.codec import Codec
from services.api.wire.raw import RawParams
from shared.errors import ApiError, internal_error

if TYPE_CHECKING:
    from services.api.edge.exchange import Exchange


class Caller(msgspec.Struct, frozen=True):
    """Who calls, as far as the connection tells.

    `host`: uuid of the host whose address was used. `address`: the client's IP, "" for the Unix socket.
    `trusted`: it came over the host's Unix socket and is root. `secure`: it came over TLS. `certificate`: the client
    proved with one that it has the name which the pool asks of clients.
    `task`, `subtask_of`: refs from the headers `task-id` and `subtask-of`. `host_header`: the name the client used.
    `thumbprint`: what `x-xenapi-request-host-certificate-thumbprint` asks for, such as `sha-256:master`.
    `other_config`: from the headers `x-http-other-config-<key>`.
    """

    host: str
    address: str = ""
    trusted: bool = False
    secure: bool = False
    certificate: bool = False
    user_agent: str = ""
    originator: str = ""
    traceparent: str = ""
    baggage: str = ""
    task: str = ""
    subtask_of: str = ""
    thumbprint: str = ""
    host_header: str = ""
    other_config: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True):
    """What to reply.

    `value`: the encoded result. `pieces`: instead of it, one that is too large to be copied together.
    `error`: code and parameters; then `value` does not count.
    `early`: the failure was found before the call was looked at (emergency mode); JSON-RPC has its own form for it.
    `bare`: XML-RPC without the Status wrapper (`system.listMethods`).
    `thumbprint`: the coordinator's, for a HOST_IS_SLAVE whose caller asked.
    """

    value: bytes = b""
    error: list[str] | None = None
    early: bool = False
    bare: bool = False
    thumbprint: str = ""
    pieces: Sequence[bytes] = ()

    @property
    def whole(self) -> bytes:
        """The result in one piece."""
        return b"".join(self.pieces) if self.pieces else self.value


class Waiting(msgspec.Struct, frozen=True):
    """A call that only waits (`event.from`): cancelled when its client goes. Other calls run to their end."""

    answer: Coroutine[Any, Any, Answer]


Outcome = Answer | Waiting | Coroutine[Any, Any, Answer]


class HttpRefusal(Exception):
    """An answer in HTTP's own terms. `text`: for people, on the page that goes with an error. `bare`: without a page.

    `http10`: the reply says so whatever the client speaks. `location`: where a 302 sends it. `realm`: of a 401, when
    it is not the handler's name. `error`: how a task that came with the request fails.
    """

    def __init__(
        self,
        status: int,
        text: str = "",
        *,
        bare: bool = False,
        http10: bool = False,
        location: str = "",
        realm: str = "",
        error: ApiError | None = None,
    ) -> None:
        self.status = status
        self.text = text
        self.bare = bare
        self.http10 = http10
        self.location = location
        self.realm = realm
        self.error = error or internal_error(text or f"HTTP {status}")
        super().__init__(status, text or location)


class Dispatcher(Protocol):
    """What stands behind the edge. `ApiError`s are failures, `HttpRefusal`s HTTP replies, the rest INTERNAL_ERROR."""

    def call(self, caller: Caller, method: str, params: RawParams, codec: Codec) -> Outcome: ...


class Session(msgspec.Struct, frozen=True, tag=True):
    """`session_id`, from a cookie or the query."""

    ref: str


class PoolSecret(msgspec.Struct, frozen=True, tag=True):
    secret: str


class Basic(msgspec.Struct, frozen=True, tag=True):
    """`Authorization: Basic`: logs in for the duration of the request."""

    user: str
    password: str


class Trusted(msgspec.Struct, frozen=True, tag=True):
    """The Unix socket: root without a password."""


class Certificate(msgspec.Struct, frozen=True, tag=True):
    """The client's own, which the pool's settings accept."""


Credential = Session | PoolSecret | Basic | Trusted | Certificate


class Authenticator(Protocol):
    """Who may use the HTTP handlers that are not RPC."""

    def session(self, caller: Caller, credential: Credential, permission: str) -> AbstractAsyncContextManager[str]:
        """A session ref to act with, for as long as the request lasts. `permission`: such as `http/connect_console`.

        Raises SESSION_INVALID or SESSION_AUTHENTICATION_FAILED (answered 401) or RBAC_PERMISSION_DENIED (403).
        """
        ...


class Handlers(Protocol):
    """What serves the rows of the handler table that are neither calls, nor pages, nor consoles.

    A task that the client brought (`task_id`) is always told how the request has ended, redirects and refused logins
    excepted.
    """

    async def serve(self, exchange: Exchange, session: str) -> None:
        """Serves a request for a session ("": root over the Unix socket, or a row that anybody may use).

        Raises `HttpRefusal` or `ApiError` (401, 403, else 500): a page before the reply has begun, later a reset.
        """
        ...

    def refuse(self, exchange: Exchange) -> None:
        """What a row that is not built yet has to say against the arguments. Raises as `serve` does."""
        ...

    async def failed(self, exchange: Exchange, session: str, error: HttpRefusal | ApiError) -> None:
        """The request was refused by what the table says."""
        ...

    async def forbidden(self, exchange: Exchange, credential: Credential, error: ApiError) -> None:
        """Whoever asks may not use this row."""
        ...


class Consoles(Protocol):
    """Where a console's bytes come from."""

    async def console_endpoint(self, caller: Caller, session: str, query: dict[str, str], permission: str) -> str:
        """Path of the Unix socket that speaks RFB or vt100, for the `ref` or `uuid` of a VM or console.

        `permission`: the path's, which the session has; consoles of hosts need more.

        Raises `HttpRefusal`: 404 no such backend, 500 the VM does not run here, 503 limit reached. `ApiError`s are 500.
        """
        ...
