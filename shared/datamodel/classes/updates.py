"""Patches, updates and where they come from."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UNSET_REF,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    runtime,
    setter,
    static,
)
from shared.datamodel.groups import UUID, names, other_config, uuid
from shared.datamodel.roles import POOL_OPERATOR, POOL_OPERATOR_OR_CERT
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, EnumType, SetType

AFTER_APPLY_GUIDANCE = EnumType("after_apply_guidance", ("restartHVM", "restartPV", "restartHost", "restartXAPI"))
LIVEPATCH_STATUS = EnumType("livepatch_status", ("ok_livepatch_complete", "ok_livepatch_incomplete", "ok"))
ORIGIN = EnumType("origin", ("remote", "bundle", "remote_pool"))
UPDATE_AFTER_APPLY_GUIDANCE = EnumType(
    "update_after_apply_guidance", ("restartHVM", "restartPV", "restartHost", "restartXAPI")
)

POOL_PATCH = declare(
    "pool_patch",
    "A patch of the old kind.",
    since="miami, deprecated ely",
    parts_since="miami",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        names("patch", static, since="rio"),
        static("version", STRING, "Its version.", EMPTY),
        runtime("filename", STRING, "Its file on the coordinator.", EMPTY, internal=True),
        runtime("size", INT, "Bytes it has.", EMPTY),
        runtime("pool_applied", BOOL, "Whether every host has it.", EMPTY),
        maintained("host_patches", "host_patch.pool_patch", "What it is on each host."),
        runtime("after_apply_guidance", SetType(AFTER_APPLY_GUIDANCE), "What to do after applying it.", EMPTY),
        static("pool_update", refs.pool_update, "The update that it really is.", EMPTY, since="ely"),
        other_config(),
    ],
    messages=[
        message(
            "apply",
            "Applies it to a host; answers what its script said.",
            {"self": refs.pool_patch, "host": refs.host},
            STRING,
            since="miami, deprecated ely",
        ),
        message("pool_apply", "Applies it to every host.", {"self": refs.pool_patch}, since="miami, deprecated ely"),
        message(
            "precheck",
            "Checks whether it could be applied to a host.",
            {"self": refs.pool_patch, "host": refs.host},
            STRING,
            since="miami, deprecated ely",
        ),
        message(
            "clean", "Deletes its file on the coordinator.", {"self": refs.pool_patch}, since="miami, deprecated ely"
        ),
        message(
            "pool_clean", "Deletes its file on every host.", {"self": refs.pool_patch}, since="tampa, deprecated ely"
        ),
        message("destroy", "Removes it, if no host has it.", {"self": refs.pool_patch}, since="miami, deprecated ely"),
        message(
            "clean_on_host",
            "Deletes its file on a host.",
            {"self": refs.pool_patch, "host": refs.host},
            since="tampa, deprecated ely",
        ),
    ],
)

POOL_UPDATE = declare(
    "pool_update",
    "An update that comes as a disk.",
    since="ely",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        names("update", static, since="rio"),
        static("version", STRING, "Its version.", EMPTY),
        static("installation_size", INT, "Bytes it takes when installed.", EMPTY),
        static("key", STRING, "The key that signed it.", EMPTY),
        static("after_apply_guidance", SetType(UPDATE_AFTER_APPLY_GUIDANCE), "What to do after applying it.", EMPTY),
        static("vdi", refs.VDI, "The disk that it is on.", since="rio"),
        maintained("hosts", "host.updates", "Hosts that have it."),
        other_config(since="inverness"),
        static("enforce_homogeneity", BOOL, "Whether all hosts must have it or none.", EMPTY, since="inverness"),
    ],
    messages=[
        message("introduce", "Enters the update that is on a disk.", {"vdi": refs.VDI}, refs.pool_update),
        message(
            "precheck",
            "Checks whether it could be applied to a host.",
            {"self": refs.pool_update, "host": refs.host},
            LIVEPATCH_STATUS,
            forward="hostext:pool_update.precheck",
        ),
        message(
            "apply",
            "Applies it to a host.",
            {"self": refs.pool_update, "host": refs.host},
            forward="hostext:pool_update.apply",
        ),
        message("pool_apply", "Applies it to every host.", {"self": refs.pool_update}),
        message("pool_clean", "Deletes its disk.", {"self": refs.pool_update}),
        message("destroy", "Removes it, if no host has it.", {"self": refs.pool_update}),
        message(
            "attach",
            "Makes its files available to a host; answers where.",
            {"self": refs.pool_update, "use_localhost_proxy": Optional(BOOL)},
            STRING,
            hidden=True,
        ),
        message("detach", "Ends making its files available.", {"self": refs.pool_update}, hidden=True),
        message("resync_host", "Brings a host's list of updates up to date.", {"host": refs.host}, hidden=True),
    ],
)

HOST_PATCH = declare(
    "host_patch",
    "A patch of the old kind on a host.",
    since="rio, deprecated ely",
    parts_since="rio",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        names("patch", static),
        static("version", STRING, "Its version."),
        static("host", refs.host, "The host."),
        runtime("filename", STRING, "Its file on the host.", internal=True),
        runtime("applied", BOOL, "Whether the host has it."),
        runtime("timestamp_applied", DATETIME, "When it was applied."),
        runtime("size", INT, "Bytes it has."),
        static("pool_patch", refs.pool_patch, "The patch that it is.", UNSET_REF, since="miami"),
        other_config(since="miami"),
    ],
    messages=[
        message(
            "destroy",
            "Removes it; only its disk space is freed.",
            {"self": refs.host_patch},
            since="rio, deprecated miami",
        ),
        message(
            "apply",
            "Applies it; use `pool_patch.apply`.",
            {"self": refs.host_patch},
            STRING,
            since="rio, deprecated miami",
        ),
    ],
)

REPOSITORY = declare(
    "Repository",
    "A place that updates come from.",
    since="1.301.0",
    roles=POOL_OPERATOR_OR_CERT,
    fields=[
        UUID,
        names("repository", since="rio"),
        static("binary_url", STRING, "Address of the packages.", EMPTY),
        static("source_url", STRING, "Address of the sources.", EMPTY),
        static("update", BOOL, "Whether it offers updates, and not only new packages.", EMPTY),
        runtime("hash", STRING, "Hash of what it offers now.", EMPTY),
        runtime(
            "up_to_date",
            BOOL,
            "Whether all hosts have what it offers.",
            EMPTY,
            since="1.301.0, deprecated 23.18.0, removed 23.18.0",
        ),
        static("gpgkey_path", STRING, "The key that its packages are signed with.", EMPTY, since="prototyped 22.12.0"),
        static("origin", ORIGIN, "What kind of place it is.", "remote", since="prototyped 24.23.0"),
        static("certificate", STRING, "The certificate of the pool that offers it.", EMPTY, since="prototyped 25.7.0"),
    ],
    messages=[
        message(
            "introduce",
            "Enters a repository on the network.",
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
            "Enters a repository that is uploaded as a bundle.",
            {"name_label": STRING, "name_description": STRING},
            refs.Repository,
            since="prototyped 24.23.0",
        ),
        message(
            "introduce_remote_pool",
            "Enters a repository that another pool offers.",
            {"name_label": STRING, "name_description": STRING, "binary_url": STRING, "certificate": STRING},
            refs.Repository,
            since="prototyped 25.7.0",
        ),
        message("forget", "Removes it.", {"self": refs.Repository}),
        message("apply", "Updates a host from it.", {"host": refs.host}, pool_internal=True),
        setter("gpgkey_path", "Sets the key that its packages are signed with."),
        message(
            "apply_livepatch",
            "Applies a live patch to a host.",
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

CLASSES: tuple[ClassDecl, ...] = (POOL_PATCH, POOL_UPDATE, HOST_PATCH, REPOSITORY)
