"""Messages of class host that look into it."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.host_connect import host_facts
from services.api.on_hosts import on_host
from services.api.operation import operation
from shared.bus.contract import Empty
from shared.contracts import storage, vm
from shared.contracts.host import (
    KERNEL_LOG,
    POST,
    SYSLOG,
    SYSLOG_DESTINATION,
    TASKS,
    TIMINGS,
    UPLOAD_REPORT,
    Post,
    Syslog,
    Upload,
)
from shared.errors import ApiError

log = logging.getLogger("api.host")


@operation("host.dmesg")
async def dmesg(call: Call, host: str) -> str:
    """What the kernel has said: it is the hypervisor."""
    return (await on_host(call, host, KERNEL_LOG, Empty())).text


def _never_there(message: str, forwarded: bool) -> None:
    """The original has no function for it either."""

    @operation(message, built=False, forwarded=forwarded)
    def refuse(call: Call, *host: str) -> None:
        raise ApiError("NOT_IMPLEMENTED", message)


for _name in ("dmesg_clear", "get_log"):
    _never_there(f"host.{_name}", forwarded=True)
_never_there("host.list_methods", forwarded=False)


@operation("host.get_thread_diagnostics")
async def get_thread_diagnostics(call: Call, host: str) -> str:
    """A line for each thread and asyncio task: where it is."""
    return (await on_host(call, host, TASKS, Empty())).text


@operation("host.get_diagnostic_timing_stats")
async def get_diagnostic_timing_stats(call: Call, host: str, counts: bool) -> dict[str, str]:
    """Message to mean and deviation in seconds, with `counts` after the number of calls."""
    timings = (await on_host(call, host, TIMINGS, Empty())).timings
    return {
        name: (f"{timing.calls} calls, " if counts else "") + f"{timing.mean:.6f} [sd = {timing.deviation:.6f}]"
        for name, timing in timings.items()
    }


@operation("host.get_sm_diagnostics")
async def get_sm_diagnostics(call: Call, host: str) -> str:
    """A line for each datapath: its SR, its disk, its state, and `leaked` if it could not be closed."""
    found = (await on_host(call, host, storage.DATAPATHS, Empty())).datapaths
    return "\n".join(datapath_line(path) for path in found)


def datapath_line(path: storage.Datapath) -> str:
    mode, fate = "RW" if path.writable else "RO", " leaked" if path.leaked else ""
    return f"{path.dp}: SR {path.sr} VDI {path.location} {path.state} {mode}{fate}"


@operation("host.sm_dp_destroy")
async def sm_dp_destroy(call: Call, host: str, dp: str, allow_leak: bool) -> None:
    """With `allow_leak` a datapath that cannot be let go is forgotten by the caller."""
    try:
        await on_host(call, host, storage.CLOSE, storage.Close(dps=[dp]))
    except ApiError as error:
        if not allow_leak or error.code == "HOST_OFFLINE":
            raise
        log.warning("datapath %s stays open: %s", dp, error)


@operation("host.syslog_reconfigure", forwarded=True)
async def syslog_reconfigure(call: Call, host: str) -> None:
    """Has the API's log lines go to `logging[syslog_destination]`, too; they stay where they are."""
    destination = existing(call.store, "host", host)["logging"].get(SYSLOG_DESTINATION, "")
    await on_host(call, host, SYSLOG, Syslog(destination=destination))


@operation("host.bugreport_upload", forwarded=True)
async def bugreport_upload(call: Call, host: str, url: str, options: dict[str, str]) -> None:
    """`options`: http_proxy."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ApiError("INVALID_VALUE", "url", url)
    await on_host(call, host, UPLOAD_REPORT, Upload(url=url, proxy=options.get("http_proxy", "")))


@operation("pool.send_test_post")
async def send_test_post(call: Call, host: str, port: int, body: str) -> str:
    """To a server outside, from the coordinator, over HTTPS; its whole answer."""
    if not 0 < port < 65536:
        raise ApiError("INVALID_VALUE", "port", port)
    return (await on_host(call, call.api.host_ref, POST, Post(host=host, port=port, body=body))).text


@operation("host.refresh_pack_info")
async def refresh_pack_info(call: Call, host: str) -> None:
    """What the host says of its software is written down anew."""
    facts = await on_host(call, host, vm.CAPABILITIES, Empty())
    await call.transact(host_facts(call.store, host, facts))
