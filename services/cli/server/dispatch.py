"""From the words of a command line to the frames of its answer."""

from __future__ import annotations

import asyncio
import logging
import traceback

from services.cli.protocol import Error, Exit, Print, PrintStderr, ProtocolError
from services.cli.server.command import Call, Command, unimplemented
from services.cli.server.conversation import ClientGone
from services.cli.server.failures import (
    HINT,
    AuthenticationError,
    Catalogue,
    CommandError,
    Leave,
    PartialFailure,
    UsageError,
    describe,
)
from services.cli.server.help import show_help
from services.cli.server.objects import Objects
from services.cli.server.printer import Printer
from services.cli.server.syntax import Invocation, Params, parse
from services.cli.server.terminal import Terminal
from services.cli.server.xenapi import XenApi
from shared.errors import ApiError, internal_error

log = logging.getLogger("cli")


class Dispatcher:
    """Runs commands of the table. `catalogue`: the API's errors."""

    def __init__(self, commands: dict[str, Command], catalogue: Catalogue) -> None:
        self._commands = commands
        self._catalogue = catalogue

    async def run(self, body: str, terminal: Terminal, api: XenApi) -> None:
        """One conversation, up to Exit; leaves no session behind. Raises only `ClientGone` and `ProtocolError`."""
        trace = False
        try:
            invocation = parse(body)
            trace = invocation.params.get("trace") == "true"
            status = await self._invoke(invocation, terminal, api)
        except UsageError as error:
            await _say(terminal, f"{error}\n{HINT}")
            status = 1
        except AuthenticationError as error:
            await _say(terminal, f"{error}\n{HINT}")
            status = 1
        except Leave as leave:
            status = leave.status
        except (ClientGone, ProtocolError):
            raise
        except Exception as error:
            status = 1
            await self._tell(error, terminal, None)
            if trace:
                await _backtrace(terminal, error)
        await terminal.send(Exit(status))

    async def _invoke(self, invocation: Invocation, terminal: Terminal, api: XenApi) -> int:
        command = self._commands.get(invocation.name)
        if command is None:
            raise UsageError(f"Unknown command: {invocation.name}")
        params = invocation.params
        for name in command.required:
            if name not in params:
                raise UsageError(f"Required parameter not found: {name}")
        printer = Printer(terminal, params.minimal)
        call = Call(command, params, api, printer, terminal, Objects(api), self._catalogue, self._commands)
        if command.run is show_help:
            await show_help(call)
            await printer.flush()
            return 0
        if invocation.session:
            api.session = invocation.session
        else:
            await _login(api, params, command)
        try:
            return await self._within_session(call)
        finally:
            if not invocation.session:
                await _uninterrupted(api, command.local)

    async def _within_session(self, call: Call) -> int:
        """Errors are told here, while the references in them can still be looked up."""
        try:
            await (call.command.run or unimplemented)(call)
            await call.printer.flush()
            return 0
        except (ClientGone, ProtocolError, Leave, UsageError):
            raise
        except PartialFailure as partial:
            for uuid, error in partial.failures:
                text = "\n".join(await self._lines(error, call.objects) or [str(error)])
                await call.terminal.send(Print(f"operation failed on {uuid}: {text}"))
            failure: Exception = partial
        except Exception as error:
            await self._tell(error, call.terminal, call.objects)
            failure = error
        if call.params.get("trace") == "true":
            await _backtrace(call.terminal, failure)
        return 1

    async def _tell(self, error: Exception, terminal: Terminal, objects: Objects | None) -> None:
        if not isinstance(error, ApiError | CommandError):
            log.error("a command failed", exc_info=error)
            error = internal_error(f"{type(error).__name__}: {error}")
        lines = await self._lines(error, objects)
        if lines is not None:
            await _say(terminal, "\n".join(lines))
        elif isinstance(error, ApiError):
            await terminal.send(Error(error.code, tuple(error.params)))

    async def _lines(self, error: ApiError | CommandError, objects: Objects | None) -> list[str] | None:
        if isinstance(error, CommandError):
            return [f"Error: {error}"]
        return await describe(error, self._catalogue, objects)


async def _login(api: XenApi, params: Params, command: Command) -> None:
    """Raises `AuthenticationError`, or what else the API has against it."""
    user = params.get("username")
    try:
        await api.login(user, params.get("password"), local=command.local)
    except ApiError as error:
        if error.code != "SESSION_AUTHENTICATION_FAILED":
            raise
        raise AuthenticationError("Authentication failed" if user else "Username/password must be specified") from error


async def _uninterrupted(api: XenApi, local: bool) -> None:
    """Logs out even if the conversation is being cancelled: a session must not stay behind."""
    logout = asyncio.ensure_future(api.logout(local=local))
    try:
        await asyncio.shield(logout)
    except asyncio.CancelledError:
        await logout
        raise


async def _say(terminal: Terminal, text: str) -> None:
    await terminal.send(PrintStderr(f"{text}\n"))


async def _backtrace(terminal: Terminal, error: Exception) -> None:
    if isinstance(error, ApiError):
        await _say(terminal, f"Raised Server_error({error.code}, [ {'; '.join(error.params)} ])")
    await _say(terminal, "Backtrace:\n" + "".join(traceback.format_exception(error)).rstrip())
