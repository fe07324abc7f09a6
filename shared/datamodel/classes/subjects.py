"""Who may log in, and what they may do."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, declare, message, names, other_config, runtime, rw, static, uuid
from shared.datamodel.roles import POOL_ADMIN, READ_ONLY, role_ref
from shared.datamodel.types import BOOL, STRING, STRING_SET, SetType

SUBJECT = declare(
    "subject",
    "",
    since="george",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        static("subject_identifier", STRING, "", EMPTY),
        other_config(static),
        runtime("roles", SetType(refs.role), "", [role_ref("pool-admin")], since="midnight-ride", stored_here=True),
    ],
    messages=[
        message("add_to_roles", "", {"self": refs.subject, "role": refs.role}, since="midnight-ride", sync_only=True),
        message(
            "remove_from_roles", "", {"self": refs.subject, "role": refs.role}, since="midnight-ride", sync_only=True
        ),
        message(
            "get_permissions_name_label",
            "",
            {"self": refs.subject},
            STRING_SET,
            since="midnight-ride",
            roles=READ_ONLY,
            sync_only=True,
        ),
    ],
)

ROLE = declare(
    "role",
    "",
    since="midnight-ride",
    roles=READ_ONLY,
    getters_have_effect=True,
    fields=[
        uuid(since="rio"),
        names("role", static),
        static("subroles", SetType(refs.role), "", EMPTY, stored_here=True, maintained_from=("role", "subroles")),
        runtime("is_internal", BOOL, "", EMPTY, since="22.5.0"),
    ],
    messages=[
        message("get_permissions", "", {"self": refs.role}, SetType(refs.role), sync_only=True),
        message("get_permissions_name_label", "", {"self": refs.role}, STRING_SET, sync_only=True),
        message("get_by_permission", "", {"permission": refs.role}, SetType(refs.role), sync_only=True),
        message("get_by_permission_name_label", "", {"label": STRING}, SetType(refs.role), sync_only=True),
    ],
)

USER = declare(
    "user",
    "",
    since="rio, deprecated george",
    roles=POOL_ADMIN,
    gen_events=False,
    default_ctor_dtor=True,
    enumerable=False,
    fields=[
        uuid(since="rio"),
        static("short_name", STRING, "", since="rio"),
        rw("fullname", STRING, "", since="rio"),
        other_config(since="orlando"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    SUBJECT,
    ROLE,
    USER,
)
