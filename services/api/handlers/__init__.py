"""What the HTTP handlers do that are neither calls nor pages nor consoles: one module per noun.

A module registers its functions by `handler.handler`, under the names of their rows in `services.api.edge.handlers`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

MODULES: Final = (
    "audit_log",
    "blob",
    "config_sync",
    "database",
    "database_history",
    "export",
    "export_raw_vdi",
    "import_",
    "import_raw_vdi",
    "messages",
    "refusals",
    "system_status",
)


def load() -> None:
    """Registers every handler."""
    for name in MODULES:
        import_module(f"services.api.handlers.{name}")
