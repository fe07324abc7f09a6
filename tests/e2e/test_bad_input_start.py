"""Pools that cannot start: what is missing or in the way is said, and nothing is left of the attempt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pool import processes
from tests.support.pool import ROOT, PoolUnderTest
from tests.support.small_disk import mounted

pytestmark = [pytest.mark.pool, pytest.mark.timeout(240)]


def path_without(*programs: str) -> str:
    """PATH, less the folders that have one of the programs."""
    folders = os.environ["PATH"].split(":")
    return ":".join(folder for folder in folders if not any(Path(folder, program).exists() for program in programs))


def assert_refused(pool: PoolUnderTest, done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert list(processes.marked(pool.directory)) == []


def test_without_rabbitmq_it_says_what_to_install(new_pool: PoolUnderTest) -> None:
    done = new_pool.command("up", *new_pool.options, environment={"PATH": path_without("erl", "epmd")})
    assert_refused(new_pool, done, "RabbitMQ is not installed", "apt-get install rabbitmq-server")


def test_without_qemu_a_pool_on_qemu_says_what_to_install(new_pool: PoolUnderTest) -> None:
    options = [option if option != "simulator" else "qemu" for option in new_pool.options]
    done = new_pool.command("up", *options, environment={"PATH": path_without("qemu-system-x86_64")})
    assert_refused(new_pool, done, "qemu-system-x86_64 is not installed", "apt-get install qemu-system-x86")
    assert not (new_pool.directory / "pool.json").exists()


def test_a_broker_that_is_not_there(new_pool: PoolUnderTest) -> None:
    done = new_pool.command("up", *new_pool.options, "--amqp-url", "amqp://me:secret@127.0.0.1:1/x")
    assert_refused(new_pool, done, "127.0.0.1:1", "no broker")
    assert "secret" not in done.stderr


def test_a_file_where_the_folder_should_be(new_pool: PoolUnderTest) -> None:
    new_pool.directory.write_text("in the way")
    done = new_pool.command("up", *new_pool.options)
    assert_refused(new_pool, done, "cannot write in", str(new_pool.directory))
    new_pool.directory.unlink()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_folder_that_cannot_be_written(new_pool: PoolUnderTest) -> None:
    with mounted(new_pool.directory, 1):
        subprocess.run(["mount", "-o", "remount,ro", str(new_pool.directory)], check=True)
        done = new_pool.command("up", *new_pool.options)
        assert_refused(new_pool, done, "cannot write in", "Read-only file system")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_is_too_small(new_pool: PoolUnderTest) -> None:
    with mounted(new_pool.directory, 2):
        done = new_pool.command("up", *new_pool.options)
        assert_refused(new_pool, done, "no space")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}'])
def test_a_damaged_plan_is_named(new_pool: PoolUnderTest, content: str) -> None:
    new_pool.directory.mkdir()
    (new_pool.directory / "pool.json").write_text(content)
    done = new_pool.command("up", *new_pool.options)
    assert_refused(new_pool, done, "pool.json")


def test_two_starts_at_the_same_time_make_one_pool(new_pool: PoolUnderTest) -> None:
    command = [sys.executable, "-m", "pool", "--dir", str(new_pool.directory), "up", *new_pool.options]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    statuses = sorted(process.returncode for process in both)
    assert statuses == [0, 1], said
    refusal = next(errors for process, (_, errors) in zip(both, said, strict=True) if process.returncode)
    assert "another command is starting or stopping the pool" in refusal
    supervisors = [
        pid for pid in processes.marked(new_pool.directory) if "pool.supervisor" in processes.command_line(pid)
    ]
    assert len(supervisors) == 1
    new_pool.wait_ready()
    new_pool.down()
