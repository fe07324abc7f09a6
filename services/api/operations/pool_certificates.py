"""Messages of class pool about trusted certificates and revocation lists. None can be installed yet; what is no
certificate is refused as such.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509

from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.operation import operation
from shared.errors import ApiError

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.pem")


def _install(message: str) -> None:
    @operation(message, built=False)
    def install(call: Call, name: str, cert: str) -> None:
        try:
            x509.load_pem_x509_certificate(cert.encode())
        except ValueError:
            raise ApiError("CA_CERTIFICATE_INVALID") from None
        raise ApiError("NOT_IMPLEMENTED", message)


for _name in ("certificate_install", "install_ca_certificate"):
    _install(f"pool.{_name}")


def _uninstall(message: str, kind: str) -> None:
    @operation(message)
    def uninstall(call: Call, name: str, *more: bool) -> None:
        if not _NAME.fullmatch(name):
            raise ApiError(f"{kind}_NAME_INVALID", name)
        raise ApiError(f"{kind}_DOES_NOT_EXIST", name)


_uninstall("pool.crl_uninstall", "CRL")
_uninstall("pool.certificate_uninstall", "CERTIFICATE")
_uninstall("pool.uninstall_ca_certificate", "CERTIFICATE")


@operation("pool.crl_list")
def crl_list(call: Call) -> list[str]:
    return []


@operation("pool.certificate_list")
def certificate_list(call: Call) -> list[str]:
    return [str(row["name"]) for row in call.store.rows("Certificate").values() if row["type"] == "ca"]


@operation("pool.certificate_sync")
def certificate_sync(call: Call) -> None:
    """All hosts have all installed certificates: there are none."""


@operation("host.install_server_certificate", built=False)
def install_server_certificate(
    call: Call, host: str, certificate: str, private_key: str, certificate_chain: str
) -> None:
    require_live(call.store, host)
    if "PRIVATE KEY-----" not in private_key:
        raise ApiError("SERVER_CERTIFICATE_KEY_INVALID")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
