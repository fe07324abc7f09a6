"""Patches, updates and where they come from."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UNSET_REF,
    UUID,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    names,
    other_config,
    runtime,
    static,
    uuid,
)
from shared.datamodel.roles import POOL_OPERATOR, POOL_OPERATOR_OR_CERT
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, EnumType, SetType

AFTER_APPLY_GUIDANCE = EnumType(
    "after_apply_guidance",
    (
        "restartHVM",
        "restartPV",
        "restartHost",
        "restartXAPI",
    ),
)
LIVEPATCH_STATUS = EnumType(
    "livepatch_status",
    (
        "ok_livepatch_complete",
        "ok_livepatch_incomplete",
        "ok",
    ),
)
ORIGIN = EnumType(
    "origin",
    (
        "remote",
        "bundle",
        "remote_pool",
    ),
)
UPDATE_AFTER_APPLY_GUIDANCE = EnumType(
    "update_after_apply_guidance",
    (
        "restartHVM",
        "restartPV",
        "restartHost",
        "restartXAPI",
    ),
)

POOL_PATCH = declare(
    "pool_patch",
    "",
    since="miami, deprecated ely",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        names("pool_patch", static, since="rio"),
        static("version", STRING, "", EMPTY, since="miami"),
        runtime("filename", STRING, "", EMPTY, since="miami", internal=True),
        runtime("size", INT, "", EMPTY, since="miami"),
        runtime("pool_applied", BOOL, "", EMPTY, since="miami"),
        maintained("host_patches", "host_patch.pool_patch", "", since="miami"),
        runtime("after_apply_guidance", SetType(AFTER_APPLY_GUIDANCE), "", EMPTY, since="miami"),
        static("pool_update", refs.pool_update, "", EMPTY, since="ely"),
        other_config(since="miami"),
    ],
    messages=[
        message("apply", "", {"self": refs.pool_patch, "host": refs.host}, STRING),
        message("pool_apply", "", {"self": refs.pool_patch}),
        message("precheck", "", {"self": refs.pool_patch, "host": refs.host}, STRING),
        message("clean", "", {"self": refs.pool_patch}),
        message("pool_clean", "", {"self": refs.pool_patch}, since="tampa, deprecated ely"),
        message("destroy", "", {"self": refs.pool_patch}),
        message("clean_on_host", "", {"self": refs.pool_patch, "host": refs.host}, since="tampa, deprecated ely"),
    ],
)

POOL_UPDATE = declare(
    "pool_update",
    "",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        names("pool_update", static, since="rio"),
        static("version", STRING, "", EMPTY),
        static("installation_size", INT, "", EMPTY),
        static("key", STRING, "", EMPTY),
        static("after_apply_guidance", SetType(UPDATE_AFTER_APPLY_GUIDANCE), "", EMPTY),
        static("vdi", refs.VDI, "", since="rio"),
        maintained("hosts", "host.updates", ""),
        other_config(since="inverness"),
        static("enforce_homogeneity", BOOL, "", EMPTY, since="inverness"),
    ],
    messages=[
        message("introduce", "", {"vdi": refs.VDI}, refs.pool_update),
        message(
            "precheck",
            "",
            {"self": refs.pool_update, "host": refs.host},
            LIVEPATCH_STATUS,
            forward="hostext:pool_update.precheck",
        ),
        message("apply", "", {"self": refs.pool_update, "host": refs.host}, forward="hostext:pool_update.apply"),
        message("pool_apply", "", {"self": refs.pool_update}),
        message("pool_clean", "", {"self": refs.pool_update}),
        message("destroy", "", {"self": refs.pool_update}),
        message("attach", "", {"self": refs.pool_update, "use_localhost_proxy": Optional(BOOL)}, STRING, hidden=True),
        message("detach", "", {"self": refs.pool_update}, hidden=True),
        message("resync_host", "", {"host": refs.host}, hidden=True),
    ],
)

HOST_PATCH = declare(
    "host_patch",
    "",
    since="rio, deprecated ely",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        names("host_patch", static, since="rio"),
        static("version", STRING, "", since="rio"),
        static("host", refs.host, "", since="rio"),
        runtime("filename", STRING, "", since="rio", internal=True),
        runtime("applied", BOOL, "", since="rio"),
        runtime("timestamp_applied", DATETIME, "", since="rio"),
        runtime("size", INT, "", since="rio"),
        static("pool_patch", refs.pool_patch, "", UNSET_REF, since="miami"),
        other_config(since="miami"),
    ],
    messages=[
        message("destroy", "", {"self": refs.host_patch}, since="rio, deprecated miami"),
        message("apply", "", {"self": refs.host_patch}, STRING, since="rio, deprecated miami"),
    ],
)

REPOSITORY = declare(
    "Repository",
    "",
    since="1.301.0",
    roles=POOL_OPERATOR_OR_CERT,
    fields=[
        UUID,
        names("Repository", since="rio"),
        static("binary_url", STRING, "", EMPTY),
        static("source_url", STRING, "", EMPTY),
        static("update", BOOL, "", EMPTY),
        runtime("hash", STRING, "", EMPTY),
        runtime("up_to_date", BOOL, "", EMPTY, since="1.301.0, deprecated 23.18.0, removed 23.18.0"),
        static("gpgkey_path", STRING, "", EMPTY, since="prototyped 22.12.0"),
        static("origin", ORIGIN, "", "remote", since="prototyped 24.23.0"),
        static("certificate", STRING, "", EMPTY, since="prototyped 25.7.0"),
    ],
    messages=[
        message(
            "introduce",
            "",
            {
                "name_label": STRING,
                "name_description": STRING,
                "binary_url": STRING,
                "source_url": STRING,
                "update": BOOL,
                "gpgkey_path": Optional(STRING),
            },
            refs.Repository,
        ),
        message(
            "introduce_bundle",
            "",
            {"name_label": STRING, "name_description": STRING},
            refs.Repository,
            since="prototyped 24.23.0",
        ),
        message(
            "introduce_remote_pool",
            "",
            {"name_label": STRING, "name_description": STRING, "binary_url": STRING, "certificate": STRING},
            refs.Repository,
            since="prototyped 25.7.0",
        ),
        message("forget", "", {"self": refs.Repository}),
        message("apply", "", {"host": refs.host}, pool_internal=True),
        message("set_gpgkey_path", "", {"self": refs.Repository, "value": STRING}, since="prototyped 22.12.0"),
        message(
            "apply_livepatch",
            "",
            {
                "host": refs.host,
                "component": STRING,
                "base_build_id": STRING,
                "base_version": STRING,
                "base_release": STRING,
                "to_version": STRING,
                "to_release": STRING,
            },
            since="prototyped 22.20.0",
            pool_internal=True,
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    POOL_PATCH,
    POOL_UPDATE,
    HOST_PATCH,
    REPOSITORY,
)
