"""Secrets, certificates, and other small things that are kept safe."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.enums import CERTIFICATE_PURPOSE
from shared.datamodel.declare import (
    EMPTY,
    UUID,
    ClassDecl,
    Optional,
    declare,
    message,
    names,
    operations,
    other_config,
    runtime,
    rw,
    static,
    uuid,
)
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, READ_ONLY, VM_ADMIN
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, STRING_MAP, EnumType, SetType

CERTIFICATE_TYPE = EnumType(
    "certificate_type",
    (
        "ca",
        "host",
        "host_internal",
        "pinned",
    ),
)
PERSISTENCE_BACKEND = EnumType("persistence_backend", ("xapi",))
VTPM_OPERATIONS = EnumType("vtpm_operations", ("destroy",))

SECRET = declare(
    "secret",
    "",
    since="midnight-ride",
    roles=POOL_OPERATOR,
    gen_events=False,
    default_ctor_dtor=True,
    object_roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio", get_roles=POOL_OPERATOR),
        rw("value", STRING, "", since="rio", get_roles=POOL_OPERATOR),
        other_config(since="rio"),
    ],
    messages=[
        message(
            "introduce",
            "",
            {"uuid": STRING, "value": STRING, "other_config": Optional(STRING_MAP)},
            refs.secret,
            sync_only=True,
            hidden=True,
            secret=True,
        ),
    ],
)

BLOB = declare(
    "blob",
    "",
    since="orlando",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        names("blob", since="rio"),
        runtime("size", INT, "", since="rio"),
        rw("public", BOOL, "", EMPTY, since="tampa"),
        static("last_updated", DATETIME, "", since="rio"),
        static("mime_type", STRING, "", since="rio"),
    ],
    messages=[
        message("create", "", {"mime_type": STRING, "public": Optional(BOOL)}, refs.blob, sync_only=True),
        message("destroy", "", {"self": refs.blob}, sync_only=True),
    ],
)

CERTIFICATE = declare(
    "Certificate",
    "",
    since="stockholm",
    roles=READ_ONLY,
    fields=[
        UUID,
        runtime("name", STRING, "", EMPTY, since="1.294.0"),
        runtime("type", CERTIFICATE_TYPE, "", "host", since="1.294.0"),
        static("host", refs.host, "", EMPTY),
        static("not_before", DATETIME, "", EMPTY),
        static("not_after", DATETIME, "", EMPTY),
        static("fingerprint", STRING, "", EMPTY, since="stockholm, deprecated 24.19.0"),
        static("fingerprint_sha256", STRING, "", EMPTY, since="prototyped 24.20.0"),
        static("fingerprint_sha1", STRING, "", EMPTY, since="prototyped 24.20.0"),
        static("purpose", SetType(CERTIFICATE_PURPOSE), "", EMPTY, since="prototyped 26.13.0"),
    ],
)

VTPM = declare(
    "VTPM",
    "",
    since="prototyped 22.26.0",
    roles=VM_ADMIN,
    fields=[
        uuid(since="rio"),
        operations(VTPM_OPERATIONS, since="rio"),
        static("VM", refs.VM, "", since="rio"),
        runtime("backend", refs.VM, "", EMPTY, since="rio"),
        runtime("persistence_backend", PERSISTENCE_BACKEND, "", "xapi"),
        static("is_unique", BOOL, "", EMPTY),
        runtime("is_protected", BOOL, "", EMPTY),
        runtime("contents", refs.secret, "", internal=True),
    ],
    messages=[
        message("create", "", {"vM": refs.VM, "is_unique": BOOL}, refs.VTPM),
        message("destroy", "", {"self": refs.VTPM}),
        message("get_contents", "", {"self": refs.VTPM}, STRING, roles=LOCAL_ONLY, hidden=True, secret=True),
        message(
            "set_contents", "", {"self": refs.VTPM, "contents": STRING}, roles=LOCAL_ONLY, hidden=True, secret=True
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    SECRET,
    BLOB,
    CERTIFICATE,
    VTPM,
)
