"""`python -m pool`: starts, shows and stops a pool. The Makefile's targets are these commands."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pool import down, folder, logfiles, outage, programs, waterfall
from pool.folder import FolderError
from pool.plan import Plan, PlanError, Wanted
from pool.status import status
from pool.up import StartError, up

USAGE = """
  URL        {XAPI_URL}     (the XenAPI's reference: {XAPI_URL}/docs/)
  user       {XAPI_USER}
  password   {password}

  . {env}
  {xe} host-list
  curl -s $XAPI_URL/jsonrpc -d \'{{"jsonrpc": "2.0", "id": 1, "method": "session.login_with_password",\
 "params": ["\'$XAPI_USER\'", "\'$XAPI_PASSWORD\'"]}}\'
  {python} -c \'import os, XenAPI; s = XenAPI.Session(os.environ["XAPI_URL"]);\
 s.login_with_password(os.environ["XAPI_USER"], os.environ["XAPI_PASSWORD"]); print(s.xenapi.host.get_all_records())\'

  make pool-status shows its processes, make pool-down stops it."""
"""What a started pool tells its user."""


def say(text: str) -> None:
    print(text, flush=True)


def progress(text: str) -> None:
    """A start or stop goes on when nobody reads any more."""
    try:
        say(f"pool: {text}")
    except BrokenPipeError:
        _discard_output()


def _discard_output() -> None:
    """What Python would still flush at its end, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    given.dir = given.dir.resolve()
    command: Callable[[argparse.Namespace], int] = given.run
    try:
        return command(given)
    except (StartError, PlanError, FolderError, down.DownError) as error:
        print(f"pool: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard_output()
        return 0


def _up(given: argparse.Namespace) -> int:
    if given.netns:
        raise PlanError("--netns is not supported yet: hosts share this machine's network")
    wanted = Wanted(
        hosts=given.hosts,
        simulate=given.simulate,
        backend=given.backend,
        base_address=given.base_address,
        simulated_address=given.simulated_address,
        http_port=given.http_port,
        https_port=given.https_port,
        bare=given.bare,
        auth=given.auth,
        pam_service=given.pam_service,
    )
    say(_usage(given.dir, up(given.dir, wanted, given.amqp_url, progress)))
    return 0


def _down(given: argparse.Namespace) -> int:
    down.down(given.dir, progress)
    return 0


def _clean(given: argparse.Namespace) -> int:
    down.clean(given.dir, progress)
    return 0


def _host_down(given: argparse.Namespace) -> int:
    outage.host_down(given.dir, given.host)
    return 0


def _host_up(given: argparse.Namespace) -> int:
    outage.host_up(given.dir, given.host)
    return 0


def _status(given: argparse.Namespace) -> int:
    table, runs = status(given.dir)
    say(table)
    return 0 if runs else 1


def _logs(given: argparse.Namespace) -> int:
    paths = {"supervisor": given.dir / "supervisor.log", "rabbitmq": given.dir / "rabbitmq" / "log" / "rabbit.log"}
    with contextlib.suppress(FileNotFoundError):
        paths |= {program.name: program.log_file(given.dir) for program in programs.load(given.dir)}
    chosen = {
        name: path
        for name, path in paths.items()
        if path.exists() and (not given.process or given.process in (name, *name.split("/")))
    }
    if not chosen:
        raise PlanError(f"no log of {given.process or 'a pool'} in {given.dir}; there are: {', '.join(paths)}")
    for name, path in chosen.items():
        say(f"{name} ({path}):\n{logfiles.tail(path, lines=given.lines)}")
    if given.follow:
        for line in logfiles.follow(chosen):
            say(line)
    return 0


def _trace(given: argparse.Namespace) -> int:
    if not given.trace:
        for span in waterfall.newest(given.dir, count=20):
            say(f"{span.trace_id}  {(span.end_ns - span.start_ns) / 1e6:9.3f} ms  {span.service}: {span.name}")
        return 0
    trace_id = given.trace.split("-")[1] if given.trace.count("-") == 3 else given.trace
    spans = waterfall.read(given.dir, trace_id)
    if not spans:
        raise PlanError(f"no span of trace {trace_id} in {given.dir} (only sampled calls leave some)")
    say(waterfall.render(spans))
    return 0


def _usage(directory: Path, pool: Plan) -> str:
    client = folder.env(directory, pool)
    programs_folder = _relative(Path(sys.prefix) / "bin")
    return USAGE.format(
        **client,
        password=client.get("XAPI_PASSWORD", "root's on this machine; for the examples set XAPI_PASSWORD"),
        env=_relative(directory / "env"),
        xe=f"{programs_folder}/xe -s $XAPI_COORDINATOR {_port(pool)}-u $XAPI_USER -pw $XAPI_PASSWORD",
        python=f"{programs_folder}/python",
    )


def _port(pool: Plan) -> str:
    return "" if pool.https_port == 443 else f"-p {pool.https_port} "


def _relative(path: Path) -> str:
    """As short as it can be typed here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pool", description="A pool of XenAPI hosts on this machine.")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(os.environ.get("POOL_DIR") or ".pool"),
        help="the pool's folder (default: $POOL_DIR, else .pool)",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    start = commands.add_parser("up", help="start the pool, or say that it runs")
    start.set_defaults(run=_up)
    start.add_argument("--hosts", type=int, help="hosts with processes of their own (default 3)")
    start.add_argument("--simulate", type=int, help="more hosts, simulated, in one shared group of processes")
    start.add_argument("--backend", help="qemu or simulator (default: qemu where it is installed)")
    start.add_argument("--base-address", help="the first host's address (default 127.0.0.11)")
    start.add_argument("--simulated-address", help="the first simulated host's address (default 127.0.1.1)")
    start.add_argument("--http-port", type=int, help="default 80 as root, else 8080")
    start.add_argument("--https-port", type=int, help="default 443 as root, else 8443")
    start.add_argument("--bare", action="store_true", default=None, help="without an SR and without templates")
    start.add_argument("--auth", help="who checks passwords: file (the default; the pool makes one for root) or pam")
    start.add_argument("--pam-service", help="its file in /etc/pam.d (default xapi)")
    start.add_argument("--amqp-url", default=os.environ.get("AMQP_URL", ""), help="a broker to use (default $AMQP_URL)")
    start.add_argument("--netns", action="store_true", help="give each host its own network (not supported yet)")
    commands.add_parser("down", help="stop the pool; its data is kept").set_defaults(run=_down)
    commands.add_parser("clean", help="stop the pool and remove its data").set_defaults(run=_clean)
    commands.add_parser("status", help="show each process").set_defaults(run=_status)
    for name, run, text in (
        ("host-down", _host_down, "end a host's processes as by a power failure"),
        ("host-up", _host_up, "start them again"),
    ):
        outages = commands.add_parser(name, help=text)
        outages.set_defaults(run=run)
        outages.add_argument("host", help="its name, such as host3")
    logs = commands.add_parser("logs", help="show the ends of logs")
    logs.set_defaults(run=_logs)
    logs.add_argument("process", nargs="?", default="", help="host/service, or only one of them; supervisor, rabbitmq")
    logs.add_argument("-n", dest="lines", type=int, default=10, help="lines of each (default 10)")
    logs.add_argument("-f", dest="follow", action="store_true", help="go on as lines are written")
    trace = commands.add_parser("trace", help="show where the time of a traced call went")
    trace.set_defaults(run=_trace)
    trace.add_argument("trace", nargs="?", default="", help="trace id, or the traceparent sent; none: list the newest")
    return parser


if __name__ == "__main__":
    sys.exit(main())
