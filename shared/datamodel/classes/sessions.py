"""Sessions and the questions asked of the external directory."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, Optional, declare, maintained, message, runtime, static
from shared.datamodel.groups import UUID, other_config
from shared.datamodel.roles import LOCAL_ONLY, POOL_ADMIN, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, DATETIME, STRING, STRING_MAP, STRING_SET

SESSION = declare(
    "session",
    "A client's login: every call is made in one.",
    roles=POOL_ADMIN,
    gen_events=False,
    persist=False,
    enumerable=False,
    fields=[
        UUID,
        runtime("this_host", refs.host, "The host that the session was opened on."),
        runtime("this_user", refs.user, "The user, for local logins only."),
        runtime("last_active", DATETIME, "When the session was last used, to within ten minutes."),
        runtime("pool", BOOL, "Whether another host of the pool opened it."),
        other_config(since="miami"),
        runtime(
            "is_local_superuser",
            BOOL,
            "Whether it may do everything: root, or a host of the pool.",
            EMPTY,
            since="george",
        ),
        runtime(
            "subject", refs.subject, "The subject that logged in through an external directory.", EMPTY, since="george"
        ),
        runtime(
            "validation_time",
            DATETIME,
            "When the directory was last asked whether the subject is still welcome.",
            EMPTY,
            since="george",
        ),
        runtime("auth_user_sid", STRING, "The directory's identifier of the user.", EMPTY, since="george"),
        runtime("auth_user_name", STRING, "The name the user logged in with.", EMPTY, since="midnight-ride"),
        static(
            "rbac_permissions",
            STRING_SET,
            "What the session may do, worked out at login.",
            EMPTY,
            since="midnight-ride",
        ),
        maintained("tasks", "task.session", "Tasks that the session started.", since="midnight-ride"),
        static("parent", refs.session, "The session that this one was opened from.", EMPTY, since="midnight-ride"),
        runtime(
            "originator",
            STRING,
            "What the client calls itself; sessions are limited per originator.",
            EMPTY,
            since="clearwater",
        ),
        runtime(
            "client_certificate", BOOL, "Whether the client proved itself with a certificate.", EMPTY, since="21.2.0"
        ),
    ],
    messages=[
        message(
            "login_with_password",
            "Opens a session for a local or external user.",
            {"uname": STRING, "pwd": STRING, "version": Optional(STRING, "1.1"), "originator": Optional(STRING)},
            refs.session,
            roles=READ_ONLY,
            errors=("SESSION_AUTHENTICATION_FAILED", "HOST_IS_SLAVE"),
            sync_only=True,
            session=False,
            secret=True,
            local_on_member=True,
        ),
        message("logout", "Ends the session.", roles=READ_ONLY, sync_only=True),
        message(
            "change_password",
            "Changes the local superuser's password on every host.",
            {"old_pwd": STRING, "new_pwd": STRING},
            roles=LOCAL_ONLY,
            sync_only=True,
        ),
        message(
            "slave_login",
            "Opens a session for another host of the pool, which knows the pool secret.",
            {"host": refs.host, "psecret": STRING},
            refs.session,
            sync_only=True,
            session=False,
            hidden=True,
            secret=True,
            local_on_member=True,
        ),
        message(
            "slave_local_login",
            "Opens a local session by the pool secret, without the database.",
            {"psecret": STRING},
            refs.session,
            since="miami",
            sync_only=True,
            session=False,
            emergency=True,
            hidden=True,
            secret=True,
        ),
        message(
            "slave_local_login_with_password",
            "Opens a local session for the superuser, without the database.",
            {"uname": STRING, "pwd": STRING},
            refs.session,
            since="miami",
            sync_only=True,
            session=False,
            emergency=True,
            secret=True,
        ),
        message(
            "create_from_db_file",
            "Opens a session on the database in a file, to look into a backup.",
            {"filename": STRING},
            refs.session,
            since="dundee",
            roles=LOCAL_ONLY,
        ),
        message("local_logout", "Ends a local session.", since="miami", sync_only=True, emergency=True),
        message(
            "get_all_subject_identifiers",
            "Identifiers of all external users who are logged in.",
            result=STRING_SET,
            since="george",
            roles=READ_ONLY,
        ),
        message(
            "logout_subject_identifier",
            "Ends all sessions of an external user.",
            {"subject_identifier": STRING},
            since="george",
            roles=POOL_OPERATOR,
        ),
    ],
)

AUTH = declare(
    "auth",
    "Questions to the external directory.",
    since="george",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    messages=[
        message(
            "get_subject_identifier",
            "Finds the identifier of a user or group by name.",
            {"subject_name": STRING},
            STRING,
            sync_only=True,
        ),
        message(
            "get_subject_information_from_identifier",
            "What the directory knows about a user or group.",
            {"subject_identifier": STRING},
            STRING_MAP,
            sync_only=True,
        ),
        message(
            "get_group_membership",
            "Groups that a user or group belongs to, directly or through others.",
            {"subject_identifier": STRING},
            STRING_SET,
            sync_only=True,
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (SESSION, AUTH)
