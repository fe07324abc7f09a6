"""Secrets of the pool, for services that need the value itself: passwords are never kept outside the database."""

from __future__ import annotations

from shared.bus.contract import Method, Record


class SecretId(Record, frozen=True):
    uuid: str


class SecretValue(Record, frozen=True):
    value: str


SECRET_VALUE = Method(
    "api",
    "secret_value",
    SecretId,
    SecretValue,
    "What a secret holds, as the host's API process knows it.",
    timeout=10,
    errors=("UUID_INVALID",),
)
