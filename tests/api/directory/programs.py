"""Programs that tests put into a host's folders."""

from __future__ import annotations

import sys
from pathlib import Path

DIRECTORY = """
import json, os, sys, xmlrpc.client
from pathlib import Path

(told,), function = xmlrpc.client.loads(sys.stdin.read())
here = Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([function, told]) + "\\n")

USERS = {"id-ann": ("ann", ["id-group"]), "id-ben": ("ben", [])}
fine = dict.fromkeys(
    ["subject-account-disabled", "subject-account-expired", "subject-account-locked", "subject-password-expired"],
    "false",
)


def fail(*description):
    print(xmlrpc.client.dumps(({"Status": "Failure", "ErrorDescription": list(description)},), methodresponse=True))
    sys.exit()


def succeed(value):
    print(xmlrpc.client.dumps(({"Status": "Success", "Value": value},), methodresponse=True))
    sys.exit()


def user(identifier):
    return USERS[identifier] if identifier in USERS else fail("NOT_FOUND", "no such user")


value = ""
trouble = here / function
if trouble.exists():
    exec(trouble.read_text())
if function == "authenticate_username_password":
    if told["password"] != told["name"] + "'s":
        fail("AUTH_FAILURE", "wrong password")
    value = "id-" + told["name"]
elif function == "get_subject_identifier":
    value = "id-" + told["name"]
    value in (*USERS, "id-group") or fail("NOT_FOUND", "no such name")
elif function == "query_subject_information":
    value = {"subject-name": user(told["identifier"])[0], **fine}
elif function == "query_group_membership":
    value = user(told["identifier"])[1]
succeed(value)
"""
"""A directory of ann, who is in a group, and ben. A file named for a function is run before it: trouble.

Each call is a line of the file `calls`.
"""

HOOK = """
import sys, xmlrpc.client
from pathlib import Path

(session, told), event = xmlrpc.client.loads(sys.argv[1])
with (Path(__file__).parent / "events").open("a") as events:
    events.write(" ".join([event, told["auth_type"], told["service_name"]]) + "\\n")
print(xmlrpc.client.dumps(({"Status": "Success", "Value": "True"},), methodresponse=True))
"""
"""`extauth-hook`: each run is a line of the file `events`."""


def install(folder: Path, name: str, text: str) -> Path:
    """A program of that name in the folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable} -IS\n{text}")
    path.chmod(0o755)
    return path
