"""Repositories, updates, patches, and what crashed hosts leave."""

from __future__ import annotations

from services.cli.server.command import HOST, Call, command
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.simple import message


async def _repository_introduce(call: Call) -> None:
    params = call.params
    made = await call.api.call(
        "Repository.introduce",
        params["name-label"],
        params.get("name-description"),
        params["binary-url"],
        params["source-url"],
        params.flag("update"),
        params.get("gpgkey-path"),
    )
    await call.print_uuid("Repository", made)


async def _update_precheck(call: Call) -> None:
    update = await call.ref("uuid", "pool_update")

    async def on(host: Row) -> str:
        return str(await call.api.call("pool_update.precheck", update, host.ref))

    await call.printer.items(await on_each(call, on))


async def _update_apply(call: Call) -> None:
    update = await call.ref("uuid", "pool_update")

    async def on(host: Row) -> None:
        await call.api.call("pool_update.apply", update, host.ref)

    await on_each(call, on)


COMMANDS = (
    command(
        "repository-introduce",
        _repository_introduce,
        "Makes a repository of updates known.",
        required="name-label binary-url source-url update",
        optional="name-description gpgkey-path",
    ),
    message("repository-introduce-bundle", "Repository.introduce_bundle", "name-label", ("name-description", "")),
    message("repository-set-gpgkey-path", "Repository.set_gpgkey_path", "uuid", "gpgkey-path"),
    message("repository-forget", "Repository.forget", "uuid"),
    message("update-introduce", "pool_update.introduce", "vdi-uuid"),
    command("update-precheck", _update_precheck, "Whether an update fits.", required="uuid", selector=HOST),
    command("update-apply", _update_apply, "Applies an update to hosts.", required="uuid", selector=HOST),
    message("update-pool-apply", "pool_update.pool_apply", "uuid"),
    message("update-pool-clean", "pool_update.pool_clean", "uuid"),
    message("update-destroy", "pool_update.destroy", "uuid"),
    message("update-resync-host", "pool_update.resync_host", "host-uuid", flags="Hidden"),
    message("patch-precheck", "pool_patch.precheck", "uuid", "host-uuid"),
    message("patch-apply", "pool_patch.apply", "uuid", "host-uuid"),
    message("patch-pool-apply", "pool_patch.pool_apply", "uuid"),
    message("patch-clean", "pool_patch.clean", "uuid"),
    message("patch-pool-clean", "pool_patch.pool_clean", "uuid"),
    message("patch-destroy", "pool_patch.destroy", "uuid"),
    message("host-crashdump-destroy", "host_crashdump.destroy", "uuid"),
)
