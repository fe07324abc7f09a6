"""Programs that logged in, by their User-Agent."""

from __future__ import annotations

from services.api.known_clients import LIMIT, LONGEST, KnownClients


def test_the_first_word_counts_if_it_has_a_version() -> None:
    clients = KnownClients()
    for text in ("xo/5.1 (linux)", "python-requests", "", "/1.0", "curl/8.5", "a/b/c"):
        clients.note(text)
    assert clients.versions() == {"xo": "5.1", "curl": "8.5", "a": "b/c"}


def test_only_the_beginning_of_a_long_name_counts() -> None:
    clients = KnownClients()
    clients.note("x/" + "1" * 1000)
    assert clients.versions() == {"x": "1" * (LONGEST - 2)}


def test_the_last_ones_are_kept_and_the_latest_version_is_told() -> None:
    clients = KnownClients()
    clients.note("old/1")
    for number in range(LIMIT):
        clients.note(f"new{number}/1")
    clients.note("new0/2")
    versions = clients.versions()
    assert "old" not in versions
    assert versions["new0"] == "2"
    assert len(versions) <= LIMIT
