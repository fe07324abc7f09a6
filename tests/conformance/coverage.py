"""Writes docs/coverage.md: which messages work, and what passes of the conformance corpus.

python -m tests.conformance.coverage
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from typing import Final

from services.api import coverage
from shared.datamodel import model
from tests.conformance import corpus

PAGE: Final = corpus.ROOT / "docs" / "coverage.md"

HEAD: Final = """\
# What works

Made by `make docs` from the declarations and from the figures that `python -m tests.conformance` measured.
"""


def page() -> str:
    states = coverage.states()
    meaning = [f"- **{state}**: {text}." for state, text in coverage.MEANING.items()]
    return "\n".join([HEAD, *meaning, "", *_counts(states), *_figures(), *_listed(states)]) + "\n"


def _counts(states: dict[str, str]) -> list[str]:
    lines = [
        "## Messages by class",
        "",
        f"| class | {' | '.join(coverage.STATES)} |",
        f"|---|{'---:|' * len(coverage.STATES)}",
    ]
    total: Counter[str] = Counter()
    for name, cls in model.classes.items():
        counts = Counter(states[message.wire_name] for message in cls.messages.values())
        total += counts
        lines.append(f"| {name} | {' | '.join(str(counts[each] or '') for each in coverage.STATES)} |")
    lines.append(f"| **all** | {' | '.join(f'**{total[each]}**' for each in coverage.STATES)} |")
    return [*lines, ""]


def _figures() -> list[str]:
    measured = tomllib.loads(corpus.FIGURES.read_text())
    verdicts = ("passed", "failed", "deviating", "skipped")
    lines = [
        "## Conformance",
        "",
        f"Cases of the corpus, measured on {measured['measured']} on a bare pool of one simulated host.",
        "Deviating: answered otherwise on purpose (`tests/conformance/deviations.toml`). Skipped: needs what such a",
        "pool lacks (an SMAPIv1 storage driver, NICs to configure).",
        "",
        f"| area | {' | '.join(verdicts)} |",
        f"|---|{'---:|' * len(verdicts)}",
    ]
    total: Counter[str] = Counter()
    for area, counts in measured["areas"].items():
        total.update(counts)
        lines.append(f"| {area} | {' | '.join(str(counts[each] or '') for each in verdicts)} |")
    lines.append(f"| **all** | {' | '.join(f'**{total[each]}**' for each in verdicts)} |")
    return [*lines, ""]


def _listed(states: dict[str, str]) -> list[str]:
    lines = ["## Messages that do not work, or only in part", ""]
    for name, cls in model.classes.items():
        for wanted in (coverage.IN_PART, coverage.MISSING):
            found = [message.name for message in cls.messages.values() if states[message.wire_name] == wanted]
            if found:
                lines += [f"- **{name}**, {wanted}: {', '.join(found)}"]
    return lines


def main() -> int:
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
