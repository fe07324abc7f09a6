"""The directories that the tests ask: the same people, once in the style of OpenLDAP and once of Active Directory.

alice   in operators
bob     in night-shift, which is in operators
carol   in admins by her user name alone (posixGroup), and in the primary group staff
dave    in no group
ring    operators and circle are members of each other
"""

from __future__ import annotations

import base64

from services.api.directory.ad_schema import sid_bytes
from tests.support.slapd import SUFFIX

PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
NAMES = ("alice", "bob", "carol", "dave")
READER = f"cn=reader,{SUFFIX}"
READER_PASSWORD = "the reader's"

DOMAIN = "S-1-5-21-1000-2000-3000"
SIDS = {"alice": 1101, "bob": 1102, "carol": 1103, "dave": 1104, "operators": 1201, "night-shift": 1202}
SIDS.update({"circle": 1203, "admins": 1204, "domain-users": 513})


def password(name: str) -> str:
    return f"{name}'s päss*word"


def user(name: str) -> str:
    return f"uid={name},{PEOPLE}"


def group(name: str) -> str:
    return f"cn={name},{GROUPS}"


def sid(name: str) -> str:
    return f"{DOMAIN}-{SIDS[name]}"


def _entry(dn: str, *lines: str) -> str:
    return "\n".join((f"dn: {dn}", *lines)) + "\n"


def _roots() -> list[str]:
    return [
        _entry(SUFFIX, "objectClass: dcObject", "objectClass: organization", "dc: example", "o: Example"),
        _entry(PEOPLE, "objectClass: organizationalUnit", "ou: people"),
        _entry(GROUPS, "objectClass: organizationalUnit", "ou: groups"),
        _entry(
            READER,
            "objectClass: organizationalRole",
            "objectClass: simpleSecurityObject",
            "cn: reader",
            f"userPassword: {READER_PASSWORD}",
        ),
    ]


def _password_line(name: str) -> str:
    return f"userPassword:: {base64.b64encode(password(name).encode()).decode()}"


def openldap() -> str:
    """LDIF of a directory with RFC 2307 users, groups of names, of unique names and of user names."""
    users = [
        _entry(
            user(name),
            "objectClass: inetOrgPerson",
            "objectClass: posixAccount",
            "objectClass: shadowAccount",
            f"uid: {name}",
            f"cn: {name.title()} Example",
            f"sn: {name.title()}",
            f"mail: {name}@example.test",
            f"uidNumber: {2000 + number}",
            f"gidNumber: {500 if name == 'carol' else 100}",
            f"homeDirectory: /home/{name}",
            _password_line(name),
        )
        for number, name in enumerate(NAMES)
    ]
    groups = [
        _names_group("operators", user("alice"), group("night-shift"), group("circle")),
        _entry(group("night-shift"), "objectClass: groupOfUniqueNames", f"uniqueMember: {user('bob')}"),
        _names_group("circle", group("operators")),
        _entry(group("admins"), "objectClass: posixGroup", "gidNumber: 501", "memberUid: carol"),
        _entry(group("staff"), "objectClass: posixGroup", "gidNumber: 500"),
    ]
    return "\n".join([*_roots(), *users, *groups])


def _names_group(name: str, *members: str) -> str:
    return _entry(group(name), "objectClass: groupOfNames", *(f"member: {member}" for member in members))


def active_directory() -> str:
    """LDIF of the same people with what Active Directory keeps of them."""
    users = [
        _entry(
            user(name),
            "objectClass: user",
            f"cn: {name.title()} Example",
            f"sn: {name.title()}",
            f"sAMAccountName: {name}",
            f"userPrincipalName: {name}@example.test",
            "userAccountControl: 512",
            "accountExpires: 9223372036854775807",
            "pwdLastSet: 132500000000000000",
            "primaryGroupID: 513",
            _sid_line(name),
            _password_line(name),
        )
        for name in NAMES
    ]
    groups = [_ad_group(name, *members) for name, members in MEMBERS.items()]
    return "\n".join([*_roots(), *users, *groups])


def _ad_group(name: str, *members: str) -> str:
    lines = (f"member: {member}" for member in members)
    return _entry(group(name), "objectClass: group", f"sAMAccountName: {name}", _sid_line(name), *lines)


def raw_sid(name: str) -> bytes:
    return sid_bytes(sid(name))


def _sid_line(name: str) -> str:
    return f"objectSid:: {base64.b64encode(raw_sid(name)).decode()}"


MEMBERS = {
    "operators": [user("alice"), group("night-shift"), group("circle")],
    "night-shift": [user("bob")],
    "circle": [group("operators")],
    "admins": [user("carol")],
    "domain-users": [],
}
"""Of the groups of Active Directory."""
