"""Secrets, certificates, and other small things that are kept safe."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.classes.enums import CERTIFICATE_PURPOSE
from shared.datamodel.declare import EMPTY, ClassDecl, Optional, declare, message, runtime, rw, static
from shared.datamodel.groups import UUID, names, operations, other_config, uuid
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, READ_ONLY, VM_ADMIN
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, STRING_MAP, EnumType, SetType

CERTIFICATE_TYPE = EnumType("certificate_type", ("ca", "host", "host_internal", "pinned"))
PERSISTENCE_BACKEND = EnumType("persistence_backend", ("xapi",))
VTPM_OPERATIONS = EnumType("vtpm_operations", ("destroy",))

SECRET = declare(
    "secret",
    "A password or the like, kept apart so that others can refer to it.",
    since="midnight-ride",
    roles=POOL_OPERATOR,
    gen_events=False,
    default_ctor_dtor=True,
    object_roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio", get_roles=POOL_OPERATOR),
        rw("value", STRING, "The secret.", since="rio", get_roles=POOL_OPERATOR),
        other_config(since="rio"),
    ],
    messages=[
        message(
            "introduce",
            "Enters a secret with a given uuid.",
            {"uuid": STRING, "value": STRING, "other_config": Optional(STRING_MAP)},
            refs.secret,
            sync_only=True,
            hidden=True,
            secret=True,
        )
    ],
)

BLOB = declare(
    "blob",
    "A piece of binary data kept with an object.",
    since="orlando",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        names("blob", since="rio"),
        runtime("size", INT, "Bytes it has.", since="rio"),
        rw("public", BOOL, "Whether it can be read without logging in.", EMPTY, since="tampa"),
        static("last_updated", DATETIME, "When it was last written.", since="rio"),
        static("mime_type", STRING, "What kind of data it is.", since="rio"),
    ],
    messages=[
        message(
            "create",
            "Makes an empty piece of data.",
            {"mime_type": STRING, "public": Optional(BOOL)},
            refs.blob,
            sync_only=True,
        ),
        message("destroy", "Deletes it.", {"self": refs.blob}, sync_only=True),
    ],
)

CERTIFICATE = declare(
    "Certificate",
    "A certificate that hosts use or trust.",
    since="stockholm",
    roles=READ_ONLY,
    fields=[
        UUID,
        runtime("name", STRING, "Its name, for CA certificates.", EMPTY, since="1.294.0"),
        runtime(
            "type",
            CERTIFICATE_TYPE,
            "What it is: CA, a host's own, or one of those between hosts.",
            "host",
            since="1.294.0",
        ),
        static("host", refs.host, "The host that it identifies.", EMPTY),
        static("not_before", DATETIME, "When its time begins.", EMPTY),
        static("not_after", DATETIME, "When its time ends.", EMPTY),
        static(
            "fingerprint",
            STRING,
            "Its SHA-256 fingerprint; use `fingerprint_sha256`.",
            EMPTY,
            since="stockholm, deprecated 24.19.0",
        ),
        static("fingerprint_sha256", STRING, "Its SHA-256 fingerprint.", EMPTY, since="prototyped 24.20.0"),
        static("fingerprint_sha1", STRING, "Its SHA-1 fingerprint.", EMPTY, since="prototyped 24.20.0"),
        static(
            "purpose",
            SetType(CERTIFICATE_PURPOSE),
            "What it is trusted for; empty for everything.",
            EMPTY,
            since="prototyped 26.13.0",
        ),
    ],
)

VTPM = declare(
    "VTPM",
    "A virtual TPM of a VM.",
    since="prototyped 22.26.0",
    roles=VM_ADMIN,
    fields=[
        uuid(since="rio"),
        operations(VTPM_OPERATIONS, since="rio"),
        static("VM", refs.VM, "The VM it belongs to.", since="rio"),
        runtime("backend", refs.VM, "The VM that provides it.", EMPTY, since="rio"),
        runtime("persistence_backend", PERSISTENCE_BACKEND, "Where its content is kept.", "xapi"),
        static("is_unique", BOOL, "Whether copies of the VM get one of their own instead of this content.", EMPTY),
        runtime("is_protected", BOOL, "Whether its content is encrypted.", EMPTY),
        runtime("contents", refs.secret, "Its content.", internal=True),
    ],
    messages=[
        message("create", "Gives a VM a TPM.", {"vM": refs.VM, "is_unique": BOOL}, refs.VTPM),
        message("destroy", "Takes the TPM away, with all keys in it.", {"self": refs.VTPM}),
        message(
            "get_contents",
            "Reads its content.",
            {"self": refs.VTPM},
            STRING,
            roles=LOCAL_ONLY,
            hidden=True,
            secret=True,
        ),
        message(
            "set_contents",
            "Writes its content.",
            {"self": refs.VTPM, "contents": STRING},
            roles=LOCAL_ONLY,
            hidden=True,
            secret=True,
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (SECRET, BLOB, CERTIFICATE, VTPM)
