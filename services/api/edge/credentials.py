"""Which proof of identity a request brings, in the order in which they count."""

from __future__ import annotations

import base64
import binascii

from services.api.edge.dispatcher import (
    Basic,
    Certificate,
    Credential,
    HttpRefusal,
    PoolSecret,
    Session,
    Trusted,
)
from services.api.edge.head import Head


def argument(head: Head, name: str) -> str:
    """A cookie or a query argument; the cookie wins. For `session_id`, `task_id`, `subtask_of`, `pool_secret`."""
    return head.cookies().get(name) or head.query().get(name, "")


def credential(head: Head, *, trusted: bool, certificate: bool = False) -> Credential | None:
    """None: there is none. `trusted`, `certificate`: as of the `Caller`.

    An Authorization that is not Basic is refused with 500, as the original does.
    """
    if trusted:
        return Trusted()
    if session := argument(head, "session_id"):
        return Session(session)
    if secret := argument(head, "pool_secret"):
        return PoolSecret(secret)
    authorization = head.headers.get("authorization")
    if authorization is None:
        return Certificate() if certificate else None
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise HttpRefusal(500, f"Authorization by {scheme} is not supported")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise HttpRefusal(500, "Authorization is not base64") from None
    return Basic(user, password) if colon else None
