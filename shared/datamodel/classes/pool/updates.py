"""Updates, licences and telemetry of the pool."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.pool.enums import UPDATE_SYNC_FREQUENCY
from shared.datamodel.declare import MessageDecl, Optional, message, setter
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR_OR_CERT, READ_ONLY
from shared.datamodel.types import BOOL, INT, STRING, STRING_MAP, STRING_SET, SetType

MESSAGES: tuple[MessageDecl, ...] = (
    message(
        "get_license_state",
        "Edition and expiry of the pool: the least of its hosts'.",
        {"self": refs.pool},
        STRING_MAP,
        since="clearwater",
        roles=READ_ONLY,
    ),
    message(
        "apply_edition", "Gives every host this edition.", {"self": refs.pool, "edition": STRING}, since="clearwater"
    ),
    message(
        "has_extension",
        "Whether every host has this extension.",
        {"self": refs.pool, "name": STRING},
        BOOL,
        since="dundee",
        roles=POOL_ADMIN,
    ),
    setter("repositories", "Chooses the repositories to update from.", roles=POOL_OPERATOR_OR_CERT),
    message(
        "add_repository",
        "Adds a repository to update from.",
        {"self": refs.pool, "value": refs.Repository},
        since="1.301.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "remove_repository",
        "Stops updating from a repository.",
        {"self": refs.pool, "value": refs.Repository},
        since="1.301.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "sync_updates",
        "Fetches the enabled repositories' updates; answers a hash of what there is now.",
        {
            "self": refs.pool,
            "force": BOOL,
            "token": Optional(STRING),
            "token_id": Optional(STRING),
            "username": Optional(STRING),
            "password": Optional(STRING),
        },
        STRING,
        since="1.329.0, changed 25.7.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "check_update_readiness",
        "What keeps hosts from being updated, for each object in the way.",
        {"self": refs.pool, "requires_reboot": BOOL},
        SetType(STRING_SET),
        since="1.304.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "configure_repository_proxy",
        "Sets the proxy for reaching repositories.",
        {"self": refs.pool, "url": STRING, "username": STRING, "password": STRING},
        since="21.3.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    message(
        "disable_repository_proxy",
        "Reaches repositories without a proxy.",
        {"self": refs.pool},
        since="21.4.0",
        roles=POOL_OPERATOR_OR_CERT,
    ),
    setter("telemetry_next_collection", "Sets when telemetry is sent next.", roles=POOL_ADMIN),
    message(
        "reset_telemetry_uuid",
        "Sends telemetry under a new identifier from now on.",
        {"self": refs.pool},
        since="prototyped 23.9.0",
        roles=POOL_ADMIN,
    ),
    message(
        "configure_update_sync",
        "Sets how often and on which day updates are fetched.",
        {"self": refs.pool, "update_sync_frequency": UPDATE_SYNC_FREQUENCY, "update_sync_day": INT},
        since="prototyped 23.18.0",
    ),
    setter("update_sync_enabled", "Turns fetching updates by the clock on or off."),
)
