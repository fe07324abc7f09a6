"""Starting, stopping and moving VMs."""

from __future__ import annotations

from services.cli.commands.prompts import FORCE_NEEDED
from services.cli.server.command import VM, Call, Selector, command
from services.cli.server.failures import CommandError, summary
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.simple import message
from services.cli.server.tasks import finished
from services.cli.server.values import size
from shared.errors import ApiError

_REMOTE = (
    "remote-master",
    "remote-username",
    "remote-password",
    "remote-network",
    "vif",
    "vdi",
    "vgpu",
    "image-format",
)
"""How the parameters start that ask for a migration to another pool."""
WITH_CONTROL_DOMAINS = Selector("vm", control_domains=True)


async def host_named(call: Call, wanted: str) -> str:
    """The host of that name-label or uuid. Raises `CommandError`."""
    for ref, record in (await call.objects.all("host")).items():
        if wanted in (record["uuid"], record["name_label"]):
            return ref
    raise CommandError(f"Host {wanted} not found")


async def _start(call: Call) -> None:
    paused, force = call.params.flag("paused"), call.params.flag("force")
    host = await host_named(call, call.params["on"]) if "on" in call.params else None
    progress = "progress" in call.params

    async def start(vm: Row) -> None:
        try:
            if host is None:
                await finished(call, "VM.start", vm.ref, paused, force, progress=progress)
            else:
                await finished(call, "VM.start_on", vm.ref, host, paused, force, progress=progress)
        except ApiError as error:
            if error.code == "NO_HOSTS_AVAILABLE":
                await _explain(call, vm)
            raise

    await on_each(call, start)


async def _explain(call: Call, vm: Row) -> None:
    """Tells for each host why the VM cannot start there."""
    reasons = []
    for ref, host in (await call.objects.all("host")).items():
        try:
            await call.api.call("VM.assert_can_boot_here", vm.ref, ref)
            verdict = "OK"
        except ApiError as error:
            verdict = f"Cannot start here [{await summary(error, call.objects)}]"
        reasons.append((str(host["name_label"]), verdict))
    await call.printer.stderr(f"No host of the pool can run the VM {vm.name} now.")
    await call.printer.stderr("What each of them lacks:")
    await call.printer.stderr("")
    await call.printer.table([reasons])


async def _shutdown(call: Call) -> None:
    method = "VM.hard_shutdown" if call.params.flag("force") else "VM.clean_shutdown"

    async def stop(vm: Row) -> None:
        await finished(call, method, vm.ref, progress="progress" in call.params)

    await on_each(call, stop)


async def _reboot(call: Call) -> None:
    method = "VM.hard_reboot" if call.params.flag("force") else "VM.clean_reboot"

    async def reboot(vm: Row) -> None:
        await call.api.call(method, vm.ref)

    await on_each(call, reboot)


async def _suspend(call: Call) -> None:
    async def suspend(vm: Row) -> None:
        await finished(call, "VM.suspend", vm.ref, progress="progress" in call.params)

    await on_each(call, suspend)


async def _resume(call: Call) -> None:
    force, progress = call.params.flag("force"), "progress" in call.params
    host = await host_named(call, call.params["on"]) if "on" in call.params else None

    async def resume(vm: Row) -> None:
        if host is None:
            await finished(call, "VM.resume", vm.ref, False, force, progress=progress)
        else:
            await finished(call, "VM.resume_on", vm.ref, host, False, force, progress=progress)

    await on_each(call, resume)


async def _reset_powerstate(call: Call) -> None:
    if not call.params.flag("force"):
        raise CommandError(FORCE_NEEDED)

    async def reset(vm: Row) -> None:
        await call.api.call("VM.power_state_reset", vm.ref)

    await on_each(call, reset)


async def _migrate(call: Call) -> None:
    if any(key.startswith(_REMOTE) for key, _ in call.params):
        raise CommandError("Migration to another pool is not implemented yet")
    wanted = next((call.params[name] for name in ("host", "host-uuid", "host-name") if name in call.params), None)
    if wanted is None:
        raise CommandError("No destination host specified")
    host = await host_named(call, wanted)
    options = {name: "true" if call.params.flag(name) else "false" for name in ("force", "live", "copy")}
    if "compress" in call.params:
        options["compress"] = "true" if call.params.flag("compress") else "false"

    async def migrate(vm: Row) -> None:
        await call.api.call("VM.pool_migrate", vm.ref, host, options)

    await on_each(call, migrate)


async def _compute_maximum_memory(call: Call) -> None:
    total, approximate = size("total", call.params["total"]), call.params.flag("approximate")

    async def compute(vm: Row) -> str:
        return str(await call.api.call("VM.maximise_memory", vm.ref, total, approximate))

    await call.printer.items(await on_each(call, compute))


COMMANDS = (
    command(
        "vm-start",
        _start,
        "Starts VMs. on=<host>: there. paused=true: leaves them paused. --force: even against advice.",
        optional="force on paused",
        flags="Standard",
        selector=WITH_CONTROL_DOMAINS,
        also="progress",
    ),
    command(
        "vm-shutdown",
        _shutdown,
        "Asks the guests to shut down; --force: pulls the plug.",
        optional="force",
        flags="Standard",
        selector=VM,
        also="progress",
    ),
    command(
        "vm-reboot",
        _reboot,
        "Asks the guests to reboot; --force: resets them.",
        optional="force",
        flags="Standard",
        selector=VM,
    ),
    message("vm-pause", "VM.pause", flags="Standard", selector=VM),
    message("vm-unpause", "VM.unpause", flags="Standard", selector=VM),
    command("vm-suspend", _suspend, "Suspends VMs to disk.", flags="Standard", selector=VM, also="progress"),
    command(
        "vm-resume",
        _resume,
        "Resumes suspended VMs. on=<host>: there.",
        optional="force on",
        flags="Standard",
        selector=VM,
        also="progress",
    ),
    command(
        "vm-reset-powerstate",
        _reset_powerstate,
        "Forgets that VMs run, when they certainly do not: their host is dead.",
        optional="force",
        flags="Standard",
        selector=VM,
    ),
    command(
        "vm-migrate",
        _migrate,
        "Moves running VMs to another host.",
        optional="live host host-uuid remote-master remote-username remote-password remote-network force copy compress "
        "vif: vdi: image-format:",
        flags="Standard",
        selector=WITH_CONTROL_DOMAINS,
        also="host-name",
    ),
    command(
        "vm-compute-maximum-memory",
        _compute_maximum_memory,
        "How much memory VMs could have, if all of total= were theirs.",
        required="total",
        optional="approximate",
        flags="Standard",
        selector=VM,
    ),
)
