"""Messages of class session."""

from __future__ import annotations

from services.api import sessions
from services.api.call import Call
from services.api.operation import operation
from shared.contracts.db import Delete
from shared.errors import ApiError


@operation("session.login_with_password")
async def login_with_password(call: Call, uname: str, pwd: str, version: str, originator: str) -> str:
    return await sessions.login(call.api, call.caller, uname, pwd, originator or call.caller.originator)


@operation("session.slave_login", built=False)
def slave_login(call: Call, host: str, psecret: str) -> str:
    """Hosts talk over the bus: there is no secret that would be right."""
    raise ApiError("SESSION_AUTHENTICATION_FAILED", host, "hosts of this pool do not log in")


@operation("session.slave_local_login", built=False)
def slave_local_login(call: Call, psecret: str) -> str:
    raise ApiError("SESSION_AUTHENTICATION_FAILED", "localhost", "hosts of this pool do not log in")


@operation("session.slave_local_login_with_password", built=False)
async def slave_local_login_with_password(call: Call, uname: str, pwd: str) -> str:
    """A session of this host alone, which is not built yet."""
    await call.api.authenticator.check(uname, pwd)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("session.logout")
async def logout(call: Call) -> None:
    await sessions.logout(call.api, call.session)


@operation("session.change_password")
async def change_password(call: Call, old_pwd: str, new_pwd: str) -> None:
    """The old password is not looked at, as upstream does: the session is proof enough."""
    session = sessions.find(call.api, call.session)
    if not session["is_local_superuser"]:
        raise ApiError("USER_IS_NOT_LOCAL_SUPERUSER", "only the local superuser can change the password")
    await call.api.authenticator.change(str(session["auth_user_name"]), new_pwd)


@operation("session.get_all_subject_identifiers")
def get_all_subject_identifiers(call: Call) -> list[str]:
    rows = call.store.rows("session").values()
    return sorted({row["auth_user_sid"] for row in rows if row["auth_user_sid"]})


@operation("session.logout_subject_identifier")
async def logout_subject_identifier(call: Call, subject_identifier: str) -> None:
    rows = call.store.rows("session")
    theirs = [ref for ref, row in rows.items() if row["auth_user_sid"] == subject_identifier and ref != call.session]
    await call.api.database.transact([Delete(cls="session", ref=ref) for ref in theirs if subject_identifier])
