"""A process for tests: waits until it is told to stop. `python -m tests.pool.sleeper FILE [STATUS [TIMES] | --deaf]`.

It appends a line to FILE. With a STATUS it ends with it at once, the first so many TIMES; `--deaf` ignores SIGTERM.
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
    times = int(more[1]) if len(more) > 1 else sys.maxsize
    if more and more != ["--deaf"] and Path(path).read_text().count("started") <= times:
        print("the reason why it does not start", file=sys.stderr)
        sys.exit(int(more[0]))
    while True:
        signal.pause()


main()
