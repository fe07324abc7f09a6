"""Errors as clients see them: a code of the XenAPI catalogue and its parameters, all text.

The catalogue itself (parameter names, descriptions) is `shared.datamodel.errors`.
"""

from __future__ import annotations


class ApiError(Exception):
    """A failure with a catalogue code. `params` are strings in catalogue order; refs, not uuids, unless documented."""

    def __init__(self, code: str, *params: object) -> None:
        self.code = code
        self.params: list[str] = [str(p) for p in params]
        super().__init__(code, *self.params)

    @property
    def description(self) -> list[str]:
        """The XenAPI `ErrorDescription`: code first, then the parameters."""
        return [self.code, *self.params]

    def __str__(self) -> str:
        """For logs, which must not show sessions: their references are credentials, of other pools as well."""
        shown = ["..."] if self.code == "SESSION_INVALID" else self.params
        return f"{self.code}({', '.join(shown)})"


def internal_error(text: object) -> ApiError:
    """INTERNAL_ERROR with one parameter, for what no catalogue code describes."""
    return ApiError("INTERNAL_ERROR", text)


class DatabaseConflict(ApiError):
    """A `transact` precondition did not hold: read again, decide again, retry (see `shared.database`).

    Params: the index of the precondition, class, ref, field (or ""). Never reaches an API client.
    """

    def __init__(self, index: object, cls: object, ref: object, field: object = "") -> None:
        super().__init__("DB_CONFLICT", index, cls, ref, field)
