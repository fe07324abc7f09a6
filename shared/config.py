"""A service's configuration: one TOML file, a few environment overrides.

    service = "vm"
    state_dir = "/var/lib/xapi/vm"
    pool = "<pool uuid>"
    [bus]
    url = "amqp://user:secret@127.0.0.1:5672/pool"
    [[hosts]]
    uuid = "..."
    name = "host1"
    address = "127.0.0.11"
    [options]
    # what this service alone knows; see the `Options` record of its package

`XAPI_LOG_LEVEL`, `XAPI_STATE_DIR`, `XAPI_BUS_URL` and `XAPI_OPTION_<NAME>` override the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec


class ConfigError(Exception):
    """The configuration cannot be used; the text says which setting and why."""


class BusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host that this process serves. `address`: where its API listens. `simulated`: has no machine behind it."""

    uuid: str
    name: str
    address: str
    simulated: bool = False


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`hosts`: usually one; the simulator's processes serve many. `trace_ratio`: share of API calls traced unasked."""

    service: str
    state_dir: str
    bus: BusConfig
    pool: str = ""
    hosts: list[HostConfig] = []
    log_level: str = "info"
    trace_ratio: float = 0.0
    options: dict[str, Any] = {}

    @property
    def state(self) -> Path:
        return Path(self.state_dir)


Options = TypeVar("Options", bound=msgspec.Struct)


def load(path: Path, environment: dict[str, str] | None = None) -> Config:
    """Reads and checks the file. Raises `ConfigError`."""
    env = dict(os.environ) if environment is None else environment
    try:
        raw = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name, key in (("XAPI_LOG_LEVEL", "log_level"), ("XAPI_STATE_DIR", "state_dir")):
        if name in env:
            raw[key] = env[name]
    if "XAPI_BUS_URL" in env:
        raw["bus"] = {"url": env["XAPI_BUS_URL"]}
    prefix = "XAPI_OPTION_"
    overrides = {key[len(prefix) :].lower(): value for key, value in env.items() if key.startswith(prefix)}
    raw["options"] = {**raw.get("options", {}), **overrides}
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error


def options(config: Config, kind: type[Options]) -> Options:
    """The service's own options, checked. Texts from the environment are converted. Raises `ConfigError`."""
    try:
        return msgspec.convert(config.options, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"[options] of {config.service}: {error}") from error
