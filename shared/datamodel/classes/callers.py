"""Who calls the API, and how often they may."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, declare, maintained, message, runtime, setter, static
from shared.datamodel.groups import UUID, names
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_SET, SetType

CALLER = declare(
    "Caller",
    "A client of the API, told by its name and address, for limiting how often it may call.",
    since="prototyped 26.17.0",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("caller"),
        static("user_agent", STRING, "What the client calls itself; empty for any.", EMPTY),
        static("client_ip", STRING, "Where the client calls from; empty for anywhere.", EMPTY),
        runtime("last_access", DATETIME, "When it last called.", EMPTY),
        runtime("groups", STRING_SET, "Names that callers are counted under together.", EMPTY),
        runtime("rate_limit", refs.Rate_limit, "The limit that it shares.", EMPTY),
        runtime("auto_registered", BOOL, "Whether it was entered because it called, and not by a person.", EMPTY),
    ],
    messages=[
        message(
            "add_group", "Counts it under this name too.", {"self": refs.Caller, "group": STRING}, roles=POOL_OPERATOR
        ),
        message(
            "remove_group",
            "No longer counts it under this name.",
            {"self": refs.Caller, "group": STRING},
            roles=POOL_OPERATOR,
        ),
        message(
            "query_token_usage",
            "Tokens it has used lately.",
            {"self": refs.Caller},
            FLOAT,
            since="prototyped 26.15.0",
            roles=POOL_OPERATOR,
        ),
        message(
            "query_call_count",
            "Calls it has made lately.",
            {"self": refs.Caller},
            INT,
            since="prototyped 26.15.0",
            roles=POOL_OPERATOR,
        ),
        message(
            "query_group_token_usage",
            "Tokens that a group has used lately.",
            {"group": STRING},
            FLOAT,
            since="prototyped 26.15.0",
            roles=POOL_OPERATOR,
        ),
        message(
            "query_group_call_count",
            "Calls that a group has made lately.",
            {"group": STRING},
            INT,
            since="prototyped 26.15.0",
            roles=POOL_OPERATOR,
        ),
        message(
            "query_all_usage", "Usage of all callers, one row each.", result=SetType(STRING_SET), roles=POOL_OPERATOR
        ),
    ],
)

RATE_LIMIT = declare(
    "Rate_limit",
    "How often callers may call: a bucket of tokens they share.",
    since="prototyped 26.17.0",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("limit"),
        maintained("callers", "Caller.rate_limit", "Callers that share it."),
        static("burst_size", FLOAT, "How many tokens the bucket holds.", EMPTY),
        static("fill_rate", FLOAT, "Tokens that flow in per second.", EMPTY),
    ],
    messages=[
        message("add_caller", "Puts a caller under it.", {"self": refs.Rate_limit, "caller": refs.Caller}),
        message("remove_caller", "Frees a caller from it.", {"self": refs.Rate_limit, "caller": refs.Caller}),
        setter("burst_size", "Sets how many tokens the bucket holds."),
        setter("fill_rate", "Sets how many tokens flow in per second."),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (CALLER, RATE_LIMIT)
