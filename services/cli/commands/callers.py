"""Who calls and how fast, what is traced, figures for developers."""

from __future__ import annotations

from services.cli.server.command import HOST, Call, command
from services.cli.server.failures import CommandError
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.simple import message
from services.cli.server.values import number

COLUMNS = ("uuid", "name-label", "tokens", "calls")

# ---- callers and rate limits


async def _caller_create(call: Call) -> None:
    params = call.params
    record = {
        "user_agent": params.get("user-agent"),
        "client_ip": params.get("client-ip"),
        "name_label": params.get("name-label"),
        "name_description": params.get("name-description"),
    }
    if not record["user_agent"] and not record["client_ip"]:
        raise CommandError("Either user-agent or client-ip must be specified")
    await call.printer.message(await call.uuid("Caller", await call.api.call("Caller.create", record)))


async def _caller_query_usage(call: Call) -> None:
    params = call.params
    if "uuid" in params and "group" in params:
        raise CommandError("Specify exactly one of uuid= or group=, not both")
    if "uuid" in params:
        whose, of = "", await call.ref("uuid", "Caller")
    elif "group" in params:
        whose, of = "group_", params["group"]
    else:
        raise CommandError("Specify exactly one of uuid= or group=")
    tokens = await call.api.call(f"Caller.query_{whose}token_usage", of)
    calls = await call.api.call(f"Caller.query_{whose}call_count", of)
    await call.printer.table([[("tokens", f"{float(tokens):.12g}"), ("call_count", str(calls))]])


async def _caller_list_usage(call: Call) -> None:
    rows = await call.api.call("Caller.query_all_usage")
    await call.printer.table([list(zip(COLUMNS, row, strict=True)) for row in rows])


async def _rate_limit_create(call: Call) -> None:
    params = call.params
    record = {
        "name_label": params.get("name-label"),
        "name_description": params.get("name-description"),
        "burst_size": number("burst-size", params["burst-size"]),
        "fill_rate": number("fill-rate", params["fill-rate"]),
    }
    ref = await call.api.call("Rate_limit.create", record)
    for uuid in params.get("caller-uuids").split(","):
        if uuid.strip():
            await call.api.call("Rate_limit.add_caller", ref, await call.objects.by_uuid("Caller", uuid.strip()))
    await call.printer.message(await call.uuid("Rate_limit", ref))


# ---- observers


async def _observer_create(call: Call) -> None:
    params = call.params

    def names(name: str, default: str = "") -> list[str]:
        return [each for each in params.get(name, default).split(",") if each]

    record = {
        "name_label": params["name-label"],
        "name_description": params.get("name-description"),
        "hosts": [await call.objects.by_uuid("host", uuid) for uuid in names("host-uuids")],
        "attributes": params.mapping("attributes"),
        "endpoints": names("endpoints", "bugtool"),
        "components": names("components"),
        "enabled": params.flag("enabled"),
    }
    await call.print_uuid("Observer", await call.api.call("Observer.create", record))


# ---- diagnostics


async def _gc_stats(call: Call) -> None:
    async def on(host: Row) -> None:
        figures = await call.api.call("Diagnostics.gc_stats", host.ref)
        await call.printer.table([list(figures.items())])

    await on_each(call, on)


async def _db_stats(call: Call) -> None:
    figures = await call.api.call("Diagnostics.db_stats")
    await call.printer.message("DB lock stats: " + " ".join(f"{key}={value}" for key, value in figures.items()))


COMMANDS = (
    command(
        "caller-create",
        _caller_create,
        "Names a caller by its user agent, its address, or both; a trailing * stands for anything.",
        optional="name-label name-description user-agent client-ip",
    ),
    message("caller-destroy", "Caller.destroy", "uuid"),
    command("caller-list-usage", _caller_list_usage, "How much each caller has called."),
    command(
        "caller-query-usage", _caller_query_usage, "How much a caller, or a group, has called.", optional="uuid group"
    ),
    command(
        "rate-limit-create",
        _rate_limit_create,
        "Limits how fast callers may call: burst-size tokens, fill-rate more a second.",
        required="burst-size fill-rate",
        optional="name-label name-description caller-uuids",
    ),
    message("rate-limit-destroy", "Rate_limit.destroy", "uuid"),
    message("rate-limit-add-caller", "Rate_limit.add_caller", "uuid", "caller-uuid"),
    message("rate-limit-remove-caller", "Rate_limit.remove_caller", "uuid", "caller-uuid"),
    command(
        "observer-create",
        _observer_create,
        "Describes what is to be traced.",
        required="name-label",
        optional="host-uuids name-description enabled attributes endpoints components",
    ),
    message("observer-destroy", "Observer.destroy", "uuid"),
    message("diagnostic-compact", "Diagnostics.gc_compact", selector=HOST),
    command("diagnostic-gc-stats", _gc_stats, "What a host's garbage collector has done.", selector=HOST),
    command("diagnostic-db-stats", _db_stats, "How long the database takes."),
)
