"""Removes every bridge and tap of a prefix: `python -m services.network.cleanup --prefix P`, when a pool goes down.

Goes by the marks of the devices. Where a prefix was used, also a bridge or tap whose name begins with it and that has
no mark (the service died before it could put one).
"""

from __future__ import annotations

import argparse
import sys

from services.network import names
from services.network.links import Link, LinkError, Links


def cleanup(prefix: str, links: Links | None = None) -> list[str]:
    """Returns what was removed. Raises LinkError for the first that could not be, after trying all."""
    kernel = links or Links()
    ours = [link for link in kernel.all() if _ours(link, prefix)]
    removed, failures = [], []
    for link in sorted(ours, key=lambda link: link.kind == "bridge"):
        try:
            if kernel.delete(link.name):
                removed.append(link.name)
        except LinkError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return removed


def _ours(link: Link, prefix: str) -> bool:
    if link.kind not in ("bridge", "tun"):
        return False
    if link.mark:
        return link.mark.startswith(names.marks(prefix))
    return bool(prefix) and link.name.startswith(prefix)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.network.cleanup", description=(__doc__ or "").strip())
    parser.add_argument("--prefix", required=True, help="the `prefix` option of the network service that made them")
    prefix = parser.parse_args().prefix
    try:
        for name in cleanup(prefix):
            print(name)
    except LinkError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
