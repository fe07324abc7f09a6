"""Who may log in, and what they may do."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, declare, message, runtime, rw, static
from shared.datamodel.groups import UUID, names, other_config, uuid
from shared.datamodel.roles import POOL_ADMIN, READ_ONLY, role_ref
from shared.datamodel.types import BOOL, STRING, STRING_MAP, STRING_SET, SetType

SUBJECT = declare(
    "subject",
    "A user or group of the external directory that may log in.",
    since="george",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        static("subject_identifier", STRING, "The directory's identifier, unique in the directory.", EMPTY),
        static("other_config", STRING_MAP, "What the directory said about the subject, such as its name.", EMPTY),
        runtime(
            "roles",
            SetType(refs.role),
            "What the subject may do.",
            [role_ref("pool-admin")],
            since="midnight-ride",
            stored_here=True,
        ),
    ],
    messages=[
        message(
            "add_to_roles",
            "Gives the subject a role.",
            {"self": refs.subject, "role": refs.role},
            since="midnight-ride",
            sync_only=True,
        ),
        message(
            "remove_from_roles",
            "Takes a role away from the subject.",
            {"self": refs.subject, "role": refs.role},
            since="midnight-ride",
            sync_only=True,
        ),
        message(
            "get_permissions_name_label",
            "Names of all permissions that the subject's roles give.",
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
    "A set of permissions, or a single permission.",
    since="midnight-ride",
    roles=READ_ONLY,
    getters_have_effect=True,
    fields=[
        uuid(since="rio"),
        names("role", static),
        static(
            "subroles",
            SetType(refs.role),
            "The permissions that the role consists of.",
            EMPTY,
            stored_here=True,
            maintained_from=("role", "subroles"),
        ),
        runtime(
            "is_internal",
            BOOL,
            "Whether it is for the toolstack's own use: permissions, and roles that nobody is given.",
            EMPTY,
            since="22.5.0",
        ),
    ],
    messages=[
        message(
            "get_permissions",
            "Permissions that the role gives.",
            {"self": refs.role},
            SetType(refs.role),
            sync_only=True,
        ),
        message(
            "get_permissions_name_label",
            "Names of the permissions that the role gives.",
            {"self": refs.role},
            STRING_SET,
            sync_only=True,
        ),
        message(
            "get_by_permission",
            "Roles that give a permission.",
            {"permission": refs.role},
            SetType(refs.role),
            sync_only=True,
        ),
        message(
            "get_by_permission_name_label",
            "Roles that give a permission of this name.",
            {"label": STRING},
            SetType(refs.role),
            sync_only=True,
        ),
    ],
)

USER = declare(
    "user",
    "A user of the pool's own; nothing makes these any more.",
    since="rio, deprecated george",
    parts_since="rio",
    roles=POOL_ADMIN,
    gen_events=False,
    default_ctor_dtor=True,
    enumerable=False,
    fields=[
        UUID,
        static("short_name", STRING, "The name to log in with."),
        rw("fullname", STRING, "The person's name."),
        other_config(since="orlando"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (SUBJECT, ROLE, USER)
