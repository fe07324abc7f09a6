"""Measures the whole corpus against a bare pool of its own; writes what passes, and the figures for `coverage.md`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.conformance import corpus
from tests.support.pool import PoolUnderTest, addresses


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        pool = PoolUnderTest(
            Path(folder) / "p", "--bare", "--hosts", "1", "--backend", "simulator", *addresses("", 121)
        )
        pool.up()
        try:
            outcome = corpus.Outcome()
            for area in corpus.areas():
                begun = time.monotonic()
                part = corpus.replay(pool.url, pool.password, [f"{area}/*"])
                outcome.cases.update(part.cases)
                print(part.output.splitlines()[-1], f"({area}, {time.monotonic() - begun:.0f} s)", flush=True)
        finally:
            pool.down()
    corpus.PASSING.write_text("".join(f"{case}\n" for case in sorted(outcome.passed)))
    write_figures(outcome)
    return 0


def write_figures(outcome: corpus.Outcome) -> None:
    lines = [f'measured = "{time.strftime("%Y-%m-%d")}"', "", "[areas]"]
    for area, counts in sorted(corpus.figures(outcome).items()):
        parts = ", ".join(f"{verdict} = {counts[verdict]}" for verdict in ("passed", "failed", "deviating", "skipped"))
        lines.append(f"{area} = {{ {parts} }}")
    corpus.FIGURES.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
