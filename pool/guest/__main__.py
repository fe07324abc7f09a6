"""`python -m pool.guest [--output DIR] [--refresh]`: paths on standard output, progress on standard error."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pool.guest.build import DEFAULT_OUTPUT, GuestBuildError, build


def _say(line: str) -> None:
    print(f"guest: {line}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pool.guest", description="Builds the bundled tiny guest.")
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder that keeps it (default: %(default)s)"
    )
    parser.add_argument("--refresh", action="store_true", help="build again, with the newest packages")
    arguments = parser.parse_args()
    try:
        files = build(arguments.output, _say, refresh=arguments.refresh)
    except GuestBuildError as error:
        print(f"guest: cannot build it: {error}", file=sys.stderr)
        return 1
    print(f"kernel={files.kernel}")
    print(f"initramfs={files.initramfs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
