"""Sessions and the questions asked of the external directory."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UUID,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    other_config,
    runtime,
    static,
)
from shared.datamodel.roles import LOCAL_ONLY, POOL_ADMIN, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, DATETIME, STRING, STRING_MAP, STRING_SET

SESSION = declare(
    "session",
    "",
    roles=POOL_ADMIN,
    gen_events=False,
    persist=False,
    enumerable=False,
    fields=[
        UUID,
        runtime("this_host", refs.host, ""),
        runtime("this_user", refs.user, ""),
        runtime("last_active", DATETIME, ""),
        runtime("pool", BOOL, ""),
        other_config(since="miami"),
        runtime("is_local_superuser", BOOL, "", EMPTY, since="george"),
        runtime("subject", refs.subject, "", EMPTY, since="george"),
        runtime("validation_time", DATETIME, "", EMPTY, since="george"),
        runtime("auth_user_sid", STRING, "", EMPTY, since="george"),
        runtime("auth_user_name", STRING, "", EMPTY, since="midnight-ride"),
        static("rbac_permissions", STRING_SET, "", EMPTY, since="midnight-ride"),
        maintained("tasks", "task.session", "", since="midnight-ride"),
        static("parent", refs.session, "", EMPTY, since="midnight-ride"),
        runtime("originator", STRING, "", EMPTY, since="clearwater"),
        runtime("client_certificate", BOOL, "", EMPTY, since="21.2.0"),
    ],
    messages=[
        message(
            "login_with_password",
            "",
            {"uname": STRING, "pwd": STRING, "version": Optional(STRING, "1.1"), "originator": Optional(STRING)},
            refs.session,
            roles=READ_ONLY,
            errors=(
                "SESSION_AUTHENTICATION_FAILED",
                "HOST_IS_SLAVE",
            ),
            sync_only=True,
            session=False,
            secret=True,
            local_on_member=True,
        ),
        message("logout", "", roles=READ_ONLY, sync_only=True),
        message("change_password", "", {"old_pwd": STRING, "new_pwd": STRING}, roles=LOCAL_ONLY, sync_only=True),
        message(
            "slave_login",
            "",
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
            "",
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
            "",
            {"uname": STRING, "pwd": STRING},
            refs.session,
            since="miami",
            sync_only=True,
            session=False,
            emergency=True,
            secret=True,
        ),
        message("create_from_db_file", "", {"filename": STRING}, refs.session, since="dundee", roles=LOCAL_ONLY),
        message("local_logout", "", since="miami", sync_only=True, emergency=True),
        message("get_all_subject_identifiers", "", result=STRING_SET, since="george", roles=READ_ONLY),
        message("logout_subject_identifier", "", {"subject_identifier": STRING}, since="george", roles=POOL_OPERATOR),
    ],
)

AUTH = declare(
    "auth",
    "",
    since="george",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    messages=[
        message("get_subject_identifier", "", {"subject_name": STRING}, STRING, sync_only=True),
        message(
            "get_subject_information_from_identifier", "", {"subject_identifier": STRING}, STRING_MAP, sync_only=True
        ),
        message("get_group_membership", "", {"subject_identifier": STRING}, STRING_SET, sync_only=True),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    SESSION,
    AUTH,
)
