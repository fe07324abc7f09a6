"""Passwords in the settings of a device: they are kept as secrets, of which only the uuid is seen (storage 4.1)."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable, Mapping
from typing import Final

from services.api.decisions.rows import Rows, existing
from shared.contracts.db import Change, Create, Delete
from shared.errors import ApiError

PASSWORD: Final = "password"
SECRET: Final = "_secret"


def _new(value: str) -> tuple[str, Change]:
    uuid = str(uuids.uuid4())
    fields = {"uuid": uuid, "value": value, "other_config": {}}
    return uuid, Create(cls="secret", ref=f"OpaqueRef:{uuids.uuid4()}", fields=fields)


def hidden(config: Mapping[str, str]) -> tuple[dict[str, str], list[Change]]:
    """The settings with a secret's uuid, as `..password_secret`, for each `..password`; and the rows of the secrets."""
    shown: dict[str, str] = {}
    secrets: list[Change] = []
    for key, value in config.items():
        if key.endswith(PASSWORD):
            shown[key + SECRET], secret = _new(value)
            secrets.append(secret)
        else:
            shown[key] = value
    return shown, secrets


def copied(rows: Rows, config: Mapping[str, str], fresh: Iterable[Change] = ()) -> tuple[dict[str, str], list[Change]]:
    """The settings with secrets of their own: each PBD has its own, and takes them along when it goes. `fresh`:
    secrets that are about to be made.

    Raises UUID_INVALID for a secret that is not there.
    """
    values = {change.fields["uuid"]: change.fields["value"] for change in fresh if isinstance(change, Create)}
    own = dict(config)
    secrets: list[Change] = []
    for key in _keys(config):
        value = values.get(config[key])
        own[key], secret = _new(value if value is not None else _value(rows, config[key]))
        secrets.append(secret)
    return own, secrets


def dropped(rows: Rows, *configs: Mapping[str, str]) -> list[Change]:
    """What removes the secrets that the settings name; one that is gone is fine."""
    named = {config[key] for config in configs for key in _keys(config)}
    return [Delete(cls="secret", ref=ref) for ref, row in rows.rows("secret").items() if row["uuid"] in named]


def told(rows: Rows, config: Mapping[str, str]) -> dict[str, str]:
    """The settings with the passwords themselves beside the secrets, for plug-ins that cannot look secrets up.

    Raises UUID_INVALID for a secret that is not there.
    """
    return {**config, **{key.removesuffix(SECRET): _value(rows, config[key]) for key in _keys(config)}}


def untold(config: Mapping[str, str]) -> dict[str, str]:
    """The settings that a plug-in has completed, without passwords that have a secret."""
    return {key: value for key, value in config.items() if key + SECRET not in config}


def is_secret(key: str) -> bool:
    return key.endswith(PASSWORD + SECRET)


def _keys(config: Mapping[str, str]) -> list[str]:
    return [key for key in config if is_secret(key)]


def _value(rows: Rows, uuid: str) -> str:
    for ref, row in rows.rows("secret").items():
        if row["uuid"] == uuid:
            return str(existing(rows, "secret", ref)["value"])
    raise ApiError("UUID_INVALID", "secret", uuid)
