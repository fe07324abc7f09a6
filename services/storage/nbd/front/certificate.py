"""The certificate that a host shows to NBD clients: the files are read again when they have changed."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

Files = tuple[str, str]
"""The certificate's with its chain, and its key's, which is not looked at if the first has a key."""

_KEY: Final = b"PRIVATE KEY-----"
_MINIMUM: Final = ssl.TLSVersion.TLSv1_2


class Certificate:
    def __init__(self, files: Files) -> None:
        self.files = files
        self._known: tuple[tuple[int, int], ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError (of which TLS's errors are) for files that cannot be used."""
        certificate, key = self.files
        own = _KEY in Path(certificate).read_bytes()
        state = tuple((status.st_ino, status.st_mtime_ns) for status in map(os.stat, self.files[: 1 if own else 2]))
        if self._context is None or state != self._known:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = _MINIMUM
            context.load_cert_chain(certificate, certificate if own else key)
            self._context, self._known = context, state
        return self._context
