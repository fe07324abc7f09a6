"""`python -m services.storage.smapiv3.bindings DIR` puts the Python packages for SMAPIv3 plug-ins into a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from services.storage.smapiv3.bindings import write


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    write(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
