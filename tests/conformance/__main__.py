"""Replays the corpus against a bare pool of its own.

python -m tests.conformance                    all of it: writes passing.txt and figures.toml, which `make docs` reads
python -m tests.conformance 'wire/*' task/set/*    these cases only: says how answers differ, writes nothing
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance import corpus
from tests.support.pool import PoolUnderTest, addresses


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("case", nargs="*", help="names of cases, * stands for anything")
    wanted = parser.parse_args().case
    with bare_pool() as pool:
        if wanted:
            outcome = corpus.replay(pool.url, pool.password, wanted)
            print(outcome.output, end="")
            return 1 if outcome.of("failed") else 0
        outcome = all_areas(pool)
    corpus.PASSING.write_text("".join(f"{case}\n" for case in sorted(outcome.passed)))
    write_figures(outcome)
    return 0


@contextmanager
def bare_pool() -> Iterator[PoolUnderTest]:
    with tempfile.TemporaryDirectory() as folder:
        place = addresses("", 121)
        pool = PoolUnderTest(Path(folder) / "p", "--bare", "--hosts", "1", "--backend", "simulator", *place)
        corpus.install_driver(pool.directory)
        pool.up()
        try:
            yield pool
        finally:
            pool.down()


def all_areas(pool: PoolUnderTest) -> corpus.Outcome:
    outcome = corpus.Outcome()
    for area in corpus.areas():
        begun = time.monotonic()
        part = corpus.replay(pool.url, pool.password, [f"{area}/*"])
        outcome.cases.update(part.cases)
        print(part.output.splitlines()[-1], f"({area}, {time.monotonic() - begun:.0f} s)", flush=True)
    return outcome


def write_figures(outcome: corpus.Outcome) -> None:
    lines = [f'measured = "{time.strftime("%Y-%m-%d")}"', "", "[areas]"]
    for area, counts in sorted(corpus.figures(outcome).items()):
        parts = ", ".join(f"{verdict} = {counts[verdict]}" for verdict in ("passed", "failed", "deviating", "skipped"))
        lines.append(f"{area} = {{ {parts} }}")
    corpus.FIGURES.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
