"""Messages of class session."""

from __future__ import annotations

from services.api import opened_databases, reading_sessions, sessions
from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Delete
from shared.errors import ApiError

SUPERUSER = "root"


@operation("session.login_with_password")
async def login_with_password(call: Call, uname: str, pwd: str, version: str, originator: str) -> str:
    return await sessions.login(call.api, call.caller, uname, pwd, originator or call.caller.originator)


@operation("session.slave_login")
async def slave_login(call: Call, host: str, psecret: str) -> str:
    """The secret is looked at first: who has none learns nothing of the pool's hosts."""
    sessions.check_pool_secret(call.api, call.caller, psecret, host)
    existing(call.store, "host", host)
    return await sessions.open_pool_session(call.api, call.caller, host)


@operation("session.slave_local_login")
def slave_local_login(call: Call, psecret: str) -> str:
    return sessions.open_local_pool_session(call.api, call.caller, psecret)


@operation("session.slave_local_login_with_password")
async def slave_local_login_with_password(call: Call, uname: str, pwd: str) -> str:
    return await sessions.open_local_session(call.api, call.caller, uname, pwd)


@operation("session.create_from_db_file")
async def create_from_db_file(call: Call, filename: str) -> str:
    """A file of the coordinator's host. The session reads what is in it, with the role read-only."""
    rows = await opened_databases.open_file(filename)
    return await reading_sessions.begin(call.api, call.caller, rows, opened_databases.USER)


@operation("session.logout")
async def logout(call: Call) -> None:
    await sessions.logout(call.api, call.session)


@operation("session.local_logout")
def local_logout(call: Call) -> None:
    """Any other session stays: afterwards there is no local one of that name, which is all that is promised."""
    call.api.local_sessions.close(call.session)


@operation("session.change_password")
async def change_password(call: Call, old_pwd: str, new_pwd: str) -> None:
    """Of root, whatever the session's user is called. The old one is not looked at: the session is proof enough."""
    session = sessions.find(call.api, call.session)
    if not session["is_local_superuser"]:
        raise ApiError("USER_IS_NOT_LOCAL_SUPERUSER", "only the local superuser can change the password")
    await call.api.authenticator.change(SUPERUSER, new_pwd)


@operation("session.get_all_subject_identifiers")
def get_all_subject_identifiers(call: Call) -> list[str]:
    rows = call.store.rows("session").values()
    return sorted({row["auth_user_sid"] for row in rows if row["auth_user_sid"]})


@operation("session.logout_subject_identifier")
async def logout_subject_identifier(call: Call, subject_identifier: str) -> None:
    """The caller's own session stays, so that it hears the answer."""
    rows = call.store.rows("session")
    theirs = [ref for ref, row in rows.items() if row["auth_user_sid"] == subject_identifier and ref != call.session]
    if subject_identifier and theirs:
        await call.api.database.transact([Delete(cls="session", ref=ref) for ref in theirs])
