from __future__ import annotations

import pytest

from services.cli.client.options import (
    OptionError,
    UsageError,
    combine,
    credentials,
    extra_words,
    options,
    rc_words,
    split,
)
from services.cli.client.permission import NamedFiles, NotPermitted


def test_own_options_are_taken_out_in_either_form_wherever_they_stand() -> None:
    words = [
        "vm-list",
        "-s",
        "h",
        "params=uuid",
        "username=bob",
        "-pw",
        "x",
        "--minimal",
        "port=8443",
        "--nossl",
        "-x",
        "v",
    ]
    own, forwarded = split(words)
    assert own == {"server": "h", "username": "bob", "password": "x", "port": "8443", "nossl": "true"}
    assert forwarded == ["vm-list", "params=uuid", "--minimal", "-x", "v"]


def test_a_switch_without_its_value_is_forwarded() -> None:
    assert split(["vm-list", "-u"]) == ({}, ["vm-list", "-u"])


def test_version_with_two_dashes_is_not_known_and_forwarded() -> None:
    assert split(["--version"]) == ({}, ["--version"])


@pytest.mark.parametrize(
    ("text", "words"),
    [("", []), ("-u,bob", ["-u", "bob"]), (r"a=b\,c,,d\e", ["a=b,c", "de"])],
)
def test_extra_arguments_are_split_at_commas(text: str, words: list[str]) -> None:
    assert extra_words(text) == words


def test_the_command_line_wins_over_the_environment_and_that_over_the_file() -> None:
    own, forwarded = combine(
        ["vm-list", "-u", "line"],
        "username=extra,password=extra,traceparent=extra,--minimal",
        ["username=file", "password=file", "server=file", "params=uuid"],
        "variable",
    )
    assert own == {"username": "line", "password": "extra", "server": "file", "traceparent": "variable"}
    assert forwarded == ["vm-list", "--minimal", "params=uuid"]


def test_a_line_without_equals_sign_discards_the_file() -> None:
    assert rc_words("username=a\n\n password=b \n") == ["username=a", "password=b"]
    with pytest.raises(OptionError, match="nonsense"):
        rc_words("username=a\nnonsense\n")


def test_the_password_file_wins_over_user_and_password() -> None:
    chosen = options({"username": "a", "password": "b"}, [], credentials("file user\nfile password\n", "f"))
    assert (chosen.username, chosen.password) == ("file user", "file password")
    with pytest.raises(OptionError):
        credentials("one line", "f")


@pytest.mark.parametrize("port", ["x", "-1", "65536", "", "٣"])
def test_a_bad_port_is_a_usage_error(port: str) -> None:
    with pytest.raises(UsageError):
        options({"port": port}, [], None)


def test_nossl_is_true_or_false() -> None:
    assert options({"nossl": "true"}, [], None).nossl
    with pytest.raises(OptionError):
        options({"nossl": "maybe"}, [], None)


def test_defaults_are_root_on_this_machine() -> None:
    chosen = options({}, ["vm-list"], None)
    assert (chosen.server, chosen.port, chosen.username, chosen.password) == ("127.0.0.1", None, "root", "null")


def test_only_files_that_an_argument_names_are_permitted(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    files = NamedFiles(["vm-export", "filename=sub/../out.xva", "other= "])
    files.check(f"{tmp_path}/out.xva")
    files.check(".", directory=True)
    for refused in ("/etc/passwd", "other", "."):
        with pytest.raises(NotPermitted):
            files.check(refused)
