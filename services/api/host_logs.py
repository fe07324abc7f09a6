"""The log files of a host's processes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_LOG: Final = re.compile(r"[A-Za-z0-9._-]+\.log(\.\d+)?")


def log_files(folder: str) -> list[Path]:
    """Those in that very folder; links are not followed. Blocking. None without a folder."""
    if not folder or not Path(folder).is_dir():
        return []
    return sorted(
        path
        for path in Path(folder).iterdir()
        if _LOG.fullmatch(path.name) and path.is_file() and not path.is_symlink()
    )
