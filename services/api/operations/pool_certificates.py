"""Messages of class pool about what its hosts trust: certificates and revocation lists."""

from __future__ import annotations

import datetime
from typing import Final

from cryptography.hazmat.primitives import hashes

from services.api.call import Call
from services.api.decisions.certificates import authority, is_revocation_list
from services.api.decisions.rows import existing
from services.api.host_side.certificate_rows import fingerprint, new_row
from services.api.on_hosts import called_host, on_host
from services.api.operation import operation
from services.api.trust import change, distribute_pool_certificates, named, send, trusted, with_file, without_file
from shared.bus.contract import Empty
from shared.contracts.db import Change, Delete, Update
from shared.contracts.host import FILE_NAME, SET_TRUSTED, VERIFY, Flag, Trust, TrustedFiles
from shared.contracts.service import ping
from shared.errors import ApiError


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _check_name(kind: str, name: str) -> None:
    """Raises <kind>_NAME_INVALID."""
    if not FILE_NAME.fullmatch(name):
        raise ApiError(f"{kind}_NAME_INVALID", name)


# ---- certificates by name


def _install(message: str) -> None:
    @operation(message)
    async def install(call: Call, name: str, cert: str) -> None:
        certificate = authority(cert, "CA_CERTIFICATE", _now())
        _check_name("CERTIFICATE", name)

        def decide(files: TrustedFiles) -> TrustedFiles:
            if name in named(files, Trust.CA):
                raise ApiError("CERTIFICATE_ALREADY_EXISTS", name)
            return with_file(files, Trust.CA, name, cert)

        await change(call, decide)
        call.on_success.append(new_row(certificate, name=name, type="ca"))


for _name in ("certificate_install", "install_ca_certificate"):
    _install(f"pool.{_name}")


def _rows_named(call: Call, name: str) -> list[Change]:
    rows = call.store.rows("Certificate").items()
    return [Delete(cls="Certificate", ref=ref) for ref, row in rows if row["type"] == "ca" and row["name"] == name]


def _uninstall(message: str) -> None:
    @operation(message)
    async def uninstall(call: Call, name: str, force: bool = False) -> None:
        """With `force` also one that hosts do not have any more."""
        _check_name("CERTIFICATE", name)
        rows = _rows_named(call, name)

        def decide(files: TrustedFiles) -> TrustedFiles:
            if name not in named(files, Trust.CA) and not (force and rows):
                raise ApiError("CERTIFICATE_DOES_NOT_EXIST", name)
            return without_file(files, Trust.CA, name)

        await change(call, decide)
        call.on_success += rows


for _name in ("certificate_uninstall", "uninstall_ca_certificate"):
    _uninstall(f"pool.{_name}")


@operation("pool.certificate_list")
async def certificate_list(call: Call) -> list[str]:
    return sorted(named(await trusted(call), Trust.CA))


@operation("pool.certificate_sync")
async def certificate_sync(call: Call) -> None:
    """Every live host gets all that the coordinator has."""
    async with call.api.turns.of("trust"):
        await send(call, await trusted(call))


@operation("host.sync_data")
async def sync_data(call: Call, host: str) -> None:
    """What the host has from the coordinator besides the database."""
    existing(call.store, "host", host)
    await on_host(call, host, SET_TRUSTED, await trusted(call))


# ---- revocation lists


@operation("pool.crl_install")
async def crl_install(call: Call, name: str, cert: str) -> None:
    _check_name("CRL", name)
    if not is_revocation_list(cert):
        raise ApiError("CRL_CORRUPT", name)

    def decide(files: TrustedFiles) -> TrustedFiles:
        if name in named(files, Trust.CRL):
            raise ApiError("CRL_ALREADY_EXISTS", name)
        return with_file(files, Trust.CRL, name, cert)

    await change(call, decide)


@operation("pool.crl_uninstall")
async def crl_uninstall(call: Call, name: str) -> None:
    _check_name("CRL", name)

    def decide(files: TrustedFiles) -> TrustedFiles:
        if name not in named(files, Trust.CRL):
            raise ApiError("CRL_DOES_NOT_EXIST", name)
        return without_file(files, Trust.CRL, name)

    await change(call, decide)


@operation("pool.crl_list")
async def crl_list(call: Call) -> list[str]:
    return sorted(named(await trusted(call), Trust.CRL))


# ---- certificates by what they are


_KINDS: Final = {"ca": Trust.CA, "pinned": Trust.PINNED}


@operation("pool.install_trusted_certificate")
async def install_trusted_certificate(call: Call, self: str, ca: bool, cert: str, purpose: list[str]) -> None:
    """An authority, or one server's own certificate. The file is named by the fingerprint."""
    existing(call.store, "pool", self)
    certificate = authority(cert, "TRUSTED_CERTIFICATE", _now())
    if not ca and not purpose:
        raise ApiError("CERTIFICATE_LACKS_PURPOSE")
    kind = "ca" if ca else "pinned"
    sha256 = fingerprint(certificate, hashes.SHA256())
    for row in call.store.rows("Certificate").values():
        if row["type"] == kind and row["fingerprint_sha256"] == sha256:
            raise ApiError("TRUSTED_CERTIFICATE_ALREADY_EXISTS", sha256)
    await change(call, lambda files: with_file(files, _KINDS[kind], _by_fingerprint(sha256), cert))
    call.on_success.append(new_row(certificate, type=kind, purpose=list(dict.fromkeys(purpose))))


@operation("pool.uninstall_trusted_certificate")
async def uninstall_trusted_certificate(call: Call, self: str, certificate: str) -> None:
    existing(call.store, "pool", self)
    row = existing(call.store, "Certificate", certificate)
    if row["type"] not in _KINDS:
        raise ApiError("NOT_TRUSTED_CERTIFICATE", certificate)
    name = row["name"] or _by_fingerprint(row["fingerprint_sha256"])
    await change(call, lambda files: without_file(files, _KINDS[row["type"]], name))
    call.on_success.append(Delete(cls="Certificate", ref=certificate))


def _by_fingerprint(fingerprint: str) -> str:
    return f"{fingerprint.replace(':', '').lower()}.pem"


# ---- whether hosts check those they connect to


@operation("pool.enable_tls_verification")
async def enable_tls_verification(call: Call) -> None:
    """Every host has to answer, so that none is left out: HOST_OFFLINE. From then on hosts check the servers outside
    that they connect to; between themselves they use the bus.
    """
    for host in call.store.rows("host"):
        uuid = call.api.uuid_of("host", host)
        await call.api.bus.call(ping("api", VERIFY.scope), Empty(), host=uuid)
    await distribute_pool_certificates(call)
    for row in call.store.rows("host").values():
        await _verify(call, row["uuid"], True)
    call.on_success += [
        Update(cls=cls, ref=ref, fields={"tls_verification_enabled": True})
        for cls in ("pool", "host")
        for ref in call.store.rows(cls)
    ]


async def _verify(call: Call, host: str, value: bool) -> None:
    """`host`: uuid."""
    row = call.store.row("host", call.store.ref_of_uuid("host", host) or "")

    async def undo() -> None:
        await call.api.bus.call(VERIFY, Flag(value=not value), host=host)

    if row is None or row["tls_verification_enabled"] != value:
        call.undo.append(undo)
    await call.api.bus.call(VERIFY, Flag(value=value), host=host)


async def _verify_here(call: Call, value: bool) -> None:
    """On the host that is asked only; it need not reach the coordinator for that."""
    await _verify(call, call.caller.host, value)
    if call.api.is_coordinator:
        fields = {"tls_verification_enabled": value}
        call.on_success.append(Update(cls="host", ref=called_host(call), fields=fields))


@operation("host.emergency_disable_tls_verification")
async def emergency_disable_tls_verification(call: Call) -> None:
    await _verify_here(call, False)


@operation("host.emergency_reenable_tls_verification")
async def emergency_reenable_tls_verification(call: Call) -> None:
    if not call.api.pool()["tls_verification_enabled"]:
        raise ApiError("TLS_VERIFICATION_NOT_ENABLED_IN_POOL")
    await _verify_here(call, True)
