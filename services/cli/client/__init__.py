"""`xe`: the thin client. It sends the command line to a host, then does what the host tells it: print, load, transfer.

Standard library only, and nothing imported before it is needed: a shell script may run `xe` hundreds of times.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Runs one command. `argv`: without the program's name. Returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if "-version" in words:
        from services.cli.protocol import MAJOR, MINOR

        print(f"ThinCLI protocol: {MAJOR}.{MINOR}")
        return 0
    from services.cli.client.command import run

    return run(words)
