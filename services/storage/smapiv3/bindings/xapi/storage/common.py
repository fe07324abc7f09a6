"""Running other programs from a plug-in. The module is named as upstream's, which plug-ins import."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

from .. import InternalError
from . import log


def call(dbg: str, cmd_args: Sequence[str], error: bool = True, simple: bool = True, expRc: int = 0) -> Any:
    """Runs a program. Returns what it has printed (bytes), or, unless `simple`, (stdout, stderr, status).

    With `error`, another status than `expRc` raises InternalError.
    """
    log.debug("%s: Running cmd %s", dbg, cmd_args)
    done = subprocess.run(cmd_args, capture_output=True, check=False)
    if error and done.returncode != expRc:
        text = f"{' '.join(cmd_args)} exited with code {done.returncode}: {done.stderr.decode(errors='replace')}"
        log.error("%s: %s", dbg, text)
        raise InternalError(text)
    if simple:
        return done.stdout
    return done.stdout, done.stderr, done.returncode
