"""What a client of event.from asks, and what it looks at in an answer."""

from __future__ import annotations

from typing import Any

from tests.api.harness import Client


async def look(client: Client, classes: list[str], token: str = "", timeout: float = 0.0) -> Any:
    return await client.call("event.from", classes, token, timeout)


def kinds(answer: Any) -> list[tuple[str, str, str]]:
    return [(event["class"], event["operation"], event["ref"]) for event in answer["events"]]
