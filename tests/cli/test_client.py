"""The client as users run it, against a server that plays a script."""

from __future__ import annotations

import os
import pty
import socket
import ssl
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from services.cli.protocol import (
    BANNER,
    MAGIC,
    OK,
    End,
    Error,
    Exit,
    Failed,
    HttpConnect,
    HttpGet,
    HttpPut,
    Load,
    Print,
    PrintStderr,
    Prompt,
)
from tests.cli.certificate import self_signed
from tests.cli.scripted_server import Peer, Script, ScriptedServer, conversation, xe

HOST = "127.0.0.2"
Done = subprocess.CompletedProcess[str]
CLIENT = [sys.executable, "-c", "from services.cli.client import main; raise SystemExit(main())"]
ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def plain(server: ScriptedServer, *words: str) -> list[str]:
    return [*words, "-s", HOST, "-p", str(server.port), "--nossl"]


def run(
    home: Path, *scripts: Script, words: tuple[str, ...] = ("vm-list",), stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    with ScriptedServer(scripts) as server:
        return xe(*plain(server, *words), home=home, stdin=stdin)


def test_the_request_carries_the_words_and_then_the_credentials(tmp_path: Path) -> None:
    with ScriptedServer([conversation(Print("u1,u2"), Exit(0))]) as server:
        done = xe(*plain(server, "vm-list", "--minimal", "-u", "bob", "-pw", "p w"), home=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("u1,u2\n", "", 0)
    head, _, body = server.peers[0].request.partition(b"\r\n\r\n")
    assert body == b"vm-list\n--minimal\nusername=bob\npassword=p w"
    assert head.split(b"\r\n") == [
        b"POST /cli HTTP/1.0",
        b"User-agent: xe-cli/Unix/0.2",
        b"originator: cli",
        b"content-length: 43",
    ]


def test_trace_context_and_baggage_are_headers(tmp_path: Path) -> None:
    with ScriptedServer([conversation(Exit(0))]) as server:
        environment = {"TRACEPARENT": "00-a-b-01", "BAGGAGE": "k=v"}
        xe(*plain(server, "vm-list"), home=tmp_path, environment=environment)
    assert b"\r\ntraceparent: 00-a-b-01\r\nbaggage: k=v\r\n" in server.peers[0].request


def test_the_file_in_the_home_directory_gives_defaults(tmp_path: Path) -> None:
    (tmp_path / ".xe").write_text("username=from-file\npassword=from-file\n")
    with ScriptedServer([conversation(Exit(0))]) as server:
        xe(*plain(server, "vm-list", "-pw", "from-line"), home=tmp_path)
    assert server.peers[0].request.endswith(b"username=from-file\npassword=from-line")


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_status_is_the_one_that_the_server_chose(tmp_path: Path, code: int) -> None:
    assert run(tmp_path, conversation(Exit(code))).returncode == code


def test_output_goes_where_the_server_says(tmp_path: Path) -> None:
    done = run(tmp_path, conversation(Print("a"), PrintStderr("b"), Error("CODE", ("x", "y")), Exit(1)))
    assert (done.stdout, done.stderr) == ("a\n", "bError code: CODE\nError parameters: x, y\n")


def test_text_that_is_not_utf8_arrives_unchanged(tmp_path: Path) -> None:
    done = run(tmp_path, conversation(Print("ä€"), Exit(0)))
    assert done.stdout == "ä€\n"


@pytest.mark.parametrize("words", [("-help",), ("vm-list", "--help"), ()])
def test_usage_is_no_failure(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = xe(*words, home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Usage: xe")


def test_the_version_is_that_of_the_protocol(tmp_path: Path) -> None:
    done = xe("-version", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "ThinCLI protocol: 0.2\n")


def test_a_bad_port_is_told_with_the_usage_and_status_0(tmp_path: Path) -> None:
    done = xe("vm-list", "-p", "x", home=tmp_path)
    assert done.returncode == 0
    assert "Usage: xe" in done.stderr


def test_a_missing_password_file_is_a_failure(tmp_path: Path) -> None:
    done = xe("vm-list", "-pwf", "nothing", home=tmp_path)
    assert done.returncode == 1
    assert "nothing cannot be read" in done.stderr


# ---- connecting


def test_a_refused_connection_names_the_reason(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        port = closed.getsockname()[1]
        done = xe("vm-list", "-s", HOST, "-p", str(port), "--nossl", home=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"Error: Connection refused (calling connect {HOST})\n")


def test_a_host_name_that_does_not_resolve_is_not_found(tmp_path: Path) -> None:
    done = xe("vm-list", "-s", "no such host", home=tmp_path)
    assert (done.returncode, done.stderr) == (1, "Host 'no such host' not found.\n")


def says(data: bytes) -> Script:
    def play(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(data)

    return play


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "Unable to contact server"),
        (b"HTTP/1.0 500 oh\r\n\r\n", "Server internal error"),
        (b"SSH-2.0-something-or-other-entirely", "Failed to contact"),
        (MAGIC + b"\1\0\0\0\2\0\0\0", "version mismatch"),
        (BANNER[:30], "Lost connection to the server."),
    ],
)
def test_a_bad_banner_is_told_apart(tmp_path: Path, data: bytes, text: str) -> None:
    done = run(tmp_path, says(data))
    assert done.returncode == 1
    assert text in done.stderr


def test_junk_on_a_connection_that_stays_open_does_not_hang(tmp_path: Path) -> None:
    def play(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(b"220 ready\r\n")
        assert peer.read_all() == b""

    assert run(tmp_path, play).returncode == 1


def test_a_conversation_without_exit_lost_its_connection(tmp_path: Path) -> None:
    done = run(tmp_path, conversation(Print("half")))
    assert (done.returncode, done.stdout, done.stderr) == (1, "half\n", "Lost connection to the server.\n")


def test_an_answer_where_a_command_was_due_is_unexpected(tmp_path: Path) -> None:
    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(OK())

    done = run(tmp_path, play)
    assert done.returncode == 1
    assert "Unexpected message from server" in done.stderr


def test_an_unknown_message_ends_the_client_at_once(tmp_path: Path) -> None:
    def play(peer: Peer) -> None:
        peer.greet()
        peer.socket.sendall(bytes.fromhex("08000000 09000000 02000000"))
        assert peer.read_all() == b""

    assert run(tmp_path, play).returncode == 1


def test_the_default_server_is_reached_by_its_unix_socket_whatever_the_port(tmp_path: Path) -> None:
    path = tmp_path / "xapi"
    with ScriptedServer([conversation(Print("local"), Exit(0))], unix=path):
        done = xe("vm-list", "-p", "1", home=tmp_path, environment={"XE_SOCKET": str(path)})
    assert (done.returncode, done.stdout) == (0, "local\n")


def tls_context(folder: Path) -> ssl.SSLContext:
    certificate, key = self_signed(folder, HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256")
    context.set_ecdh_curve("secp384r1")
    return context


def test_other_servers_are_reached_by_tls_with_any_certificate(tmp_path: Path) -> None:
    with ScriptedServer([conversation(Print("secret"), Exit(0))], tls=tls_context(tmp_path)) as server:
        done = xe("vm-list", "-s", HOST, "-p", str(server.port), home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "secret\n", "")


def test_with_a_ca_the_certificate_is_verified(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    self_signed(other, HOST)
    context = tls_context(tmp_path)
    with ScriptedServer([conversation(Exit(0))], tls=context) as server:
        good = xe("x", "-s", HOST, "-p", str(server.port), "--cacert", str(tmp_path / "cert.pem"), home=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    server = ScriptedServer([conversation(Exit(0))], tls=context)
    bad = xe("x", "-s", HOST, "-p", str(server.port), "--cacert", str(other / "cert.pem"), home=tmp_path)
    with pytest.raises(ssl.SSLError):
        server.close()
    assert bad.returncode == 1
    assert "TLS handshake" in bad.stderr


# ---- questions and files


def test_a_prompt_is_answered_by_one_line(tmp_path: Path) -> None:
    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(Print("Sure?"), Prompt())
        assert peer.hear_blob() == b"yes indeed"
        assert peer.hear() == End()
        peer.say(Exit(0))

    done = run(tmp_path, play, stdin="yes indeed\nrest\n")
    assert (done.returncode, done.stdout) == (0, "Sure?\n")


def test_the_end_of_input_at_a_prompt_is_a_lost_connection(tmp_path: Path) -> None:
    done = run(tmp_path, conversation(Prompt()))
    assert (done.returncode, done.stderr) == (1, "Lost connection to the server.\n")


def test_a_file_that_the_user_named_is_loaded_whole(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "licence").write_bytes(content)

    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(Load("licence"))
        assert peer.hear() == OK()
        assert peer.hear_blob() == content
        assert peer.hear() == End()
        peer.say(Exit(0))

    assert run(tmp_path, play, words=("host-license-add", "license-file=licence")).returncode == 0


def test_an_unreadable_file_is_answered_with_failed(tmp_path: Path) -> None:
    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(Load("gone"))
        assert peer.hear() == Failed()
        peer.say(Exit(1))

    assert run(tmp_path, play, words=("x", "file=gone")).returncode == 1


@pytest.mark.parametrize("message", [Load("/etc/passwd"), HttpPut("/etc/passwd", "/x")])
def test_a_file_that_nobody_named_is_not_permitted(tmp_path: Path, message: Load | HttpPut) -> None:
    done = run(tmp_path, conversation(message))
    assert done.returncode == 1
    assert done.stderr == "File not permitted: /etc/passwd\n"


# ---- transfers


def transfer(message: HttpGet | HttpPut | HttpConnect, answer: object) -> Script:
    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(message)
        found = peer.hear()
        assert type(found) is type(answer), found
        peer.say(Exit(0))

    return play


def serves(reply: bytes) -> Script:
    def play(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(reply)

    return play


def absolute(server_port: int, path: str) -> str:
    return f"https://{HOST}:{server_port}{path}"


def side_transfer(
    home: Path, kind: str, filename: str, answer: object, *sides: Script, words: tuple[str, ...] = ("x",)
) -> tuple[Done, ScriptedServer]:
    """A transfer over side connections of their own port, so that both servers can be scripted apart."""
    with ScriptedServer(sides) as side:
        url = absolute(side.port, "/x?a=b")
        kinds: dict[str, HttpGet | HttpPut | HttpConnect] = {
            "GET": HttpGet(filename, url),
            "PUT": HttpPut(filename, url),
            "CONNECT": HttpConnect(url),
        }
        with ScriptedServer([transfer(kinds[kind], answer)]) as server:
            done = xe(*plain(server, *words), home=home)
    return done, side


def test_a_download_makes_a_private_file(tmp_path: Path) -> None:
    done, side = side_transfer(
        tmp_path,
        "GET",
        "out.xva",
        OK(),
        serves(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nbody\n\0more"),
        words=("e", "filename=out.xva"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.xva").read_bytes() == b"body\n\0more"
    assert (tmp_path / "out.xva").stat().st_mode & 0o777 == 0o600
    assert side.peers[0].request == b"GET /x?a=b HTTP/1.0\r\n\r\n"


def test_a_download_without_file_name_goes_to_standard_output(tmp_path: Path) -> None:
    done, _ = side_transfer(tmp_path, "GET", "", OK(), serves(b"HTTP/1.1 200 OK\r\n\r\nbytes"), words=("e",))
    assert done.stdout == "bytes"


def test_a_download_that_ends_early_fails_and_leaves_no_file(tmp_path: Path) -> None:
    reply = serves(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
    done, _ = side_transfer(tmp_path, "GET", "out", Failed(), reply, words=("e", "filename=out"))
    assert done.returncode == 0
    assert not (tmp_path / "out").exists()


def test_a_download_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")

    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(HttpGet("out", absolute(side.port, "/x")))
        assert peer.hear() == Failed()

    with ScriptedServer([serves(b"HTTP/1.1 200 OK\r\n\r\nnew")]) as side, ScriptedServer([play]) as server:
        done = xe(*plain(server, "e", "filename=out"), home=tmp_path)
    assert done.returncode == 1
    assert "File exists" in done.stderr
    assert (tmp_path / "out").read_text() == "precious"


def test_a_refused_download_is_answered_with_failed(tmp_path: Path) -> None:
    done, _ = side_transfer(
        tmp_path, "GET", "out", Failed(), serves(b"HTTP/1.1 403 no\r\n\r\n"), words=("e", "filename=out")
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_redirection_is_followed(tmp_path: Path) -> None:
    with ScriptedServer([serves(b"HTTP/1.1 200 OK\r\n\r\nthere")]) as target:
        moved = serves(f"HTTP/1.1 302 Found\r\nLocation: {absolute(target.port, '/y')}\r\n\r\n".encode())
        done, _ = side_transfer(tmp_path, "GET", "", OK(), moved, words=("e",))
    assert done.stdout == "there"
    assert target.peers[0].request.startswith(b"GET /y ")


def test_an_upload_waits_for_the_server_and_then_sends_the_file(tmp_path: Path) -> None:
    content = os.urandom(500_000)
    (tmp_path / "in").write_bytes(content)

    def take(peer: Peer) -> None:
        while not peer.request.endswith(b"\r\n\r\n"):
            peer.request += peer.read(1)
        peer.socket.sendall(b"HTTP/1.1 200 OK\r\nheader: x\r\n\r\n")
        assert peer.read_all() == content

    done, side = side_transfer(tmp_path, "PUT", "in", OK(), take, words=("i", "filename=in"))
    assert done.returncode == 0
    assert side.peers[0].request == b"PUT /x?a=b HTTP/1.0\r\nContent-length: 500000\r\n\r\n"


def test_relative_urls_go_the_way_the_conversation_went(tmp_path: Path) -> None:
    path = tmp_path / "xapi"

    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(HttpGet("", "/relative"))
        aside, _ = server._listener.accept()
        side = Peer(aside)
        side.read_request()
        assert side.request == b"GET /relative HTTP/1.0\r\n\r\n"
        aside.sendall(b"HTTP/1.1 200 OK\r\n\r\nlocal bytes")
        aside.close()
        assert peer.hear() == OK()
        peer.say(Exit(0))

    with ScriptedServer([play], unix=path) as server:
        done = xe("e", home=tmp_path, environment={"XE_SOCKET": str(path)})
    assert (done.returncode, done.stdout) == (0, "local bytes")


# ---- consoles


def test_a_console_passes_bytes_both_ways_and_loses_none_behind_the_headers(tmp_path: Path) -> None:
    def guest(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\nlogin: ")
        assert peer.read(5) == b"root\n"
        peer.socket.sendall(b"welcome")

    with ScriptedServer([guest]) as side:
        url = absolute(side.port, "/console?ref=x&session_id=y")
        with ScriptedServer([transfer(HttpConnect(url), OK())]) as server:
            done = xe(*plain(server, "console"), home=tmp_path, stdin="root\n")
    assert side.peers[0].request.startswith(
        b"CONNECT /console?ref=x&session_id=y HTTP/1.0\r\ncontent-length: 0\r\n\r\n"
    )
    assert done.stdout == "login: welcome\n"  # text mode: the CR LF at the end reads as one newline


def test_leaving_a_console_sends_neither_the_escape_nor_what_follows(tmp_path: Path) -> None:
    def guest(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert peer.read_all() == b"ls\n"

    with (
        ScriptedServer([guest]) as side,
        ScriptedServer([transfer(HttpConnect(absolute(side.port, "/c")), OK())]) as server,
    ):
        done = xe(*plain(server, "console"), home=tmp_path, stdin="ls\n\x1drest")
    assert done.returncode == 0


def test_a_console_that_is_not_there_is_told(tmp_path: Path) -> None:
    done, _ = side_transfer(
        tmp_path, "CONNECT", "", Failed(), serves(b"HTTP/1.1 404 Not Found\r\n\r\n"), words=("console",)
    )
    assert "console is not available" in done.stderr
    done, _ = side_transfer(
        tmp_path, "CONNECT", "", Failed(), serves(b"HTTP/1.1 500 oh no\r\n\r\n"), words=("console",)
    )
    assert done.stderr == "Server said: HTTP/1.1 500 oh no\n"


def test_in_a_terminal_every_key_goes_to_the_guest(tmp_path: Path) -> None:
    """Ctrl-C too: the terminal is raw, and as before afterwards."""

    def guest(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        peer.socket.sendall(b"ready")
        assert peer.read(1) == b"\x03"
        assert peer.read_all() == b""

    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with (
        ScriptedServer([guest]) as side,
        ScriptedServer([transfer(HttpConnect(absolute(side.port, "/c")), OK())]) as server,
    ):
        process = subprocess.Popen(
            [*CLIENT, *plain(server, "console")], stdin=slave, stdout=slave, stderr=slave, env=environment(tmp_path)
        )
        shown = b""
        while b"ready" not in shown:
            shown += os.read(master, 100)
        os.write(master, b"\x03")
        os.write(master, b"\x1d")
        assert process.wait(20) == 0
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


# ---- tracing, signals


def test_debug_shows_the_protocol_and_debug_on_fail_only_if_it_failed(tmp_path: Path) -> None:
    assert "Print" in run(tmp_path, conversation(Print("a"), Exit(0)), words=("x", "--debug")).stderr
    assert run(tmp_path, conversation(Exit(0)), words=("x", "--debug-on-fail")).stderr == ""
    assert "Exit" in run(tmp_path, conversation(Exit(2)), words=("x", "--debug-on-fail")).stderr


def test_an_output_that_nobody_reads_any_more_ends_the_client_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with ScriptedServer([conversation(Print("a"), Exit(0))]) as server:
        process = subprocess.Popen(
            [*CLIENT, *plain(server, "x")], stdout=writer, stderr=subprocess.PIPE, env=environment(tmp_path)
        )
        os.close(writer)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, b"")


def test_nothing_heavy_is_imported_on_the_clients_path() -> None:
    code = (
        "import sys; from services.cli.client import command, transfer, console\n"
        "heavy = ('msgspec', 'pika', 'pydantic', 'asyncio', 'ssl', 'dataclasses', 'http')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_told_within_a_moment() -> None:
    """Processor time, not the clock: the machine may be busy. Best of three, over what Python itself takes."""

    def cost(code: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-S", "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    version = "import sys; sys.path.insert(0, '.'); from services.cli.client import main; main(['-version'])"
    assert min(cost(version) for _ in range(3)) - min(cost("pass") for _ in range(3)) < 0.08
