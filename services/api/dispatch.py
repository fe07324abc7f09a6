"""From a parsed call to its answer: which message, is it allowed, and who carries it out.

The order of checks decides which error a client sees (`wire-protocol` 2.3): method, arity, types, session, role, work.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from services.api import (
    emergency,
    events,
    extensions,
    implicit,
    member,
    opened_databases,
    operations,
    roles,
    sessions,
    unwritten,
)
from services.api.api import Api
from services.api.audit import calls
from services.api.call import Call, sync_name
from services.api.edge.dispatcher import Answer, Caller, HttpRefusal, Outcome, Waiting
from services.api.execute import Executor
from services.api.operation import OPERATIONS, Operation
from services.api.rate_limit.limiter import Turn
from services.api.records import Encoded
from services.api.wire import untyped
from services.api.wire.codec import Codec
from services.api.wire.raw import RawParams
from shared import trace
from shared.bus.context import CallContext, current
from shared.datamodel import model
from shared.datamodel.schema import MISSING, Message
from shared.datamodel.types import STRING, VOID, RefType, SetType, Type
from shared.errors import ApiError, internal_error

TASK_REF: Final = RefType("task")

EXTENSION: Final = model.messages["host.call_extension"]
"""What a method that nobody knows is taken for: a program that was added to the host."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A message and how it is carried out; one for each spelling of a method name."""

    message: Message
    asynchronous: bool
    read: implicit.Read | None
    write: Any
    operation: Operation | None


def failure(error: ApiError) -> Answer:
    return Answer(error=error.description)


def _answer(value: Encoded) -> Answer:
    return Answer(value=value) if isinstance(value, bytes) else Answer(pieces=value)


async def _answer_later(value: Coroutine[Any, Any, Encoded]) -> Answer:
    return _answer(await value)


class XenApi:
    """The dispatcher behind the edge."""

    def __init__(self, api: Api, hub: events.EventHub, executor: Executor, trace_ratio: float = 0.0) -> None:
        self._api = api
        self._hub = hub
        self._executor = executor
        self._ratio = trace_ratio
        self._targets: dict[str, _Target | None] = {}
        operations.load()

    # ---- finding the message

    def _target(self, method: str) -> _Target | None:
        if method not in self._targets:
            if len(self._targets) > 20_000:
                self._targets.clear()  # names that nobody knows are remembered too
            self._targets[method] = self._resolve(method)
        return self._targets[method]

    def _resolve(self, method: str) -> _Target | None:
        name, asynchronous = sync_name(method), False
        if name != method:
            asynchronous = True
        message = model.message(name)
        if message is None:
            return None
        operation = OPERATIONS.get(message.wire_name)
        return _Target(message, asynchronous, implicit.reader(message), implicit.writer(message), operation)

    # ---- one call

    def call(self, caller: Caller, method: str, params: RawParams, codec: Codec) -> Outcome:
        try:
            if not self._api.is_coordinator and method not in emergency.ANSWERED:
                reason = emergency.reason(self._api, caller.host)
                if reason is not None:
                    return Answer(error=reason.description, early=True)
            if method == LIST_METHODS or method.startswith(ALIVE):
                return _of_the_system(method, params, codec)
            target = self._target(method)
            if target is None:
                return self._unknown(caller, method, params, codec)
            if not self._api.is_coordinator and member.passes_on(self._api, caller, method):
                return self._to_coordinator(caller, method, params, target, codec)
            turn = self._api.limits.turn(caller, target.message.wire_name) if self._api.is_coordinator else None
            if turn is None or target.asynchronous:
                return self._dispatch(caller, method, target, params, codec, turn)
            delayed = self._delayed(turn, caller, method, target, params, codec)
            return Waiting(delayed) if _waits(target.message) else delayed
        except ApiError as error:
            return failure(error)

    async def _delayed(
        self, turn: Turn, caller: Caller, method: str, target: _Target, params: RawParams, codec: Codec
    ) -> Answer:
        """A call that begins later; an asynchronous one is answered at once, and only its work waits."""
        await turn
        try:
            outcome = self._dispatch(caller, method, target, params, codec)
        except ApiError as error:
            return failure(error)
        if isinstance(outcome, Answer):
            return outcome
        return await (outcome.answer if isinstance(outcome, Waiting) else outcome)

    def _dispatch(
        self,
        caller: Caller,
        method: str,
        target: _Target,
        params: RawParams,
        codec: Codec,
        turn: Turn | None = None,
    ) -> Outcome:
        message = target.message
        _check_count(message, params)
        arguments = () if message.removed else _arguments(message, params)
        session, store = "", self._api.store
        if message.session:
            session = params.text(0)
            row = sessions.check(self._api, message, session)
            if message.removed:
                raise ApiError("MESSAGE_REMOVED")
            if not target.asynchronous:
                self._check_role(caller, method, message, session, arguments)
            if row["auth_user_sid"] == opened_databases.SID:
                reads = target.read is not None and not target.asynchronous
                store = self._api.opened.rows(session, message, reads=reads)
        if target.asynchronous and not message.has_async:
            raise ApiError("Fault", f"No async mode for this operation (rpc: {message.wire_name})")
        if target.read is not None and not target.asynchronous:
            found = target.read(store, arguments, codec)
            return _answer(found) if isinstance(found, bytes | list) else _answer_later(found)
        if not self._api.is_coordinator and member.is_coordinators(self._api, method, message, session):
            return self._to_coordinator(caller, method, params, target, codec)
        call = Call(self._api, caller, message, method, session, turn=turn)
        if _waits(message):
            return Waiting(self._wait(call, arguments, codec))
        return self._carry_out(call, target, arguments, codec)

    async def _carry_out(self, call: Call, target: _Target, arguments: tuple[Any, ...], codec: Codec) -> Answer:
        # Of the HTTP request, or of the bus message that the call came in.
        traceparent = trace.accept(call.caller.traceparent or current.get().traceparent, self._ratio)
        traceparent, observed = self._api.observers.context(traceparent, current.get().observed)
        token = current.set(CallContext(traceparent=traceparent, observed=observed, session=call.session))
        try:
            operation = target.operation or self._implicit_write(target) or unwritten.operation(call.message)
            if target.asynchronous:
                return Answer(value=codec.encoder(TASK_REF)(await self._executor.start(call, operation, arguments)))
            value = await self._executor.run(call, operation, arguments)
            if call.message is EXTENSION:
                return Answer(value=untyped.fragment(codec, value))
            return Answer(value=_encode(codec, call.message.result, value))
        except ApiError as error:
            return failure(error)
        finally:
            current.reset(token)

    def _implicit_write(self, target: _Target) -> Operation | None:
        field = target.message.field
        if target.write is None or (field is not None and field.set_has_effect):
            return None
        make = target.write

        async def body(call: Call, *arguments: Any) -> None:
            await implicit.write(call.api, call.message, make(arguments), arguments[0])

        return Operation(target.message.wire_name, body, None)

    async def _wait(self, call: Call, arguments: tuple[Any, ...], codec: Codec) -> Answer:
        try:
            if call.message.name == "next":
                return await self._hub.next(call.session, codec)
            classes, token, timeout = arguments
            return await self._hub.wait(call.session, classes, token, timeout, codec)
        except ApiError as error:
            return failure(error)

    # ---- what is not an ordinary message

    def _check_role(
        self, caller: Caller, method: str, message: Message, session: str, arguments: tuple[Any, ...]
    ) -> None:
        """Raises RBAC_PERMISSION_DENIED, and notes it."""
        try:
            roles.check(self._api, session, message, arguments)
        except ApiError as error:
            calls.refused(Call(self._api, caller, message, method, session), arguments, error)
            raise

    def _unknown(self, caller: Caller, method: str, params: RawParams, codec: Codec) -> Outcome:
        """A program of the host may know it."""
        if len(params):
            session = params.text(0)
            sessions.check(self._api, EXTENSION, session)
            self._check_role(caller, method, EXTENSION, session, ())
            if sync_name(method) == method:
                return self._extended(caller, method, params, codec)
        raise ApiError("MESSAGE_METHOD_UNKNOWN", sync_name(method))

    async def _extended(self, caller: Caller, method: str, params: RawParams, codec: Codec) -> Answer:
        try:
            value = await extensions.run(self._api.bus, caller.host, method, params.values)
        except ApiError as error:
            return failure(error)
        return Answer(value=untyped.fragment(codec, value))

    def _to_coordinator(self, caller: Caller, method: str, params: RawParams, target: _Target, codec: Codec) -> Outcome:
        forwarded = self._forwarded(caller, method, params, target, codec)
        return Waiting(forwarded) if _waits(target.message) else forwarded

    async def _forwarded(self, caller: Caller, method: str, params: RawParams, target: _Target, codec: Codec) -> Answer:
        try:
            value = await member.ask(self._api, caller, method, params.values)
        except ApiError as error:
            return failure(error)
        if _waits(target.message):
            return Answer(value=events.relayed(codec, value))
        return Answer(value=_encode(codec, TASK_REF if target.asynchronous else target.message.result, value))


def _waits(message: Message) -> bool:
    """For events: the answer comes when there are some, and is not of the type that the model gives."""
    return message.wire_name in ("event.from", "event.next")


def _encode(codec: Codec, type_: Type, value: Any) -> bytes:
    if type_ is VOID:
        return codec.encoder(VOID)("")
    return codec.encoder(type_)(value)


def _check_count(message: Message, params: RawParams) -> None:
    """Raises MESSAGE_PARAMETER_COUNT_MISMATCH [message, wanted, given], the session not counted.

    Messages with parameters that may be left out ignore what is too much.
    """
    given = len(params) - (1 if message.session else 0)
    required = message.required
    if given < required or (given > len(message.params) and required == len(message.params)):
        raise ApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", message.wire_name, required, given)


def _arguments(message: Message, params: RawParams) -> tuple[Any, ...]:
    """The message's arguments, typed, defaults filled in. Raises INTERNAL_ERROR."""
    first = 1 if message.session else 0
    given = len(params) - first
    return tuple(
        params.get(first + index, param.type) if index < given else param.default
        for index, param in enumerate(message.params)
        if index < given or param.default is not MISSING
    )


LIST_METHODS: Final = "system.listMethods"
ALIVE: Final = "system.isAlive:"
ALIVE_LENGTH: Final = 36
"""Characters that the id after the colon has at least: it is meant to be a uuid."""


_names: Final[dict[str, bytes]] = {}
"""Codec to the names of all messages, encoded once: anybody may ask for them, and they are many."""


def _of_the_system(method: str, params: RawParams, codec: Codec) -> Answer:
    """Calls that need no session: the names of all messages; an echo, by which others see that this process lives."""
    if method == LIST_METHODS:
        if codec.name not in _names:
            _names[codec.name] = codec.encoder(SetType(STRING))(list(model.messages))
        return Answer(value=_names[codec.name], bare=True)
    if len(method) < len(ALIVE) + ALIVE_LENGTH:
        raise HttpRefusal(500, "The id is too short.")
    if not len(params):
        raise internal_error(f"{ALIVE} needs a parameter")
    return Answer(value=codec.encoder(STRING)(params.text(0)))
