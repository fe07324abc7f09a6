"""Messages of class host about the certificates that it shows."""

from __future__ import annotations

import datetime

from services.api.call import Call
from services.api.decisions.certificates import check_server_certificate
from services.api.decisions.rows import existing
from services.api.host_side.certificate_rows import differing
from services.api.on_hosts import called_host, on_host
from services.api.operation import operation
from services.api.trust import distribute_pool_certificates
from shared.bus.contract import Empty
from shared.contracts import host as contract
from shared.errors import ApiError


@operation("host.get_server_certificate")
async def get_server_certificate(call: Call, host: str) -> str:
    """PEM: the certificate and its chain."""
    return (await on_host(call, host, contract.SERVER_CERTIFICATES, Empty())).host


@operation("host.install_server_certificate", forwarded=True)
async def install_server_certificate(
    call: Call, host: str, certificate: str, private_key: str, certificate_chain: str
) -> None:
    if call.api.pool()["ha_enabled"]:
        raise ApiError("HA_IS_ENABLED")
    check_server_certificate(certificate, private_key, certificate_chain, datetime.datetime.now(datetime.UTC))
    new = contract.NewServerCertificate(certificate=certificate, private_key=private_key, chain=certificate_chain)
    await on_host(call, host, contract.INSTALL_SERVER_CERTIFICATE, new)
    await _write_down(call, host)


@operation("host.reset_server_certificate", forwarded=True)
async def reset_server_certificate(call: Call, host: str) -> None:
    """A new one that it has signed itself."""
    if call.api.pool()["ha_enabled"]:
        raise ApiError("HA_IS_ENABLED")
    await on_host(call, host, contract.SELF_SIGN, contract.SelfSign(kind=contract.Server.HOST))
    await _write_down(call, host)


@operation("host.emergency_reset_server_certificate")
async def emergency_reset_server_certificate(call: Call) -> None:
    """Of the host that is asked, which need not reach the coordinator for it: the row follows at the next start."""
    reset = contract.SelfSign(kind=contract.Server.HOST)
    await call.api.bus.call(contract.SELF_SIGN, reset, host=call.caller.host)
    if call.api.is_coordinator:
        await _write_down(call, called_host(call))


@operation("host.refresh_server_certificate")
async def refresh_server_certificate(call: Call, host: str) -> None:
    """A new certificate for the other hosts, which are told at once."""
    await on_host(call, host, contract.SELF_SIGN, contract.SelfSign(kind=contract.Server.INTERNAL))
    await _write_down(call, host)
    await distribute_pool_certificates(call)


async def _write_down(call: Call, host: str) -> None:
    uuid = existing(call.store, "host", host)["uuid"]
    shown = await on_host(call, host, contract.SERVER_CERTIFICATES, Empty())
    await call.transact(differing(call.store, uuid, shown))
