"""Who calls the API, and how often they may."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, UUID, ClassDecl, declare, maintained, message, names, runtime, static
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_SET, SetType

CALLER = declare(
    "Caller",
    "",
    since="prototyped 26.17.0",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("Caller"),
        static("user_agent", STRING, "", EMPTY),
        static("client_ip", STRING, "", EMPTY),
        runtime("last_access", DATETIME, "", EMPTY),
        runtime("groups", STRING_SET, "", EMPTY),
        runtime("rate_limit", refs.Rate_limit, "", EMPTY),
        runtime("auto_registered", BOOL, "", EMPTY),
    ],
    messages=[
        message("add_group", "", {"self": refs.Caller, "group": STRING}, roles=POOL_OPERATOR),
        message("remove_group", "", {"self": refs.Caller, "group": STRING}, roles=POOL_OPERATOR),
        message("query_token_usage", "", {"self": refs.Caller}, FLOAT, since="prototyped 26.15.0", roles=POOL_OPERATOR),
        message("query_call_count", "", {"self": refs.Caller}, INT, since="prototyped 26.15.0", roles=POOL_OPERATOR),
        message(
            "query_group_token_usage", "", {"group": STRING}, FLOAT, since="prototyped 26.15.0", roles=POOL_OPERATOR
        ),
        message("query_group_call_count", "", {"group": STRING}, INT, since="prototyped 26.15.0", roles=POOL_OPERATOR),
        message("query_all_usage", "", result=SetType(STRING_SET), roles=POOL_OPERATOR),
    ],
)

RATE_LIMIT = declare(
    "Rate_limit",
    "",
    since="prototyped 26.17.0",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("Rate_limit"),
        maintained("callers", "Caller.rate_limit", ""),
        static("burst_size", FLOAT, "", EMPTY),
        static("fill_rate", FLOAT, "", EMPTY),
    ],
    messages=[
        message("add_caller", "", {"self": refs.Rate_limit, "caller": refs.Caller}),
        message("remove_caller", "", {"self": refs.Rate_limit, "caller": refs.Caller}),
        message("set_burst_size", "", {"self": refs.Rate_limit, "value": FLOAT}),
        message("set_fill_rate", "", {"self": refs.Rate_limit, "value": FLOAT}),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    CALLER,
    RATE_LIMIT,
)
