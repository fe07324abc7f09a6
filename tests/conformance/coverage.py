"""Writes docs/coverage.md: which messages work, and what passes of the conformance corpus.

python -m tests.conformance.coverage
"""

from __future__ import annotations

import inspect
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from services.api import implicit, operations
from services.api.operation import OPERATIONS
from shared.datamodel import model
from shared.datamodel.schema import Message
from tests.conformance import corpus

PAGE: Final = corpus.ROOT / "docs" / "coverage.md"

WORKS, IN_PART, MISSING, REMOVED, INTERNAL = "works", "in part", "not implemented", "removed", "between hosts"
STATES: Final = (WORKS, IN_PART, MISSING, REMOVED, INTERNAL)

HEAD: Final = """\
# What works

Made by `make docs` from the declarations and from the figures that `python -m tests.conformance` measured.

- **works**: does what the XenAPI says.
- **in part**: some uses answer NOT_IMPLEMENTED [what], before anything has been changed.
- **not implemented**: answers NOT_IMPLEMENTED [message], after the refusals that rows alone decide (HANDLE_INVALID,
  VM_BAD_POWER_STATE, HOST_OFFLINE ...), or an error of the catalogue that says what is not there (AUTH_IS_DISABLED).
- **removed**: answers MESSAGE_REMOVED, as the original.
- **between hosts**: hosts of the original call each other by it; ours use the bus. NOT_IMPLEMENTED unless it works.
"""


def state(message: Message) -> str:
    if message.removed:
        return REMOVED
    operation = OPERATIONS.get(message.wire_name)
    if operation is not None:
        if not operation.built:
            return MISSING
        return IN_PART if _gives_up(operation.body) else WORKS
    if message.wire_name in ("event.from", "event.next") or implicit.reader(message) is not None:
        return WORKS
    if implicit.writer(message) is not None and (message.field is None or not message.field.set_has_effect):
        return WORKS
    return INTERNAL if message.pool_internal else MISSING


def _gives_up(function: Callable[..., Any]) -> bool:
    """Whether it, or a function of its module that it calls, answers NOT_IMPLEMENTED."""
    if '"NOT_IMPLEMENTED"' in inspect.getsource(function):
        return True
    around = inspect.getclosurevars(function)
    called = {**around.globals, **around.nonlocals}.values()
    own = [each for each in called if inspect.isfunction(each) and each.__module__ == function.__module__]
    return any(_gives_up(each) for each in own if each is not function)


def page() -> str:
    operations.load()
    states = {name: state(message) for name, message in model.messages.items()}
    return "\n".join([HEAD, *_counts(states), *_figures(), *_listed(states)]) + "\n"


def _counts(states: dict[str, str]) -> list[str]:
    lines = ["## Messages by class", "", f"| class | {' | '.join(STATES)} |", f"|---|{'---:|' * len(STATES)}"]
    total: Counter[str] = Counter()
    for name, cls in model.classes.items():
        counts = Counter(states[message.wire_name] for message in cls.messages.values())
        total += counts
        lines.append(f"| {name} | {' | '.join(str(counts[each] or '') for each in STATES)} |")
    lines.append(f"| **all** | {' | '.join(f'**{total[each]}**' for each in STATES)} |")
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
        for wanted in (IN_PART, MISSING):
            found = [message.name for message in cls.messages.values() if states[message.wire_name] == wanted]
            if found:
                lines += [f"- **{name}**, {wanted}: {', '.join(found)}"]
    return lines


def main() -> int:
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
