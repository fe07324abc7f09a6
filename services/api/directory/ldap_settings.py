"""What an operator says about LDAP servers, checked. The keys are those of `external_auth_configuration`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from services.api.directory.plugin import Configuration, ServiceError, Tag

PORTS: Final = {"ldap": 389, "ldaps": 636}

KEYS: Final = frozenset(
    {
        *("server", "port", "ldaps", "starttls", "ca_certificates", "ca_file", "timeout"),
        *("user", "pass", "base"),
        *("user_attribute", "user_filter", "group_filter", "id_attribute", "netbios_name"),
    }
)

LONGEST_TIMEOUT: Final = 30


@dataclass(frozen=True, slots=True)
class Server:
    """`port` 0: that of the protocol."""

    host: str
    port: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class LdapSettings:
    """`name`: of the directory, its DNS domain if it has one. `servers`: tried in order.

    `ldaps`: TLS from the first byte; else, with `starttls`, before anything else is said. `user` "": the directory
    answers anybody. `base` "": what the server names as its own. `timeout`: seconds for a connection, and for each
    answer. The four last: "" for what is usual in that kind of directory.
    """

    name: str
    servers: tuple[Server, ...]
    ldaps: bool = True
    starttls: bool = True
    ca_certificates: str = ""
    ca_file: str = ""
    timeout: int = 5
    user: str = ""
    password: str = ""
    base: str = ""
    user_attribute: str = ""
    user_filter: str = ""
    group_filter: str = ""
    id_attribute: str = ""
    netbios_name: str = ""


def settings(name: str, config: Configuration) -> LdapSettings:
    """Raises `ServiceError` for what cannot be meant."""
    unknown = sorted(set(config) - KEYS)
    if unknown:
        raise _wrong(f"unknown configuration keys: {', '.join(unknown)}")
    if not name:
        raise _wrong("the directory needs a service name")
    user, password = config.get("user", ""), config.get("pass", "")
    if bool(user) != bool(password):
        raise ServiceError(Tag.E_CREDENTIALS, "user and pass are given together or not at all")
    port = _number(config, "port", 0, 65535)
    words = config.get("server", name).replace(",", " ").split()
    return LdapSettings(
        name=name,
        servers=tuple(_server(word, port) for word in words),
        ldaps=_flag(config, "ldaps", _scheme(words) != "ldap"),
        starttls=_flag(config, "starttls", True),
        ca_certificates=config.get("ca_certificates", ""),
        ca_file=config.get("ca_file", ""),
        timeout=_number(config, "timeout", 5, LONGEST_TIMEOUT) or 1,
        user=user,
        password=password,
        base=config.get("base", ""),
        user_attribute=_attribute(config, "user_attribute"),
        user_filter=_filter(config, "user_filter"),
        group_filter=_filter(config, "group_filter"),
        id_attribute=_attribute(config, "id_attribute"),
        netbios_name=config.get("netbios_name", ""),
    )


def _wrong(text: str) -> ServiceError:
    return ServiceError(Tag.E_GENERIC, text)


def _scheme(words: list[str]) -> str:
    """Of the servers that are given as URLs; all are to have the same."""
    schemes = {urlsplit(word).scheme for word in words if "://" in word}
    if len(schemes) > 1 or not schemes <= PORTS.keys():
        raise _wrong("servers are given as names, all as ldap:// or all as ldaps://")
    return next(iter(schemes), "")


def _server(word: str, port: int) -> Server:
    try:
        parts = urlsplit(word if "://" in word else f"ldap://{word}")
        found, own = parts.hostname, parts.port
    except ValueError as error:
        raise _wrong(f"{word} is not a server: {error}") from error
    if not found or parts.path not in ("", "/"):
        raise _wrong(f"{word} is not a server")
    return Server(found, own or port)


def _flag(config: Mapping[str, str], key: str, default: bool) -> bool:
    text = config.get(key, "").lower()
    if text not in ("", "true", "false"):
        raise _wrong(f"{key} is true or false, not {text}")
    return default if not text else text == "true"


def _number(config: Mapping[str, str], key: str, default: int, highest: int) -> int:
    text = config.get(key, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= highest):
        raise _wrong(f"{key} is a number from 0 to {highest}")
    return int(text)


def _attribute(config: Mapping[str, str], key: str) -> str:
    text = config.get(key, "")
    if text and not (text.isascii() and text.replace("-", "").isalnum()):
        raise _wrong(f"{key} is the name of an attribute")
    return text


def _filter(config: Mapping[str, str], key: str) -> str:
    text = config.get(key, "")
    if text and not (text.startswith("(") and text.endswith(")")):
        raise _wrong(f"{key} is a filter in parentheses")
    return text
