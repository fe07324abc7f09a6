"""Directories in the style of OpenLDAP, 389 and FreeIPA: users and groups by RFC 2307 (bis), RFC 4519, RFC 2798.

A group names its members by `member` or `uniqueMember` (DNs) or by `memberUid` (user names); some servers also write
the user's groups into `memberOf`. Groups may be members of groups, in circles too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from ldap3.utils.conv import escape_filter_chars

from services.api.directory import subject_information as info
from services.api.directory.ldap_client import Conversation, Entry
from services.api.directory.ldap_settings import LdapSettings
from services.api.directory.plugin import ServiceError, Tag

USERS: Final = "(|(objectClass=person)(objectClass=posixAccount)(objectClass=account))"
GROUP_CLASSES: Final = ("groupOfNames", "groupOfUniqueNames", "groupOfMembers", "posixGroup")
GROUPS: Final = "(|" + "".join(f"(objectClass={name})" for name in GROUP_CLASSES) + ")"
_GROUP_CLASSES: Final = frozenset(name.lower() for name in GROUP_CLASSES)

AT_ONCE: Final = 40
"""Members that one search asks for."""

MOST_GROUPS: Final = 10_000

DAY: Final = 86400.0


class RfcSchema:
    def __init__(self, settings: LdapSettings) -> None:
        self._name = settings.name
        self._user = settings.user_attribute or "uid"
        self._id = settings.id_attribute or "entryUUID"
        self._users = settings.user_filter or USERS
        self._groups = settings.group_filter or GROUPS
        self._plain = ("objectClass", self._id, self._user, "cn", "memberOf", "uidNumber", "gidNumber")
        self.attributes = (
            *self._plain,
            *("displayName", "gecos", "mail"),
            *("shadowExpire", "shadowLastChange", "shadowMax", "shadowInactive"),
            *("pwdAccountLockedTime", "pwdEndTime", "pwdReset", "nsAccountLock", "loginDisabled"),
            *("krbPrincipalExpiration", "krbPasswordExpiration"),
        )

    def account(self, settings: LdapSettings) -> str:
        return settings.user

    # ---- whom a name or identifier means

    def user_filter(self, name: str) -> str:
        return f"(&{self._users}({self._user}={escape_filter_chars(self._bare(name))}))"

    def subject_filter(self, name: str) -> str:
        """Of a user or group of that name."""
        bare = escape_filter_chars(self._bare(name))
        return f"(|(&{self._users}({self._user}={bare}))(&{self._groups}(cn={bare})))"

    def identifier_filter(self, identifier: str) -> str:
        return f"({self._id}={escape_filter_chars(identifier)})"

    def _bare(self, name: str) -> str:
        """Without the directory's name, which may stand before or behind."""
        before, backslash, rest = name.partition("\\")
        if backslash and before.lower() == self._name.lower():
            return rest
        rest, at, behind = name.rpartition("@")
        return rest if at and behind.lower() == self._name.lower() else name

    # ---- what an entry says

    def identifier(self, entry: Entry) -> str:
        found = entry.text(self._id)
        if not found:
            raise ServiceError(Tag.E_GENERIC, f"{entry.dn} has no {self._id}, which is what subjects are known by")
        return found

    def information(self, entry: Entry, now: float | None = None) -> dict[str, str]:
        name = entry.text("cn") if _is_group(entry) else entry.text(self._user)
        found = {
            info.NAME: name or entry.dn,
            info.DISPLAY_NAME: entry.text("displayName") or entry.text("cn"),
            info.GECOS: entry.text("gecos") or entry.text("cn"),
            info.UPN: entry.text("mail"),
            info.UID: entry.text("uidNumber"),
            info.GID: entry.text("gidNumber"),
            info.SID: self.identifier(entry),
            info.IS_GROUP: info.flag(_is_group(entry)),
        }
        if not _is_group(entry):
            found.update(account_state(entry, time.time() if now is None else now))
        return {key: value for key, value in found.items() if value}

    # ---- groups

    def groups(self, conversation: Conversation, entry: Entry) -> list[str]:
        """Identifiers of all groups that the entry is in, however far up. Each group is looked at once."""
        found: dict[str, Entry] = {}
        names = [entry.text(self._user)] if not _is_group(entry) else []
        level = [entry]
        while level:
            above: dict[str, Entry] = {}
            for group in self._directly_above(conversation, level, names, found):
                above.setdefault(_key(group.dn), group)
            level = [group for key, group in above.items() if key not in found and key != _key(entry.dn)]
            found.update((_key(group.dn), group) for group in level)
            names = []
            if len(found) > MOST_GROUPS:
                raise ServiceError(Tag.E_GENERIC, f"{entry.dn} is in more than {MOST_GROUPS} groups")
        return [self.identifier(group) for group in found.values()]

    def _directly_above(
        self, conversation: Conversation, level: list[Entry], names: list[str], known: dict[str, Entry]
    ) -> Iterator[Entry]:
        for some in _chunks(level, AT_ONCE):
            dns = [escape_filter_chars(one.dn) for one in some]
            wanted = [f"(member={dn})(uniqueMember={dn})" for dn in dns]
            wanted += [f"(memberUid={escape_filter_chars(name)})" for name in names if name]
            if names:
                wanted += [f"(&(objectClass=posixGroup)(gidNumber={gid}))" for one in some if (gid := _gid(one))]
            yield from conversation.find(f"(&{self._groups}(|{''.join(wanted)}))", self._plain)
        named = {_key(dn): dn for one in level for dn in one.texts("memberOf")}
        for key, dn in named.items():
            if key not in known:
                group = conversation.read(dn, self._plain)
                if group is not None and _is_group(group):
                    yield group


def _key(dn: str) -> str:
    """Of an entry as the server spells it. Another spelling in `memberOf` only costs one more look."""
    return dn.casefold()


def _gid(entry: Entry) -> str:
    return str(number) if (number := entry.number("gidNumber")) is not None else ""


def _is_group(entry: Entry) -> bool:
    return not _GROUP_CLASSES.isdisjoint(name.lower() for name in entry.texts("objectClass"))


def _chunks(items: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


# ---- accounts that are closed


def account_state(entry: Entry, now: float) -> dict[str, str]:
    """By shadow(5), the password policy of OpenLDAP, 389's lock and Kerberos' dates, whichever the entry has.

    `now`: Unix time. A lock of the password policy counts until the server takes it away.
    """
    today = now / DAY
    changed, longest = entry.number("shadowLastChange"), entry.number("shadowMax")
    expires = entry.number("shadowExpire")
    is_old = changed is not None and longest is not None and longest >= 0 and today > changed + longest
    return {
        info.ACCOUNT_DISABLED: info.flag(_is_true(entry, "nsAccountLock") or _is_true(entry, "loginDisabled")),
        info.ACCOUNT_EXPIRED: info.flag(
            (expires is not None and expires >= 0 and today >= expires)
            or _has_passed(entry, "pwdEndTime", now)
            or _has_passed(entry, "krbPrincipalExpiration", now)
        ),
        info.ACCOUNT_LOCKED: info.flag(bool(entry.text("pwdAccountLockedTime"))),
        info.PASSWORD_EXPIRED: info.flag(
            is_old or changed == 0 or _is_true(entry, "pwdReset") or _has_passed(entry, "krbPasswordExpiration", now)
        ),
    }


def _is_true(entry: Entry, name: str) -> bool:
    return entry.text(name).upper() == "TRUE"


def _has_passed(entry: Entry, name: str, now: float) -> bool:
    """Whether that time (X.680 generalized time in UTC) is over; one that cannot be read is."""
    text = entry.text(name)
    if not text:
        return False
    try:
        moment = datetime.strptime(text.partition(".")[0].rstrip("Z"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return True
    return moment.timestamp() <= now
