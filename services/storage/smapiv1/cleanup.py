"""Removes what the drivers' mount namespaces of a stopped pool's hosts are made of, with all that drivers left mounted.

    python -m services.storage.smapiv1.cleanup --run-dir DIR

`--run-dir` is the service's option `run_dir`. Only for services that do not run: a running one removes its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from services.storage.smapiv1.private_view import remove
from shared.driver_view import FOLDER


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.storage.smapiv1.cleanup", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--run-dir", type=Path, required=True)
    folder = parser.parse_args().run_dir / FOLDER
    try:
        for host in sorted(folder.glob("*")):
            remove(host)
        folder.rmdir()
    except OSError as error:
        sys.exit(f"cannot unmount {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
