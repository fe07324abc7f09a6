"""`python -m tests.db.crash.process`: the database process on a disk that loses, cuts and refuses.

--config FILE          as for `python -m services.db`
--disk DISK            real | lossy | faulty | lossy+faulty
--image FOLDER         of the lossy disk: what a power cut would leave
--seed N               of the random faults
--boot TEXT            the machine's boot: another one after each power cut
"""

from __future__ import annotations

import argparse
import random
import sys
from functools import partial
from pathlib import Path
from typing import Final

from services.db.disk import Disk
from services.db.service import setup
from shared.config import load
from shared.service import main as service_main
from tests.support.faulty_disk import RandomFaults
from tests.support.lossy_disk import LossyDisk

DISKS: Final = ("real", "lossy", "faulty", "lossy+faulty")


def disk(kind: str, root: Path, image: Path, seed: int) -> Disk:
    inner = LossyDisk(root, image) if "lossy" in kind else Disk()
    return RandomFaults(random.Random(seed), inner) if "faulty" in kind else inner


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.db.crash.process")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--disk", choices=DISKS, default="real")
    parser.add_argument("--image", type=Path, default=Path("image"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--boot", default="boot")
    given = parser.parse_args(arguments)
    root = load(given.config).state
    root.mkdir(parents=True, exist_ok=True)
    made = disk(given.disk, root, given.image, given.seed)
    sys.argv = [sys.argv[0], "--config", str(given.config)]
    service_main("db", partial(setup, disk=made, boot=lambda: str(given.boot)))


if __name__ == "__main__":
    main()
