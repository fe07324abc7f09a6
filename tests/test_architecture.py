"""The seams of docs/architecture.md hold in the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "__init__.py").exists())


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other_service(service: str) -> None:
    strange = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(f"services/{service}")
        for name in imports(path)
        if name.startswith("services.") and name.split(".")[1] != service
    ]
    assert strange == []


def test_what_is_shared_imports_no_service() -> None:
    strange = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources("shared")
        for name in imports(path)
        if name.split(".")[0] in ("services", "pool", "tests")
    ]
    assert strange == []


def test_the_product_never_reads_the_reference() -> None:
    strange = [
        str(path.relative_to(ROOT))
        for folder in ("services", "shared", "pool")
        for path in sources(folder)
        if "reference/" in path.read_text() or "conformance/" in path.read_text()
    ]
    assert strange == []


def test_nothing_waits_with_wait_for() -> None:
    """Up to Python 3.11 it swallows a cancellation that comes together with the result: then the work goes on, and
    whoever cancelled it waits for ever. `asyncio.timeout` does not.
    """
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("services", "shared", "pool")
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncio.wait_for"
    ]
    assert found == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_can_be_started_by_name(service: str) -> None:
    main = ROOT / "services" / service / "__main__.py"
    assert main.exists()
    assert f'main("{service}", setup)' in main.read_text()


def test_every_contract_names_a_service_that_exists() -> None:
    import importlib

    from shared.bus.contract import Method

    for path in sources("shared/contracts"):
        if path.stem in ("__init__", "service"):
            continue
        module = importlib.import_module(f"shared.contracts.{path.stem}")
        for value in vars(module).values():
            if isinstance(value, Method):
                assert value.service in SERVICES, value.key
