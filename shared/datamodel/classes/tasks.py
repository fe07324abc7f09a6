"""Work in progress, and the events that tell of change."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    UNSET_REF,
    ClassDecl,
    adder,
    declare,
    maintained,
    message,
    remover,
    runtime,
    setter,
    static,
)
from shared.datamodel.groups import UUID, names, operations, other_config
from shared.datamodel.roles import READ_ONLY, VM_OPERATOR
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_SET, EnumType, RecordType, SetType

EVENT_OPERATION = EnumType("event_operation", ("add", "del", "mod"), exact=True)
TASK_ALLOWED_OPERATIONS = EnumType("task_allowed_operations", ("cancel", "destroy"))
TASK_STATUS_TYPE = EnumType("task_status_type", ("pending", "success", "failure", "cancelling", "cancelled"))

TASK = declare(
    "task",
    "A piece of work that takes a while.",
    roles=READ_ONLY,
    persist=False,
    fields=[
        UUID,
        names("task", runtime),
        operations(TASK_ALLOWED_OPERATIONS),
        runtime("created", DATETIME, "When it was started."),
        runtime("finished", DATETIME, "When it ended; the epoch until then."),
        runtime("status", TASK_STATUS_TYPE, "Whether it goes on, or how it ended."),
        runtime("session", refs.session, "The session it was started in.", internal=True),
        runtime("resident_on", refs.host, "The host that does the work."),
        runtime("progress", FLOAT, "How much of it is done, from 0 to 1."),
        runtime("externalpid", INT, "The process that does the work, if not the toolstack's own.", internal=True),
        runtime(
            "stunnelpid",
            INT,
            "The process that carried the connection it depends on.",
            since="rio, deprecated boston",
            internal=True,
        ),
        runtime("forwarded", BOOL, "Whether another host does the work.", internal=True),
        runtime("forwarded_to", refs.host, "The host it was forwarded to.", internal=True),
        runtime("type", STRING, "The kind of result; always the same."),
        runtime("result", STRING, "The result of a success, as XML text; empty for a call that returns nothing."),
        runtime("error_info", STRING_SET, "The error of a failure: its code and parameters."),
        other_config(
            runtime,
            since="miami",
            keys={"applies_to": VM_OPERATOR, "XenCenterUUID": VM_OPERATOR, "XenCenterMeddlingActionTitle": VM_OPERATOR},
        ),
        runtime("subtask_of", refs.task, "The task it is a part of.", UNSET_REF, since="orlando"),
        maintained("subtasks", "task.subtask_of", "Tasks that are parts of it.", since="orlando"),
        runtime("backtrace", STRING, "Where it failed, for developers.", "()", since="dundee"),
    ],
    messages=[
        message(
            "create",
            "Makes a task whose progress and result the client reports itself.",
            {"label": STRING, "description": STRING},
            refs.task,
            sync_only=True,
        ),
        message("destroy", "Removes the task, once it has ended.", {"self": refs.task}, sync_only=True),
        message("cancel", "Asks for the work to be given up.", {"task": refs.task}, errors=("OPERATION_NOT_ALLOWED",)),
        setter("status", "Reports how the task stands.", since="falcon", sync_only=True),
        setter("progress", "Reports how much is done, from 0 to 1.", since="stockholm", sync_only=True),
        setter("result", "Reports the result.", since="21.3.0", sync_only=True),
        setter("error_info", "Reports the error.", since="21.3.0", sync_only=True),
        adder(
            "other_config",
            "Adds a setting.",
            since="prototyped 25.8.0",
        ),
        remover(
            "other_config",
            "Removes a setting, if it is there.",
            since="prototyped 25.8.0",
        ),
        setter("other_config", "Replaces all settings.", since="prototyped 25.8.0"),
    ],
)

EVENT = declare(
    "event",
    "What has happened to an object.",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    fields=[
        static("id", INT, "Number of the event; events of one answer may share it."),
        static("timestamp", DATETIME, "When the event was reported.", since="rio, deprecated boston"),
        static("class", STRING, "Class of the object, in lower case."),
        static("operation", EVENT_OPERATION, "Whether the object was added, changed or removed."),
        static("ref", STRING, "The object."),
        static("obj_uuid", STRING, "The object's uuid; no longer filled in.", since="rio, deprecated boston"),
    ],
    messages=[
        message(
            "register",
            "Subscribes to classes, or to `*` for all, for use with `next`.",
            {"classes": STRING_SET},
            since="rio, deprecated boston",
        ),
        message("unregister", "Ends subscriptions.", {"classes": STRING_SET}, since="rio, deprecated boston"),
        message(
            "next",
            "Waits for events of the subscribed classes.",
            result=SetType(RecordType("event")),
            since="rio, deprecated boston",
            errors=("SESSION_NOT_REGISTERED", "EVENTS_LOST", "EVENT_SUBSCRIPTION_PARSE_FAILURE"),
            sync_only=True,
            custom_marshaller=True,
        ),
        message(
            "from",
            "Waits for changes to classes or single objects since a token; answers with the next token.",
            {"classes": STRING_SET, "token": STRING, "timeout": FLOAT},
            SetType(RecordType("event")),
            since="boston",
            errors=("EVENT_FROM_TOKEN_PARSE_FAILURE", "EVENT_SUBSCRIPTION_PARSE_FAILURE"),
            sync_only=True,
            custom_marshaller=True,
        ),
        message("get_current_id", "Number of the latest event.", result=INT, sync_only=True),
        message(
            "inject",
            "Makes an event for an object that has not changed; answers a token to wait for it with.",
            {"class": STRING, "ref": STRING},
            STRING,
            since="tampa",
            sync_only=True,
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (TASK, EVENT)
