"""One JSON line per event, with the task, session and trace it belongs to."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from typing import Any

import orjson

from shared.bus.context import current

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "taskName"}


def track_id(session: str) -> str:
    """How a session is named in logs: its reference is a credential."""
    return "trackid=" + hashlib.md5(session.encode(), usedforsecurity=False).hexdigest() if session else ""


class JsonFormatter(logging.Formatter):
    """Fields given as `extra=` become members of the line."""

    def __init__(self, service: str, host: str) -> None:
        super().__init__()
        self._service, self._host = service, host

    def format(self, record: logging.LogRecord) -> str:
        context = current.get()
        created = time.gmtime(record.created)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', created)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "host": self._host,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if context.task:
            line["task"] = context.task
        if context.session:
            line["session"] = track_id(context.session)
        if context.traceparent:
            line["trace"] = context.traceparent[3:35]
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(service: str, host: str, level: str) -> None:
    """Logs to standard error; whoever started the process decides where that goes."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service, host))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("pika", "asyncio", "qemu.qmp", "uvicorn.error", "kombu", "amqp"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
