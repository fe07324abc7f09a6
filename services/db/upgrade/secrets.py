"""Passwords that stood in fields are rows of class secret, to which the fields refer."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterator
from typing import Final

from services.db.upgrade.rule import Surroundings, new_ref
from shared.contracts.db import Change, Create, Update
from shared.store import NULL, Store

PASSWORD: Final = "password"
SECRET: Final = "_secret"


def workload_balancing(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref, pool in store.rows("pool").items():
        password = pool["wlb_password"]
        if password.startswith("OpaqueRef:"):
            continue
        secret = NULL
        if password:
            secret = new_ref()
            yield Create(cls="secret", ref=secret, fields={"value": password, "other_config": {}})
        yield Update(cls="pool", ref=ref, fields={"wlb_password": secret})


def storage_passwords(store: Store, _: Surroundings) -> Iterator[Change]:
    """`...password` of a PBD's configuration is `...password_secret` with the secret's uuid."""
    for ref, pbd in store.rows("PBD").items():
        config: dict[str, str] = {}
        for key, value in pbd["device_config"].items():
            if key.endswith(PASSWORD):
                uuid = str(uuids.uuid4())
                yield Create(cls="secret", ref=new_ref(), fields={"uuid": uuid, "value": value, "other_config": {}})
                config[key + SECRET] = uuid
            else:
                config[key] = value
        yield Update(cls="PBD", ref=ref, fields={"device_config": config})
