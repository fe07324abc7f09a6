"""What the service keeps in files: records, counters, logs, and where its sockets are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.vm.backend import Built, Disk, Domain, StopReason
from services.vm.options import Options, run_folder
from services.vm.qemu import event_log
from services.vm.records import Counters, Phase, Record, Records
from shared.config import BusConfig, Config, ConfigError
from shared.contracts.vm import PowerState
from tests.vm import specs


def record() -> Record:
    vm = specs.vm(vbds=[specs.disk(), specs.empty_cd()])
    domain = Domain(vm=vm, domid=5, disks=tuple(Disk(vbd) for vbd in vm.vbds))
    built = Built(accel="tcg", pid=1, started=2)
    return Record(
        domain=domain, phase=Phase.BUILT, boot="b", power_state=PowerState.RUNNING, start_time=1.5, built=built
    )


def test_records_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    records, one = Records(tmp_path), record()
    records.put(one)
    assert Records(tmp_path).load() == [one]
    records.remove(one.uuid)
    records.remove(one.uuid)
    assert Records(tmp_path).load() == []


def test_a_torn_record_is_set_aside(tmp_path: Path) -> None:
    records, one = Records(tmp_path), record()
    records.put(one)
    (tmp_path / "x.json").write_text('{"domain":')
    (tmp_path / "y.new").write_text("")
    assert records.load() == [one]
    assert (tmp_path / "x.unreadable").exists()


def test_a_record_stays_in_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a uuid"):
        Records(tmp_path).remove("../x")


def test_counters_never_go_back(tmp_path: Path) -> None:
    first = Counters(tmp_path / "counters")
    domid, seq = first.next_domid(), [first.next_seq() for _ in range(3)]
    second = Counters(tmp_path / "counters")  # the first was killed
    assert second.next_domid() > domid
    assert second.next_seq() > seq[2] > seq[1]
    first.close()
    second.close()


def config(state: Path) -> Config:
    return Config(service="vm", state_dir=str(state), bus=BusConfig(url=""))


def test_sockets_are_in_the_state_folder_when_its_path_is_short(tmp_path: Path, short_folder: Path) -> None:
    assert run_folder(Options(), config(short_folder)) == short_folder / "run"
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    folder = run_folder(Options(), config(deep))
    assert len(str(folder)) < 80
    assert folder != run_folder(Options(), config(tmp_path / ("d" * 60) / ("f" * 60)))
    folder.rmdir()
    run_folder(Options(), config(tmp_path / ("d" * 60) / ("f" * 60))).rmdir()


def test_a_configured_folder_whose_path_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        run_folder(Options(run_dir="/" + "x" * 90), config(Path("/tmp")))


SHUTDOWN = b'{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "%s"}}\r\n'


def test_the_last_reason_in_qemus_log_counts(tmp_path: Path) -> None:
    log = tmp_path / "events"
    assert event_log.last_shutdown_reason(log) == ""
    log.write_bytes(
        b"x" * 70000 + b"\n" + SHUTDOWN % b"guest-reset" + SHUTDOWN % b"guest-shutdown" + b'{"event": "STOP"}'
    )
    assert event_log.last_shutdown_reason(log) == "guest-shutdown"


def test_a_process_that_was_told_to_end_has_not_crashed(tmp_path: Path) -> None:
    log = tmp_path / "events"
    assert event_log.how_it_ended(log) is StopReason.DIED
    log.write_bytes(SHUTDOWN % b"host-signal")
    assert event_log.how_it_ended(log) is StopReason.ENDED


def test_a_trimmed_log_keeps_its_end_and_gives_its_blocks_back(tmp_path: Path) -> None:
    log = tmp_path / "output"
    with log.open("ab", buffering=0) as writer:
        for _ in range(6):
            writer.write(b"a" * 2**20)
        writer.write(b"the end")
        before = os.stat(log).st_blocks
        event_log.trim(log)
        writer.write(b", and more")
    assert os.stat(log).st_blocks < before / 10
    assert event_log.tail(log, 17) == b"the end, and more"
    assert event_log.tail(log).startswith(b"a")
    event_log.trim(tmp_path / "absent")
