"""Commands that are known, so that help and completion show them, but not written yet: they say so and fail."""

from __future__ import annotations

from services.cli.server.command import HOST, pending

COMMANDS = (
    pending("diagnostic-license-status"),
    pending("host-backup", required="file-name", flags="With_fd", selector=HOST),
    pending("host-get-system-status", required="filename", optional="entries output", flags="With_fd", selector=HOST),
    pending("host-logs-download", optional="file-name", flags="With_fd", selector=HOST),
    pending("host-restore", required="file-name", flags="With_fd", selector=HOST),
    pending("patch-upload", required="file-name", flags="With_fd"),
    pending("pool-retrieve-wlb-diagnostics", optional="filename", flags="With_fd Neverforward"),
    pending("pool-retrieve-wlb-report", required="report", optional="filename", flags="With_fd Neverforward"),
    pending("pool-sync-bundle", required="filename", flags="With_fd"),
    pending(
        "repository-introduce-remote-pool",
        required="name-label binary-url certificate-file",
        optional="name-description",
        flags="With_fd",
    ),
    pending("update-upload", required="file-name", optional="sr-uuid", flags="With_fd"),
)
