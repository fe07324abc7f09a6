"""The word in which error codes are declared."""

from __future__ import annotations

from typing import NamedTuple


class ErrorDecl(NamedTuple):
    """`params`: names of the texts that follow the code, in order. `doc`: what happened and what helps."""

    code: str
    params: tuple[str, ...]
    doc: str


def error(code: str, doc: str, *params: str) -> ErrorDecl:
    return ErrorDecl(code, params, doc)
