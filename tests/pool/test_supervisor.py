"""The supervisor, with processes that do nothing but live and die."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool import processes, programs, supervisor
from pool.processes import Process
from pool.programs import Program
from shared.host_role import RESTART
from tests.pool.conditions import eventually


class Fleet:
    """A supervised folder of sleepers, each named `host1/<service>`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs: list[Program] = []

    def add(self, service: str, *more: str, stage: int = 0) -> Program:
        (self.directory / "host1").mkdir(exist_ok=True)
        argv = [sys.executable, "-m", "tests.pool.sleeper", str(self.directory / service), *more]
        self.programs.append(Program(group="host1", service=service, argv=argv, stage=stage))
        return self.programs[-1]

    def start(self) -> int:
        programs.save(self.directory, self.programs)
        return supervisor.start(self.directory)

    def running(self, program: Program) -> int:
        process = processes.find(program.pid_file(self.directory), program.argv)
        if process is None:
            return 0
        with process:
            return process.pid

    def wait_running(self, program: Program, *, other_than: int = 0) -> int:
        return eventually(f"{program.name} runs", lambda: pid if (pid := self.running(program)) != other_than else 0)

    def child(self, program: Program) -> supervisor.ChildState:
        def look() -> supervisor.ChildState | None:
            state = supervisor.read_state(self.directory)
            return next((child for child in state.children if child.name == program.name), None) if state else None

        return eventually("the supervisor tells its state", look)

    def log(self) -> str:
        return (self.directory / "supervisor.log").read_text()

    def stop(self) -> None:
        process = supervisor.find(self.directory)
        if process is not None:
            with process:
                assert process.stop(30), "the supervisor did not end by itself"

    def stray(self) -> list[int]:
        return list(processes.marked(self.directory))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.stop()
        for pid in made.stray():
            if (process := Process.open(pid)) is not None:
                with process:
                    process.stop(0)


def test_every_process_is_started_and_stopped_with_the_supervisor(fleet: Fleet) -> None:
    listed = [fleet.add("db"), fleet.add("api", stage=1)]
    fleet.start()
    for program in listed:
        fleet.wait_running(program)
    fleet.stop()
    assert fleet.stray() == []
    assert not any(program.pid_file(fleet.directory).exists() for program in listed)


def test_a_killed_process_comes_back_and_the_log_says_so(fleet: Fleet) -> None:
    program = fleet.add("db")
    fleet.start()
    first = fleet.wait_running(program)
    os.kill(first, signal.SIGKILL)
    second = fleet.wait_running(program, other_than=first)
    assert second != first
    eventually("the death is counted", lambda: fleet.child(program).restarts == 1)
    assert "SIGKILL" in fleet.child(program).last_exit
    assert "host1/db: ended (signal SIGKILL), starting it again in 0.1 s" in fleet.log()


def test_a_process_that_keeps_dying_is_started_ever_more_slowly(fleet: Fleet) -> None:
    program = fleet.add("db", "3")
    fleet.start()
    eventually("it died four times", lambda: fleet.child(program).failures >= 4)
    log = fleet.log()
    delays = ["starting it again in 0.1 s", "starting it again in 0.2 s", "starting it again in 0.4 s"]
    assert [delay for delay in delays if delay in log] == delays
    assert "exit status 3" in fleet.child(program).last_exit


def test_a_process_whose_host_has_another_role_is_started_again_at_once(fleet: Fleet) -> None:
    program = fleet.add("api", str(RESTART), "5")
    fleet.start()
    fleet.wait_running(program)
    eventually("it has been started six times", lambda: fleet.child(program).restarts == 5)
    child = eventually("it stays", lambda: found if (found := fleet.child(program)).state == "running" else None)
    assert child.failures == 0
    assert "starting it again in" not in fleet.log()


def test_a_process_that_asks_for_it_for_ever_is_started_ever_more_slowly(fleet: Fleet) -> None:
    program = fleet.add("api", str(RESTART))
    fleet.start()
    eventually("it counts as failing", lambda: fleet.child(program).failures >= 2)
    assert "starting it again in 0.1 s" in fleet.log()


def test_later_stages_are_stopped_before_earlier_ones(fleet: Fleet) -> None:
    first, last = fleet.add("db"), fleet.add("api", "--deaf", stage=1)
    fleet.start()
    fleet.wait_running(first)
    eventually("the deaf one has started", lambda: (fleet.directory / "api").exists())
    deaf = fleet.wait_running(last)
    process = supervisor.find(fleet.directory)
    assert process is not None
    with process:
        process.signal(signal.SIGTERM)
        eventually("stopping has begun", lambda: '"message":"stopping"' in fleet.log())
        assert fleet.running(first)  # its stage has to wait
        os.kill(deaf, signal.SIGKILL)
        assert process.wait(10)
    assert fleet.stray() == []


def test_processes_outlive_a_killed_supervisor_and_the_next_one_takes_them_over(fleet: Fleet) -> None:
    listed = [fleet.add("db"), fleet.add("api")]
    killed = fleet.start()
    before = [fleet.wait_running(program) for program in listed]
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    assert [fleet.running(program) for program in listed] == before
    os.kill(before[1], signal.SIGKILL)
    listed[0].pid_file(fleet.directory).unlink()  # as if it had been killed before it wrote it
    fleet.start()
    fleet.wait_running(listed[1], other_than=before[1])
    assert fleet.wait_running(listed[0]) == before[0]
    os.kill(before[0], signal.SIGKILL)
    fleet.wait_running(listed[0], other_than=before[0])


def test_a_second_supervisor_of_the_same_folder_gives_up(fleet: Fleet) -> None:
    program = fleet.add("db")
    fleet.start()
    pid = fleet.wait_running(program)
    with pytest.raises(supervisor.SupervisorError, match="another supervisor runs the pool"):
        supervisor.start(fleet.directory)
    assert fleet.running(program) == pid
    assert supervisor.runs(fleet.directory)


def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(fleet: Fleet) -> None:
    program = fleet.add("db")
    program.pid_file(fleet.directory).write_text(f"{os.getpid()}\n")
    assert processes.find(program.pid_file(fleet.directory), program.argv) is None


def test_a_long_log_is_cut_and_its_older_part_kept(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fleet.add("db")
    log = program.log_file(fleet.directory)
    log.write_bytes(b"x" * (supervisor.LOG_LIMIT + 1))
    fleet.start()
    eventually("the log is emptied", lambda: log.stat().st_size == 0)
    assert log.with_name("db.log.1").stat().st_size == supervisor.LOG_LIMIT + 1
