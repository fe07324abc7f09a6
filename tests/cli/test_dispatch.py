"""From words to answers: parsing, sessions, errors, help, and how conversations end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.protocol import Chunk, End, Exit, Message, Print, Prompt, encode
from services.cli.server.failures import CommandError, UsageError
from services.cli.server.help import wrapped
from services.cli.server.printer import escape, layout
from services.cli.server.syntax import parse
from services.cli.server.values import size
from services.cli.service import setup
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts.api import XENAPI
from shared.contracts.cli import INPUT, RUN, CliCommand, CliInput, Frames
from shared.errors import ApiError
from shared.service import Service
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import ThinClient, conversations, frames

# ---- words


def test_words_become_pairs_in_order() -> None:
    found = parse("session_id=OpaqueRef:x\r\nvm-list\r\n--minimal\nname-label=a=b\nname-label=c\nword\n-u\nbob\n--x=y")
    assert (found.name, found.session) == ("vm-list", "OpaqueRef:x")
    assert list(found.params) == [
        ("minimal", "true"),
        ("name-label", "a=b"),
        ("name-label", "c"),
        ("word", ""),
        ("username", "bob"),
        ("x=y", "true"),
    ]
    assert found.params.get("name-label") == "a=b"


@pytest.mark.parametrize("body", ["a=b", "vm-list\n-z\nx", "vm-list\n-u", ""])
def test_what_cannot_be_parsed_is_a_syntax_error(body: str) -> None:
    with pytest.raises(UsageError, match="Syntax error"):
        parse(body if body else "session_id=x")


def test_a_map_takes_any_separator() -> None:
    params = parse("x\ndevice-config:a=1\ndevice-config-b=2\ndevice-config:=3\ndevice-configc=4\nother:d=5").params
    assert params.mapping("device-config") == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("7", 7), (" 7 bytes ", 7), ("1k", 1 << 10), ("4GiB", 4 << 30), ("4gb", 4 << 30), ("2 T", 2 << 40), ("0MiB", 0)],
)
def test_sizes_are_binary(text: str, bytes_: int) -> None:
    assert size("x", text) == bytes_


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.5GiB", "1PiB", "1 2", "9" * 5000, "1" + " " * 190_000 + "!"])
def test_sizes_without_sense_are_refused(text: str) -> None:
    with pytest.raises(CommandError):
        size("x", text)


@given(st.lists(st.text(max_size=6), min_size=1, max_size=4))
def test_minimal_values_can_be_taken_apart_again(values: list[str]) -> None:
    joined = ",".join(escape(value) for value in values)
    found, current, characters = [], "", iter(joined)
    for character in characters:
        if character == "\\":
            current += next(characters)
        elif character == ",":
            found.append(current)
            current = ""
        else:
            current += character
    assert [*found, current] == values


def test_an_empty_record_is_an_empty_line() -> None:
    assert layout([]) == "\n"


# ---- sessions


async def test_a_command_logs_in_and_out(api: FakeXenApi, xe: ThinClient) -> None:
    assert (await xe("host-list", "--minimal")).status == 0
    assert (api.logins, api.sessions) == (1, set())


async def test_a_given_session_is_used_and_left_alone(api: FakeXenApi, xe: ThinClient) -> None:
    api.sessions.add("OpaqueRef:mine")
    assert (await xe("session_id=OpaqueRef:mine", "host-list", "--minimal", password="wrong")).status == 0
    assert (api.logins, api.sessions) == (0, {"OpaqueRef:mine"})
    outcome = await xe("session_id=OpaqueRef:other", "host-list")
    assert outcome.stderr.splitlines()[1:] == ["handle: OpaqueRef:other"]


async def test_on_the_hosts_own_socket_no_password_is_needed(xe: ThinClient) -> None:
    assert (await xe("host-list", "--minimal", password="wrong", trusted=True)).status == 0


async def test_a_wrong_password_comes_after_a_missing_parameter(xe: ThinClient) -> None:
    hint = "\nFor usage run: 'xe help'\n"
    assert (await xe("vm-list", password="wrong")).stderr == "Authentication failed" + hint
    assert (await xe("vm-list", user="", password="")).stderr == "Username/password must be specified" + hint
    assert (await xe("vm-destroy", password="wrong")).stderr == "Required parameter not found: uuid" + hint
    assert (await xe("help", password="wrong")).status == 0


async def test_an_unexpected_fault_is_an_internal_error_and_ends_the_session(api: FakeXenApi, xe: ThinClient) -> None:
    def broken(*_: str) -> str:
        raise ZeroDivisionError("oh")

    api.on["pool.sync_database"] = broken
    outcome = await xe("pool-sync-database")
    assert outcome.status == 1
    assert "ZeroDivisionError: oh" in outcome.stderr
    assert api.sessions == set()


async def test_an_error_that_nobody_knows_is_shown_with_its_code(api: FakeXenApi, xe: ThinClient) -> None:
    def fail() -> str:
        raise ApiError("SR_BACKEND_FAILURE_4711", "", "no such thing", "")

    api.on["pool.sync_database"] = fail
    outcome = await xe("pool-sync-database", "--trace")
    assert outcome.stderr.startswith("Error code: SR_BACKEND_FAILURE_4711\nError parameters: , no such thing, \n")
    assert "Raised Server_error(SR_BACKEND_FAILURE_4711, [ ; no such thing;  ])\nBacktrace:\n" in outcome.stderr


async def test_surplus_and_missing_values_of_an_error_are_labelled(api: FakeXenApi, xe: ThinClient) -> None:
    errors = iter(
        [ApiError("SR_FULL", "1", "2", "3"), ApiError("SR_FULL"), ApiError("VMS_FAILED_TO_COOPERATE", "a", "b")]
    )

    def fail() -> str:
        raise next(errors)

    api.on["pool.sync_database"] = fail
    assert (await xe("pool-sync-database")).stderr.splitlines()[1:] == ["requested: 1", "maximum: 2", "<extra>: 3"]
    assert (await xe("pool-sync-database")).stderr.splitlines()[1:] == ["requested: <unknown>", "maximum: <unknown>"]
    assert (await xe("pool-sync-database")).stderr.splitlines()[1:] == ["VM: a", "VM: b"]


# ---- help


async def test_help_lists_commands_for_scripts(xe: ThinClient) -> None:
    names = (await xe("help", "--minimal", "--all")).stdout.strip().split(",")
    assert {"vm-start", "vm-param-get", "vm-export", "help"} <= set(names)
    assert "vm-create" not in names, "hidden"
    standard = (await xe("help", "--minimal")).stdout.strip().split(",")
    assert "vm-start" in standard
    assert "pif-scan" not in standard


async def test_help_for_a_command_has_the_lines_that_completion_reads(xe: ThinClient) -> None:
    lines = (await xe("help", "vm-start")).stdout.splitlines()
    assert lines[0] == "command name            : vm-start"
    assert lines[1] == "        reqd params     : "
    assert lines[2] == "        optional params : force, on, paused, <vm-selectors>"
    assert lines[3].startswith("        description     : ")


@given(st.lists(st.text("abc-", min_size=1, max_size=30), min_size=1))
def test_help_wraps_names_without_losing_any(names: list[str]) -> None:
    text = wrapped(names)
    assert [name.strip() for line in text.split("\n") for name in line.split(",")] == names
    assert all(line.startswith("    ") for line in text.split("\n"))


# ---- how conversations end


def answer(name: str, *messages: Message) -> CliInput:
    return CliInput(conversation=name, data=base64.b64encode(b"".join(map(encode, messages))).decode())


def command(name: str, *words: str) -> CliCommand:
    body = "\n".join([*words, "username=root", "password=secret"])
    return CliCommand(conversation=name, body=body, trusted=False, address="")


async def heard(stream: AsyncIterator[Frames], until: Callable[[Message], bool]) -> list[Message]:
    found: list[Message] = []
    async for part in stream:
        found += frames(base64.b64decode(part.data))
        if any(map(until, found)):
            break
    return found


async def test_a_client_that_leaves_cancels_its_command_and_ends_its_session(api: FakeXenApi) -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def forever(*_: object) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    api.on["pool.sync_database"] = forever
    here = conversations(api)
    running = asyncio.create_task(heard(here.run(command("c", "pool-sync-database")), lambda _: False))
    await waiting.wait()
    assert len(api.sessions) == 1
    await here.input(CliInput(conversation="c", eof=True))
    assert await running == []
    assert (cancelled.is_set(), api.sessions, len(here)) == (True, set(), 0)


async def test_a_carrier_that_stops_listening_ends_the_session_too(api: FakeXenApi) -> None:
    waiting = asyncio.Event()

    async def forever(*_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    api.on["pool.sync_database"] = forever
    here = conversations(api)
    running = asyncio.create_task(heard(here.run(command("c", "pool-sync-database")), lambda _: False))
    await waiting.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (len(here), api.sessions) == (0, set())


async def test_a_client_that_leaves_at_a_prompt_ends_the_conversation(api: FakeXenApi) -> None:
    vm = api.add("VM", name_label="web01")
    here = conversations(api)
    stream = here.run(command("c", "vm-uninstall", "vm=web01"))
    await heard(stream, lambda message: isinstance(message, Prompt))
    await here.input(CliInput(conversation="c", eof=True))
    assert await heard(stream, lambda _: False) == []
    assert vm in api.rows["VM"]
    assert api.sessions == set()


async def test_a_client_that_answers_nonsense_is_given_up(api: FakeXenApi) -> None:
    api.add("VM", name_label="web01")
    here = conversations(api)
    stream = here.run(command("c", "vm-uninstall", "vm=web01"))
    await heard(stream, lambda message: isinstance(message, Prompt))
    await here.input(answer("c", Print("I am the server")))
    assert await heard(stream, lambda message: isinstance(message, Exit)) == []
    assert api.sessions == set()


async def test_much_output_does_not_pile_up_when_nobody_reads(api: FakeXenApi) -> None:
    for number in range(2000):
        api.add("SR", name_label=f"sr {number}")
    here = conversations(api)
    stream = here.run(command("c", "sr-list", "params=name-label"))
    first = await anext(stream)
    rest = await heard(stream, lambda message: isinstance(message, Exit))
    assert len(frames(base64.b64decode(first.data))) + len(rest) == 2001


# ---- the service on the bus


async def test_the_service_streams_a_conversation_over_the_bus(api: FakeXenApi, tmp_path: object) -> None:
    broker = MemoryBroker()
    host = HostConfig(uuid="h1", name="one", address="127.0.0.1")
    config = Config(service="cli", state_dir=str(tmp_path), bus=BusConfig(url=""), hosts=[host])
    service = Service(config, await broker.connect("cli"))
    edge = await broker.connect("api")
    await edge.serve(XENAPI, api.transport, host="h1")
    await edge.start_consuming("api", host="h1")
    await setup(service)
    await service.open_queues()
    api.add("VM", name_label="web01")
    found: list[Message] = []
    async for part in edge.stream(RUN, command("c", "vm-uninstall", "vm=web01"), host="h1"):
        found += frames(base64.b64decode(part.data))
        if isinstance(found[-1], Prompt):
            yes = encode(Chunk(3)) + b"yes" + encode(End())
            given = CliInput(conversation="c", data=base64.b64encode(yes).decode())
            await edge.call(INPUT, given, host="h1")
    assert found[-2:] == [Print("All objects destroyed"), Exit(0)]
    assert api.sessions == set()
    await service.close()
    await edge.close()
