"""Programs that services bring beside themselves. The pool does not import services: it runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TIMEOUT = 60.0


class ModuleFailed(Exception):
    """The program did not do its work; the text is what it said."""


def run_module(module: str, *arguments: str) -> None:
    """`python -m module arguments...`. Raises `ModuleFailed`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModuleFailed(f"{module}: {error}") from error
    if done.returncode:
        raise ModuleFailed(f"{module}: {(done.stderr or done.stdout).strip()[-500:]}")
