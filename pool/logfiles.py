"""Log files for people: the services write one JSON object a line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import orjson

TAIL_LINES = 15
TAIL_SHOWN = 25
"""Tracebacks make one line many."""
TAIL_BYTES = 256 * 1024
FOLLOW_INTERVAL = 0.3


def tail(path: Path, *, lines: int = TAIL_LINES, raw: bool = False) -> str:
    """The last lines, indented and readable unless `raw`."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "  (there is no log)"
    found = text.splitlines()[-lines:]
    if raw:
        return "\n".join(found)
    shown = [part for line in found for part in readable(line).splitlines()][-max(lines, TAIL_SHOWN) :]
    return "\n".join(f"  {part}" for part in shown) or "  (the log is empty)"


def ready_since(path: Path, start: float) -> bool:
    """Whether the service has logged that it is ready, at or after that Unix time."""
    for line in reversed(tail(path, lines=2000, raw=True).splitlines()):
        if '"message":"ready"' not in line:
            continue
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, ValueError):
            record = orjson.loads(line)
            if record["logger"] == "service":
                # the kernel tells a process's start to the hundredth, and its own boot to the second
                return datetime.fromisoformat(record["time"]).timestamp() >= start - 1.0
    return False


def readable(line: str) -> str:
    """`time level message`, then the traceback; what is not one of our lines stays as it is."""
    try:
        record = orjson.loads(line)
        head = f"{record.pop('time')[11:-1]} {record.pop('level'):<8} {record.pop('message')}"
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return line
    traceback = record.pop("traceback", "")
    more = " ".join(f"{key}={value}" for key, value in record.items() if key not in ("service", "host", "logger"))
    return "\n".join(part for part in (f"{head} {more}".rstrip(), traceback) if part)


def follow(paths: dict[str, Path]) -> Iterator[str]:
    """Lines as they are written, with the name of their file's process, until interrupted."""
    with contextlib.ExitStack() as stack:
        files = {}
        for name, path in paths.items():
            file = stack.enter_context(path.open())
            file.seek(0, 2)
            files[name] = file
        while True:
            idle = True
            for name, file in files.items():
                if Path(file.name).stat().st_size < file.tell():
                    file.seek(0)  # the log was emptied: see the supervisor's rotation
                while line := file.readline():
                    idle = False
                    yield f"{name}: {readable(line.rstrip())}"
            if idle:
                time.sleep(FOLLOW_INTERVAL)
