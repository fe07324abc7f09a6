"""A process for tests: waits until it is told to stop. `python -m tests.pool.sleeper FILE [STATUS | --deaf]`.

It appends its pid to FILE. With a STATUS it ends with it at once; `--deaf` ignores SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path


def main() -> None:
    path, *more = sys.argv[1:]
    if more == ["--deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Path(path).open("a") as file:
        file.write("started\n")
    if more and more != ["--deaf"]:
        print("the reason why it does not start", file=sys.stderr)
        sys.exit(int(more[0]))
    while True:
        signal.pause()


main()
