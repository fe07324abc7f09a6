"""Active Directory. Users and groups are known by their SID; the server itself finds groups of groups."""

from __future__ import annotations

import struct
import time
from typing import Final

from ldap3.utils.conv import escape_bytes, escape_filter_chars

from services.api.directory import subject_information as info
from services.api.directory.ldap_client import Conversation, Entry
from services.api.directory.ldap_settings import LdapSettings
from services.api.directory.plugin import ServiceError, SubjectNotFound, Tag

USERS: Final = "(&(objectClass=user)(!(objectClass=computer)))"
GROUPS: Final = "(objectClass=group)"

IN_CHAIN: Final = "1.2.840.113556.1.4.1941"
"""Matching rule: the member, or a group that it is in, and so on."""

ACCOUNT_DISABLED: Final = 0x2
LOCKOUT: Final = 0x10
DONT_EXPIRE_PASSWORD: Final = 0x10000
PASSWORD_EXPIRED: Final = 0x800000

NEVER: Final = (0, 0x7FFFFFFFFFFFFFFF)
EPOCH: Final = 11644473600
"""Seconds from 1601, where the directory's times begin, to 1970."""

TICKS: Final = 10_000_000
"""In a second."""


class AdSchema:
    attributes: Final = (
        *("objectClass", "objectSid", "sAMAccountName", "userPrincipalName", "cn", "displayName", "primaryGroupID"),
        *("uidNumber", "gidNumber", "userAccountControl", "msDS-User-Account-Control-Computed"),
        *("accountExpires", "lockoutTime", "pwdLastSet"),
    )

    def __init__(self, settings: LdapSettings) -> None:
        self._domain = settings.name.lower()
        self._short = settings.netbios_name or settings.name.partition(".")[0].upper()
        self._users = settings.user_filter or USERS
        self._groups = settings.group_filter or GROUPS

    def account(self, settings: LdapSettings) -> str:
        """The pool's own user by principal name, unless it is given in full."""
        is_full = not settings.user or any(mark in settings.user for mark in "@\\=")
        return settings.user if is_full else f"{settings.user}@{settings.name}"

    # ---- whom a name or identifier means

    def user_filter(self, name: str) -> str:
        """`DOMAIN\\user`, `user@domain`, another principal name, or the user's short name. Raises `SubjectNotFound` for
        users of another domain.
        """
        return f"(&{self._users}{self._named(name)})"

    def subject_filter(self, name: str) -> str:
        return f"(&(|{self._users}{self._groups}){self._named(name)})"

    def _named(self, name: str) -> str:
        domain, backslash, rest = name.partition("\\")
        if backslash:
            if domain.lower() not in (self._domain, self._short.lower()):
                raise SubjectNotFound(f"{domain} is not the domain of this pool")
            return f"(sAMAccountName={escape_filter_chars(rest)})"
        short, at, behind = name.rpartition("@")
        principal = name if at else f"{name}@{self._domain}"
        if not at:
            short = name
        elif behind.lower() != self._domain:
            return f"(userPrincipalName={escape_filter_chars(principal)})"
        return f"(|(sAMAccountName={escape_filter_chars(short)})(userPrincipalName={escape_filter_chars(principal)}))"

    def identifier_filter(self, identifier: str) -> str:
        return f"(objectSid={escape_bytes(sid_bytes(identifier))})"

    # ---- what an entry says

    def identifier(self, entry: Entry) -> str:
        found = entry.attributes.get("objectsid")
        if not found:
            raise ServiceError(Tag.E_GENERIC, f"{entry.dn} has no objectSid")
        return sid_text(found[0])

    def information(self, entry: Entry, now: float | None = None) -> dict[str, str]:
        is_group = "group" in (name.lower() for name in entry.texts("objectClass"))
        found = {
            info.NAME: f"{self._short}\\{entry.text('sAMAccountName') or entry.text('cn')}",
            info.DISPLAY_NAME: entry.text("displayName"),
            info.GECOS: entry.text("displayName") or entry.text("cn"),
            info.UPN: entry.text("userPrincipalName"),
            info.UID: entry.text("uidNumber"),
            info.GID: entry.text("gidNumber"),
            info.SID: self.identifier(entry),
            info.IS_GROUP: info.flag(is_group),
        }
        if not is_group:
            found.update(account_state(entry, time.time() if now is None else now))
        return {key: value for key, value in found.items() if value}

    # ---- groups

    def groups(self, conversation: Conversation, entry: Entry) -> list[str]:
        """Identifiers of all groups that the entry is in. The primary group is in no list of members."""
        found: dict[str, None] = dict.fromkeys(self._above(conversation, entry))
        rid = entry.number("primaryGroupID")
        if rid is not None:
            primary = f"{self.identifier(entry).rpartition('-')[0]}-{rid}"
            found[primary] = None
            for group in conversation.find(f"(&{GROUPS}{self.identifier_filter(primary)})", ("objectSid",)):
                found.update(dict.fromkeys(self._above(conversation, group)))
        return list(found)

    def _above(self, conversation: Conversation, entry: Entry) -> list[str]:
        wanted = f"(&{self._groups}(member:{IN_CHAIN}:={escape_filter_chars(entry.dn)}))"
        return [self.identifier(group) for group in conversation.find(wanted, ("objectSid",))]


# ---- accounts that are closed


def account_state(entry: Entry, now: float) -> dict[str, str]:
    """`now`: Unix time. The computed flags know lockouts that are over and the domain's age of passwords; a server that
    does not compute them leaves `lockoutTime`.
    """
    control = entry.number("userAccountControl") or 0
    computed = entry.number("msDS-User-Account-Control-Computed")
    expires = entry.number("accountExpires") or 0
    must_change = entry.number("pwdLastSet") == 0 and not control & DONT_EXPIRE_PASSWORD
    is_locked = bool(computed & LOCKOUT) if computed is not None else bool(entry.number("lockoutTime"))
    return {
        info.ACCOUNT_DISABLED: info.flag(bool(control & ACCOUNT_DISABLED)),
        info.ACCOUNT_EXPIRED: info.flag(expires not in NEVER and expires / TICKS - EPOCH <= now),
        info.ACCOUNT_LOCKED: info.flag(is_locked),
        info.PASSWORD_EXPIRED: info.flag(must_change or bool((computed or 0) & PASSWORD_EXPIRED)),
    }


# ---- security identifiers: a revision, an authority of six bytes, and 32-bit numbers


def sid_text(raw: bytes) -> str:
    """`S-1-5-...`. Raises `ServiceError`."""
    if len(raw) < 8 or len(raw) != 8 + 4 * raw[1]:
        raise ServiceError(Tag.E_GENERIC, "an objectSid is not a security identifier")
    numbers = struct.unpack(f"<{raw[1]}I", raw[8:])
    return "-".join(("S", str(raw[0]), str(int.from_bytes(raw[2:8], "big")), *map(str, numbers)))


def sid_bytes(text: str) -> bytes:
    """Raises `SubjectNotFound`: what is no identifier is nobody's."""
    try:
        letter, revision, authority, *rest = text.split("-")
        if letter != "S" or len(rest) > 15:
            raise ValueError(text)
        head = bytes((int(revision), len(rest))) + int(authority).to_bytes(6, "big")
        return head + struct.pack(f"<{len(rest)}I", *map(int, rest))
    except (ValueError, OverflowError, struct.error) as error:
        raise SubjectNotFound(f"{text[:100]} is not a security identifier") from error
