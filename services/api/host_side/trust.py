"""What a host trusts: certificates and revocation lists as files, and the TLS settings made of them.

<folder>/ca/<name>.pem       authorities
<folder>/pinned/<name>.pem   single certificates
<folder>/crl/<name>.pem      revocation lists
<folder>/pool/<host>.pem     what the pool's hosts show each other
<folder>/verify              there while the host checks those it connects to
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from cryptography import x509

from shared.contracts.host import FILE_NAME, Trust, TrustedFile, TrustedFiles
from shared.errors import internal_error


class TrustFolder:
    """Blocking; files are few and small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self) -> TrustedFiles:
        found = [
            TrustedFile(kind=kind, name=path.name, pem=path.read_text())
            for kind in Trust
            for path in sorted((self._folder / kind).glob("*.pem"))
        ]
        return TrustedFiles(files=found)

    def replace(self, wanted: TrustedFiles) -> None:
        """These and no others. New ones first, so that nothing that stays is missing for a moment."""
        for file in wanted.files:
            if not FILE_NAME.fullmatch(file.name):
                raise internal_error(f"{file.name!r} cannot be a file's name")
        for file in wanted.files:
            _write(self._folder / file.kind / file.name, file.pem)
        keep = {(file.kind, file.name) for file in wanted.files}
        for kind in Trust:
            for path in (self._folder / kind).glob("*"):
                if (kind, path.name) not in keep:
                    path.unlink()

    @property
    def verify(self) -> bool:
        return (self._folder / "verify").exists()

    @verify.setter
    def verify(self, value: bool) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if value:
            (self._folder / "verify").touch()
        else:
            (self._folder / "verify").unlink(missing_ok=True)

    def client(self) -> ssl.SSLContext:
        """For connections to servers outside the pool: checked against authorities, pinned certificates and what the
        machine trusts, unless checking is off.
        """
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a pinned certificate need not be an authority's
        for kind in (Trust.CA, Trust.PINNED):
            for path in (self._folder / kind).glob("*.pem"):
                context.load_verify_locations(path)
        return context

    def is_revoked(self, certificate: bytes) -> bool:
        """Whether a revocation list names this certificate (DER). A list counts for those of its own issuer, so one
        does not keep servers out that others vouch for.
        """
        shown = x509.load_der_x509_certificate(certificate)
        for path in (self._folder / Trust.CRL).glob("*.pem"):
            listed = x509.load_pem_x509_crl(path.read_bytes())
            if listed.issuer == shown.issuer and listed.get_revoked_certificate_by_serial_number(shown.serial_number):
                return True
        return False


def _write(path: Path, text: str) -> None:
    """Whole or not at all; a file that holds this already is left alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and path.read_text() == text:
        return
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
