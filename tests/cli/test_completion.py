"""The bash completion file, with an `xe` that answers from a table."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "services" / "cli" / "xe.bash-completion"

FAKE = r"""#!/bin/sh
case "$*" in
    "help --all --minimal") echo 'vm-start,vm-shutdown,vm-param-get,host-list' ;;
    "help vm-start") printf '%s\n' 'command name            : vm-start' '        reqd params     : ' \
        '        optional params : force, on, paused, <vm-selectors>' '        description     : Starts VMs.' ;;
    "help vm-param-get") printf '%s\n' '        reqd params     : uuid, param-name' \
        '        optional params : param-key, database:' ;;
    "vm-list params=name-label --minimal") echo 'web01,web\,two,db' ;;
    "vm-list params=uuid --minimal") echo 'u1,u2' ;;
    "vm-list params=all") printf '%s\n' 'uuid ( RO)      : u1' '  name-label ( RW): web01' \
        '    platform (MRW): acpi: 1' ;;
    "vm-param-get uuid=u1 param-name=platform --minimal") echo 'acpi: 1; apic: true' ;;
esac
"""


def complete(folder: Path, line: str) -> list[str]:
    script = (
        f'source {FILE}; COMP_LINE="$1"; COMP_POINT=${{#1}}; read -r -a COMP_WORDS <<<"$1"; '
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _xe; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", line],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
    )
    assert done.stderr == ""
    return [word for word in done.stdout.split("\n") if word]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("xe vm-s", ["vm-start", "vm-shutdown"]),
        ("xe help host", ["host-list"]),
        ("xe vm-start o", ["on="]),
        ("xe vm-start --f", ["--force"]),
        ("xe vm-start vm=web", ["web01", "web,two"]),
        ("xe vm-start uuid=", ["u1", "u2"]),
        ("xe vm-param-get uuid=u", ["u1", "u2"]),
        ("xe vm-param-get uuid=u1 param-name=p", ["platform"]),
        ("xe vm-param-get uuid=u1 param-name=platform param-key=a", ["acpi", "apic"]),
    ],
)
def test_words_are_completed_from_what_the_server_says(tmp_path: Path, line: str, expected: list[str]) -> None:
    fake = tmp_path / "xe"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    assert complete(tmp_path, line) == expected
