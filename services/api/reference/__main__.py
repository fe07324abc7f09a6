"""Writes all pages into a folder: `python -m services.api.reference FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from services.api.reference.site import Site


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.api.reference", description=__doc__)
    parser.add_argument("folder", type=Path, help="is made if it is not there")
    folder: Path = parser.parse_args().folder
    site = Site()
    for path in site.paths():
        page = site.page(path)
        assert page is not None
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(page.content)
    print(f"{folder / 'index.html'}: the XenAPI reference")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
