"""The contract of an imaginary service, under a name of its own for each test."""

from __future__ import annotations

from shared.bus.contract import Absent, Empty, Method, Record, Replay, Scope, Topic


class Number(Record, frozen=True):
    n: int


class Text(Record, frozen=True):
    text: str


class Contract:
    def __init__(self, service: str) -> None:
        self.service = service
        self.add = Method(service, "add", Number, Number, "One more.", Scope.POOL)
        self.slow = Method(service, "slow", Number, Number, "Takes its time.", Scope.POOL)
        self.once = Method(service, "once", Number, Number, "Not to be run twice.", Scope.POOL, replay=Replay.ONCE)
        self.patient = Method(service, "patient", Number, Number, "Waits.", Scope.POOL, absent=Absent.WAIT)
        self.on_host = Method(service, "on_host", Number, Number, "On one host.")
        self.count = Method(service, "count", Number, Number, "0, 1, ... n - 1.", Scope.POOL, streams=True)
        self.echo = Method(service, "echo", Text, Text, "The same text.", Scope.POOL)
        self.echo_number = Method(service, "echo", Number, Text, "The caller's wrong idea of `echo`.", Scope.POOL)
        self.wrong_reply = Method(service, "add", Number, Text, "The caller's wrong idea of `add`.", Scope.POOL)
        self.where = Method(service, "where", Empty, Text, "The context of the call, as text.", Scope.POOL)
        self.event: Topic[Number] = Topic(service + ".{what}.{which}", Number, "Something happened.")
        self.wrong_event: Topic[Text] = Topic(service + ".{what}.{which}", Text, "Another idea of `event`.")
