"""`python -m bench [NAME...]`: runs the modules of this package that have a `main()`, and prints one table.

`main()` takes nothing, prints what it likes while it works, and returns its `bench.result.Result`s. A module that has a
`command(arguments)` instead is run alone and by its name: `python -m bench crash --rounds 2000`.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from collections.abc import Iterable
from types import ModuleType

import bench
from bench.result import Result

HEADER = ("measured", "value", "compared with", "value", "ratio", "aim", "")


def _names() -> list[str]:
    return [found.name for found in pkgutil.iter_modules(bench.__path__) if not found.name.startswith("_")]


def modules(wanted: Iterable[str]) -> list[ModuleType]:
    """All that measure something, or those named. Raises `SystemExit` for a name that is none."""
    names = _names()
    wanted = list(wanted)
    if unknown := set(wanted) - set(names):
        sys.exit(f"bench: no {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    loaded = [importlib.import_module(f"bench.{name}") for name in names if not wanted or name in wanted]
    return [module for module in loaded if hasattr(module, "main")]


def table(results: Iterable[Result]) -> str:
    rows = [HEADER, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(result: Result) -> tuple[str, ...]:
    bound = "at most" if result.better == "less" else "at least"
    return (
        result.name,
        _figure(result.value, result.unit),
        result.reference_name,
        _figure(result.reference, result.unit),
        f"{result.ratio:.2f}",
        f"{bound} {result.aim:.2f}" if result.aim is not None else "",
        result.verdict,
    )


def _figure(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def _name(module: ModuleType) -> str:
    return module.__name__.removeprefix("bench.")


def _summary(module: ModuleType) -> str:
    """What it measures, by the first sentence of its docstring, without the command that it may begin with."""
    first = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    return first.partition("`: ")[2] or first


def main() -> int:
    if sys.argv[1:2] and sys.argv[1] in _names():
        module = importlib.import_module(f"bench.{sys.argv[1]}")
        if hasattr(module, "command"):
            status: int = module.command(sys.argv[2:])
            return status
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures, and prints a table of ratios.",
        epilog="\n".join(f"  {_name(module):8} {_summary(module)}" for module in modules(())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="only these modules")
    results: list[Result] = []
    failed: list[str] = []
    for module in modules(parser.parse_args().names):
        name = _name(module)
        print(f"bench: {name}", flush=True)
        begun = time.monotonic()
        try:
            results += module.main() or []
        except Exception as error:  # one broken measurement must not hide the others
            failed.append(f"{name}: {type(error).__name__}: {error}")
        print(f"bench: {name} took {time.monotonic() - begun:.1f} s", flush=True)
    print()
    print(table(results))
    for line in failed:
        print(f"bench: failed: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
