"""What a pool consists of."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pool import configuration, plan, programs
from pool.configuration import Guest
from pool.plan import Plan, PlanError, Wanted
from services.db import seed
from services.db.seed import Seed
from shared.contracts.db import Create

DIRECTORY = Path("/srv/pool")


def make(wanted: Wanted | None = None, *, root: bool = True, qemu: bool = True) -> Plan:
    return plan.make(DIRECTORY, wanted or Wanted(), plan.defaults(root=root, qemu=qemu))


def test_by_default_it_is_three_hosts_on_loopback_addresses_of_their_own() -> None:
    made = make()
    assert [host.address for host in made.hosts] == ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
    assert [host.coordinator for host in made.hosts] == [True, False, False]
    assert made.url(made.first_coordinator) == "http://127.0.0.11"


def test_without_root_it_listens_on_ports_above_1024() -> None:
    made = make(root=False)
    assert made.url(made.hosts[1]) == "http://127.0.0.12:8080"
    assert made.https_port == 8443


def test_without_qemu_the_hosts_are_simulated() -> None:
    assert make(qemu=False).hosts[0].backend == "simulator"
    assert make(qemu=True).hosts[0].backend == "qemu"


def test_simulated_hosts_share_one_group_of_processes() -> None:
    made = make(Wanted(hosts=2, simulate=64))
    listed = programs.programs(DIRECTORY, made)
    assert {program.group for program in listed} == {"host1", "host2", "simulated"}
    assert len(made.hosts) == 66
    assert dict(made.groups())["simulated"][0].address == "127.0.1.1"


def test_what_only_a_coordinator_needs_runs_on_every_host_that_may_become_one() -> None:
    listed = programs.programs(DIRECTORY, make(Wanted(hosts=2, simulate=3)))
    for service in ("db", "alerts"):
        assert [program.group for program in listed if program.service == service] == ["host1", "host2"]
    assert [program.group for program in listed if program.service == "api"] == ["host1", "host2", "simulated"]


def test_addresses_skip_those_that_end_in_0_and_255() -> None:
    made = make(Wanted(hosts=1, simulate=3, simulated_address="127.0.1.254"))
    assert [host.address for host in made.hosts[1:]] == ["127.0.1.254", "127.0.2.1", "127.0.2.2"]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Wanted(hosts=0), "HOSTS=0"),
        (Wanted(simulate=-1), "SIMULATE=-1"),
        (Wanted(backend="xen"), "backend"),
        (Wanted(base_address="10.0.0.1"), "not a loopback address"),
        (Wanted(base_address="localhost"), "--base-address"),
        (Wanted(base_address="127.255.255.250", hosts=9), "leaves no room"),
        (Wanted(simulate=5, simulated_address="127.0.0.10"), "overlap"),
        (Wanted(http_port=0), "is not a port"),
        (Wanted(http_port=443), "must differ"),
    ],
)
def test_options_that_make_no_pool_are_refused_by_name(wanted: Wanted, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        make(wanted)


def test_sockets_of_a_folder_with_a_long_path_are_elsewhere() -> None:
    short, long = Path("/srv/pool"), Path("/" + "x" * 100)
    assert plan.socket_path(short, "host1") == Path("/srv/pool/host1/xapi.sock")
    assert not plan.socket_path(long, "host1").is_relative_to(long)
    assert plan.socket_path(long, "host1") != plan.socket_path(Path("/" + "y" * 100), "host1")


def test_hosts_that_share_a_kernel_name_their_devices_apart() -> None:
    prefixes = {host.device_prefix for host in make(Wanted(hosts=64)).hosts}
    assert len(prefixes) == 64
    assert {len(prefix) for prefix in prefixes} == {6}


def test_the_plan_is_kept(tmp_path: Path) -> None:
    made = make(Wanted(simulate=2))
    assert plan.load(tmp_path) is None
    plan.save(tmp_path, made)
    assert plan.load(tmp_path) == made


def test_only_options_that_were_given_can_differ_from_a_kept_pool() -> None:
    made = make(Wanted(hosts=3))
    assert plan.differs(made, Wanted()) == []
    assert plan.differs(made, Wanted(hosts=3, backend="qemu")) == []
    assert plan.differs(made, Wanted(hosts=5)) == ["HOSTS=5 (it has 3)"]


def test_a_bare_pool_has_neither_sr_nor_templates() -> None:
    made = make(Wanted(bare=True))
    seeded = msgspec.convert(configuration.seed(made, Guest()), Seed)
    rows = [row for row in seed.changes(seeded) if isinstance(row, Create)]
    assert {row.cls for row in rows}.isdisjoint({"SR", "PBD"})
    assert all(row.fields["is_control_domain"] for row in rows if row.cls == "VM")
    assert plan.differs(make(), Wanted(bare=True)) == ["BARE=True (it has False)"]
