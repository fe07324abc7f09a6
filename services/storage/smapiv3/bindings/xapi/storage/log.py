"""The log of a plug-in: its standard error, each line of which the toolstack puts into its own log.

The lines of one run stand there under one name, which is also in `dbg` and in the errors that clients see.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any

LOG_LEVEL = logging.DEBUG
LOG_TO_STDERR = True

_LOGGER = logging.getLogger()


def configure_logging() -> None:
    """Once, when this module is imported."""
    _LOGGER.setLevel(LOG_LEVEL)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
    _LOGGER.addHandler(handler)


def debug(message: str, *args: object, **kwargs: Any) -> None:
    _LOGGER.debug(message, *args, **kwargs)


def info(message: str, *args: object, **kwargs: Any) -> None:
    _LOGGER.info(message, *args, **kwargs)


def warning(message: str, *args: object, **kwargs: Any) -> None:
    _LOGGER.warning(message, *args, **kwargs)


def error(message: str, *args: object, **kwargs: Any) -> None:
    _LOGGER.error(message, *args, **kwargs)


def critical(message: str, *args: object, **kwargs: Any) -> None:
    _LOGGER.critical(message, *args, **kwargs)


def log_call_argv() -> None:
    info("called as: %s", sys.argv)


def handle_unhandled_exceptions(
    exception_type: type[BaseException], exception_value: BaseException, exception_traceback: TracebackType | None
) -> None:
    """Into the log as well, but for those that are meant for the client."""
    if not issubclass(exception_type, KeyboardInterrupt):
        told = hasattr(exception_value, "code")
        _LOGGER.log(
            logging.INFO if told else logging.ERROR,
            "Returned exception to XAPI" if told else "Unhandled exception",
            exc_info=(exception_type, exception_value, exception_traceback),
        )
    sys.__excepthook__(exception_type, exception_value, exception_traceback)


configure_logging()
sys.excepthook = handle_unhandled_exceptions
