"""Work in progress, and the events that tell of change."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    UNSET_REF,
    UUID,
    ClassDecl,
    declare,
    maintained,
    message,
    names,
    operations,
    other_config,
    runtime,
    static,
)
from shared.datamodel.roles import READ_ONLY, VM_OPERATOR
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    STRING_SET,
    EnumType,
    RecordType,
    SetType,
)

EVENT_OPERATION = EnumType(
    "event_operation",
    (
        "add",
        "del",
        "mod",
    ),
    exact=True,
)
TASK_ALLOWED_OPERATIONS = EnumType(
    "task_allowed_operations",
    (
        "cancel",
        "destroy",
    ),
)
TASK_STATUS_TYPE = EnumType(
    "task_status_type",
    (
        "pending",
        "success",
        "failure",
        "cancelling",
        "cancelled",
    ),
)

TASK = declare(
    "task",
    "",
    roles=READ_ONLY,
    persist=False,
    fields=[
        UUID,
        names("task", runtime),
        operations(TASK_ALLOWED_OPERATIONS),
        runtime("created", DATETIME, ""),
        runtime("finished", DATETIME, ""),
        runtime("status", TASK_STATUS_TYPE, ""),
        runtime("session", refs.session, "", internal=True),
        runtime("resident_on", refs.host, ""),
        runtime("progress", FLOAT, ""),
        runtime("externalpid", INT, "", internal=True),
        runtime("stunnelpid", INT, "", since="rio, deprecated boston", internal=True),
        runtime("forwarded", BOOL, "", internal=True),
        runtime("forwarded_to", refs.host, "", internal=True),
        runtime("type", STRING, ""),
        runtime("result", STRING, ""),
        runtime("error_info", STRING_SET, ""),
        other_config(
            runtime,
            since="miami",
            keys={"applies_to": VM_OPERATOR, "XenCenterUUID": VM_OPERATOR, "XenCenterMeddlingActionTitle": VM_OPERATOR},
        ),
        runtime("subtask_of", refs.task, "", UNSET_REF, since="orlando"),
        maintained("subtasks", "task.subtask_of", "", since="orlando"),
        runtime("backtrace", STRING, "", "()", since="dundee"),
    ],
    messages=[
        message("create", "", {"label": STRING, "description": STRING}, refs.task, sync_only=True),
        message("destroy", "", {"self": refs.task}, sync_only=True),
        message("cancel", "", {"task": refs.task}, errors=("OPERATION_NOT_ALLOWED",)),
        message("set_status", "", {"self": refs.task, "value": TASK_STATUS_TYPE}, since="falcon", sync_only=True),
        message("set_progress", "", {"self": refs.task, "value": FLOAT}, since="stockholm", sync_only=True),
        message("set_result", "", {"self": refs.task, "value": STRING}, since="21.3.0", sync_only=True),
        message("set_error_info", "", {"self": refs.task, "value": STRING_SET}, since="21.3.0", sync_only=True),
        message(
            "add_to_other_config",
            "",
            {"self": refs.task, "key": STRING, "value": STRING},
            since="prototyped 25.8.0",
            keys={"applies_to": VM_OPERATOR, "XenCenterUUID": VM_OPERATOR, "XenCenterMeddlingActionTitle": VM_OPERATOR},
        ),
        message(
            "remove_from_other_config",
            "",
            {"self": refs.task, "key": STRING},
            since="prototyped 25.8.0",
            keys={"applies_to": VM_OPERATOR, "XenCenterUUID": VM_OPERATOR, "XenCenterMeddlingActionTitle": VM_OPERATOR},
        ),
        message("set_other_config", "", {"self": refs.task, "value": STRING_MAP}, since="prototyped 25.8.0"),
    ],
)

EVENT = declare(
    "event",
    "",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    fields=[
        static("id", INT, ""),
        static("timestamp", DATETIME, "", since="rio, deprecated boston"),
        static("class", STRING, ""),
        static("operation", EVENT_OPERATION, ""),
        static("ref", STRING, ""),
        static("obj_uuid", STRING, "", since="rio, deprecated boston"),
    ],
    messages=[
        message("register", "", {"classes": STRING_SET}, since="rio, deprecated boston"),
        message("unregister", "", {"classes": STRING_SET}, since="rio, deprecated boston"),
        message(
            "next",
            "",
            result=SetType(RecordType("event")),
            since="rio, deprecated boston",
            errors=(
                "SESSION_NOT_REGISTERED",
                "EVENTS_LOST",
                "EVENT_SUBSCRIPTION_PARSE_FAILURE",
            ),
            sync_only=True,
            custom_marshaller=True,
        ),
        message(
            "from",
            "",
            {"classes": STRING_SET, "token": STRING, "timeout": FLOAT},
            SetType(RecordType("event")),
            since="boston",
            errors=(
                "EVENT_FROM_TOKEN_PARSE_FAILURE",
                "EVENT_SUBSCRIPTION_PARSE_FAILURE",
            ),
            sync_only=True,
            custom_marshaller=True,
        ),
        message("get_current_id", "", result=INT, sync_only=True),
        message("inject", "", {"class": STRING, "ref": STRING}, STRING, since="tampa", sync_only=True),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    TASK,
    EVENT,
)
