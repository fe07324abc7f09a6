"""The conformance corpus beside the repository, its replay against a pool, and what passes of it.

python -m tests.conformance        measures all of it, and writes passing.txt and figures.toml
"""

from __future__ import annotations

import glob
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT.parent / "shared" / "conformance"
PASSING = HERE / "passing.txt"
FIGURES = HERE / "figures.toml"
DEVIATIONS = HERE / "deviations.toml"

FACTS = ("simulator", "conformance-sr")
"""What a bare pool on the simulator offers to the corpus, with `install_driver`."""

VERDICTS = {"ok": "passed", "differs": "failed", "deviates": "deviating", "stale": "stale", "skipped": "skipped"}
"""First words of the replay's lines."""


@dataclass(slots=True)
class Outcome:
    """Cases by verdict: passed, failed, deviating (differs on purpose), stale (a deviation that passes), skipped."""

    cases: dict[str, str] = field(default_factory=dict)
    output: str = ""

    def of(self, *verdicts: str) -> set[str]:
        return {case for case, verdict in self.cases.items() if verdict in verdicts}

    @property
    def passed(self) -> set[str]:
        return self.of("passed", "stale")


def install_driver(pool: Path) -> None:
    """Before the pool in that folder starts: the corpus's storage driver is among those that it finds."""
    options = pool / "options"
    options.mkdir(parents=True, exist_ok=True)
    (options / "storage.toml").write_text(f'smapiv1_dir = "{FOLDER / "fixtures"}"\n')


def area(case: str) -> str:
    return case.partition("/")[0]


def areas() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "corpus").glob("*.jsonl"))


def committed() -> list[str]:
    """The cases that are known to pass."""
    return PASSING.read_text().split()


def patterns(cases: Iterable[str]) -> Iterator[str]:
    """Of these and no others. A name is known up to its first blank: that is what `committed` and `Outcome` have."""
    for case in cases:
        yield glob.escape(case)
        yield glob.escape(case) + " *"


def deviations() -> list[str]:
    """Names, or patterns of names, of the cases that differ on purpose."""
    return [deviation["case"] for deviation in tomllib.loads(DEVIATIONS.read_text())["deviation"]]


def replay(url: str, password: str, only: Iterable[str], timeout: float = 1200.0) -> Outcome:
    """Replays the cases that match one of the patterns."""
    command = [sys.executable, str(FOLDER / "replay.py"), url, "--user", "root", "--password", password]
    command += ["--compare", str(FOLDER / "golden"), "--deviations", str(DEVIATIONS), "--verbose"]
    command += ["--xe", str(Path(sys.executable).parent / "xe")]
    for fact in FACTS:
        command += ["--provides", fact]
    for pattern in only:
        command += ["--only", pattern]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the replay failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return Outcome(dict(_verdicts(done.stdout)), done.stdout)


def _verdicts(output: str) -> Iterator[tuple[str, str]]:
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word in VERDICTS:
            yield rest.strip().partition(":")[0].split(" ")[0], VERDICTS[word]


def details(outcome: Outcome, cases: Iterable[str]) -> str:
    """What the replay said about these cases."""
    wanted, lines, inside = set(cases), [], False
    for line in outcome.output.splitlines():
        if not line.startswith(" "):
            inside = line.startswith("differs") and line.split()[1] in wanted
        if inside:
            lines.append(line[:300])
    return "\n".join(lines)


def figures(outcome: Outcome) -> dict[str, Counter[str]]:
    """Per area: how many cases have each verdict."""
    counts: dict[str, Counter[str]] = {}
    for case, verdict in outcome.cases.items():
        counts.setdefault(area(case), Counter())["passed" if verdict == "stale" else verdict] += 1
    return counts
