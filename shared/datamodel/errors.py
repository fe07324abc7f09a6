"""The catalogue of error codes."""

from __future__ import annotations

from typing import Final

from shared.datamodel.error_tables import api, authentication, hosts, networking, pools, storage, updates, vms
from shared.datamodel.error_tables.declaration import ErrorDecl

__all__ = ["CATALOGUE", "ErrorDecl"]

_TABLES = (api, authentication, hosts, pools, networking, storage, vms, updates)

CATALOGUE: Final[dict[str, ErrorDecl]] = {decl.code: decl for table in _TABLES for decl in table.ERRORS}
"""Every code that a client can meet. Codes of storage drivers, `SR_BACKEND_FAILURE_<number>`, are open-ended."""
