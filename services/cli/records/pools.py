"""The pool, its tasks and messages, users and roles, and what is kept once for all hosts."""

from __future__ import annotations

from services.cli.server.objects import Record, Row
from services.cli.server.readers import called, on_all_hosts, statefiles
from services.cli.server.record import attr, computed, records, values
from services.cli.server.values import Value


async def _vswitch_controller(row: Row) -> Value:
    return str(row.record["vswitch_controller"] or "<not set>")


async def _https_only(row: Row) -> Value:
    answers = [await row.api.call("host.get_https_only", ref) for ref in await row.objects.all("host")]
    return "true" if all(answers) else "false"


async def _role_names(row: Row) -> Value:
    found = [await row.objects.record("role", ref) for ref in row.record["roles"]]
    return [str(record["name_label"]) for record in found if record is not None]


async def _rate_limit(row: Row) -> Value:
    return str(row.record["rate_limit"])


async def _callers(row: Row) -> Value:
    return [str(ref) for ref in row.record["callers"]]


POOL = records(
    "pool",
    "pool",
    default="uuid name-label name-description master default-SR",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("master"),
        attr("default-SR", write="set"),
        attr("crash-dump-SR", write="set"),
        attr("suspend-image-SR", write="set"),
        computed("supported-sr-types", called("SR.get_supported_types", of_row=False), expensive=True),
        attr("other-config", write="add remove"),
        attr("allowed-operations"),
        values("current-operations"),
        attr("ha-enabled"),
        attr("ha-configuration", view=""),
        computed("ha-statefiles", statefiles),
        attr("ha-host-failures-to-tolerate", write="set"),
        attr("ha-plan-exists-for"),
        attr("ha-allow-overcommit", write="set"),
        attr("ha-overcommitted"),
        attr("ha-reboot-vm-on-internal-shutdown", write="set"),
        attr("blobs", view=""),
        attr("wlb-url"),
        attr("wlb-username"),
        attr("wlb-enabled", write="set"),
        attr("wlb-verify-cert", write="set"),
        attr("igmp-snooping-enabled", write="set"),
        attr("gui-config", write="add remove"),
        attr("health-check-config", write="add remove"),
        computed("vswitch-controller", _vswitch_controller, hidden=True),
        attr("restrictions", view=""),
        attr("tags", joiner=", ", write="add remove"),
        computed("license-state", called("pool.get_license_state")),
        attr("ha-cluster-stack"),
        attr("guest-agent-config", write="add remove"),
        attr("cpu_info"),
        attr("policy-no-vendor-device", write="set"),
        attr("live-patching-disabled", write="set"),
        attr("uefi-certificates", write="set", hidden=True),
        attr("custom-uefi-certificates", write="set", hidden=True),
        attr("tls-verification-enabled"),
        attr("client-certificate-auth-enabled"),
        attr("client-certificate-auth-name"),
        attr("repositories", element="repository", write="set add remove"),
        attr("repository-proxy-url"),
        attr("repository-proxy-username"),
        computed("https-only", _https_only, attribute="https_only", write="set"),
        attr("migration-compression", write="set"),
        attr("coordinator-bias", write="set"),
        attr("telemetry-frequency"),
        attr("telemetry-next-collection"),
        attr("last-update-sync"),
        attr("update-sync-frequency"),
        attr("update-sync-day"),
        attr("update-sync-enabled"),
        attr("auto-update-vm-secureboot-certificates", write="set"),
        attr("recommendations"),
        attr("ext-auth-cache-enabled", write="set"),
        attr("ext-auth-cache-size", write="set"),
        attr("ext-auth-cache-expiry", write="set"),
        attr("license-server", write="add remove"),
        computed("ssh-enabled", on_all_hosts("ssh_enabled"), needs=["host"]),
        computed(
            "ssh-enabled-timeout",
            on_all_hosts("ssh_enabled_timeout"),
            attribute="ssh_enabled_timeout",
            needs=["host"],
            write="set",
        ),
        computed("ssh-expiry", on_all_hosts("ssh_expiry"), needs=["host"]),
        computed(
            "console-idle-timeout",
            on_all_hosts("console_idle_timeout"),
            attribute="console_idle_timeout",
            needs=["host"],
            write="set",
        ),
        computed(
            "ssh-auto-mode", on_all_hosts("ssh_auto_mode"), attribute="ssh_auto_mode", needs=["host"], write="set"
        ),
        attr("limit-console-sessions", write="set"),
        attr("vm-console-idle-timeout", write="set"),
    ),
)

TASK = records(
    "task",
    "task",
    default="uuid name-label name-description status progress",
    fields=(
        attr("uuid"),
        attr("name-label"),
        attr("name-description"),
        attr("subtask_of"),
        attr("subtasks", view=""),
        attr("resident-on"),
        attr("status"),
        attr("progress"),
        attr("type"),
        attr("result"),
        attr("created"),
        attr("finished"),
        attr("error_info", view=""),
        attr("allowed_operations", view=""),
        values("current_operations", view=""),
        attr("other-config", write="add remove"),
    ),
)

MESSAGE = records(
    "message",
    "message",
    default="uuid name priority class obj-uuid timestamp body",
    fields=(
        attr("uuid"),
        attr("name"),
        attr("priority"),
        attr("class", "cls"),
        attr("obj-uuid"),
        attr("timestamp"),
        attr("body"),
    ),
)

SUBJECT = records(
    "subject",
    "subject",
    default="uuid subject-identifier other-config roles",
    fields=(
        attr("uuid"),
        attr("subject-identifier"),
        attr("other-config"),
        computed("roles", _role_names, needs=["role"], view="S"),
    ),
)


def _grants(role: Record) -> bool:
    """A role proper: the permissions are of the same class, but grant nothing further."""
    return bool(role["subroles"])


ROLE = records(
    "role",
    "role",
    only=_grants,
    default="uuid name description",
    fields=(
        attr("uuid"),
        attr("name", "name_label"),
        attr("description", "name_description"),
    ),
)

SECRET = records(
    "secret",
    "secret",
    default="uuid value",
    fields=(
        attr("uuid"),
        attr("value", write="set"),
    ),
)

CERTIFICATE = records(
    "certificate",
    "Certificate",
    default="uuid type name host not-before not-after fingerprint purpose",
    fields=(
        attr("uuid"),
        attr("type"),
        attr("name"),
        attr("host"),
        attr("not-before"),
        attr("not-after"),
        attr("fingerprint"),
        attr("fingerprint_sha256"),
        attr("fingerprint_sha1"),
        attr("purpose", view=""),
    ),
)

REPOSITORY = records(
    "repository",
    "Repository",
    default="uuid name-label name-description binary-url source-url update hash gpgkey-path origin",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("binary-url"),
        attr("source-url"),
        attr("update"),
        attr("hash"),
        attr("gpgkey-path", write="set"),
        attr("origin"),
        attr("certificate", hidden=True),
    ),
)

OBSERVER = records(
    "observer",
    "Observer",
    default="uuid host-uuids name-label name-description endpoints enabled",
    fields=(
        attr("uuid"),
        attr("host-uuids", "hosts", write="set add remove"),
        attr("name-label"),
        attr("name-description"),
        attr("attributes", write="set-map add remove"),
        attr("endpoints", write="set add remove"),
        attr("components", write="set add remove"),
        attr("enabled", write="set"),
    ),
)

DRTASK = records(
    "drtask",
    "DR_task",
    default="uuid introduced-SRs",
    fields=(
        attr("uuid"),
        attr("introduced-SRs", view=""),
    ),
)

CALLER = records(
    "caller",
    "Caller",
    default="uuid name-label name-description user-agent client-ip last-access groups rate-limit",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        attr("user-agent"),
        attr("client-ip"),
        attr("last-access"),
        attr("groups", element="group", write="add remove"),
        computed("rate-limit", _rate_limit),
    ),
)

RATE_LIMIT = records(
    "rate-limit",
    "Rate_limit",
    default="uuid name-label callers burst-size fill-rate",
    fields=(
        attr("uuid"),
        attr("name-label", write="set"),
        attr("name-description", write="set"),
        computed("callers", _callers, view="S"),
        attr("burst-size", write="set"),
        attr("fill-rate", write="set"),
    ),
)
