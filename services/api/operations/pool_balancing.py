"""Messages about a workload balancing server, which recommends where VMs should run. Its protocol is not spoken yet:
one that answers is NOT_IMPLEMENTED, one that does not is told as what it is.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.errors import ApiError

TIMEOUT: Final = 10.0


@operation("pool.initialize_wlb", built=False)
async def initialize_wlb(
    call: Call,
    wlb_url: str,
    wlb_username: str,
    wlb_password: str,
    xenserver_username: str,
    xenserver_password: str,
) -> None:
    """`wlb_url`: host and port. Raises WLB_URL_INVALID, WLB_UNKNOWN_HOST, WLB_CONNECTION_REFUSED, WLB_TIMEOUT."""
    host, port = address(wlb_url)
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise ApiError("WLB_TIMEOUT", TIMEOUT) from None
    except (socket.gaierror, UnicodeError):  # names that cannot be asked for are nobody's either
        raise ApiError("WLB_UNKNOWN_HOST") from None
    except OSError as error:
        reset = error.errno == errno.ECONNRESET
        raise ApiError("WLB_CONNECTION_RESET" if reset else "WLB_CONNECTION_REFUSED") from None
    writer.close()
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


def address(url: str) -> tuple[str, int]:
    """From `host:port` or `[IPv6]:port`. Raises WLB_URL_INVALID [url]."""
    host, _, port = url.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or any(part in host for part in "/ "):
        raise ApiError("WLB_URL_INVALID", url)
    return host, int(port)


def _without_server(message: str) -> None:
    @operation(message, built=False)
    def refuse(call: Call, *arguments: Any) -> None:
        if message.startswith("host."):
            existing(call.store, "host", arguments[0])
        if not call.api.pool()["wlb_url"]:
            raise ApiError("WLB_NOT_INITIALIZED")
        raise ApiError("NOT_IMPLEMENTED", message)


for _name in (
    "host.retrieve_wlb_evacuate_recommendations",
    "pool.deconfigure_wlb",
    "pool.retrieve_wlb_configuration",
    "pool.retrieve_wlb_recommendations",
    "pool.send_wlb_configuration",
):
    _without_server(_name)
