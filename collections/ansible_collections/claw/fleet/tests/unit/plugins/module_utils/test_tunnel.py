# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's tunnel, against servers on loopback: cloudflared's metrics, the way from outside, the app."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _tunnel
from ansible_collections.claw.fleet.plugins.module_utils._tunnel import (
    PROOF_PATH,
    App,
    Cloudflared,
    NotYet,
    Secrets,
    Settings,
    TokenRefused,
    TunnelError,
    Way,
    public_name,
    read_secret,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "calm-cove.tunnel.test"
TOKEN, WATCHERS_TOKEN = "the-gateways-token-of-24-bytes", "the-watchers-token-of-32-bytes"


@dataclass
class Server:
    """Answers by path, or by what a test puts in the place of its answer; remembers what it was asked."""

    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0
    proof_dir: Path | None = None

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.asked.append((method, path, headers, body))
        if self.proof_dir and path.startswith(PROOF_PATH) and path not in self.answers:
            return 200, (self.proof_dir / path.removeprefix(PROOF_PATH)).read_bytes()
        return self.answers.get(path, (404, b"{}"))

    def say(self, path: str, told: Any, status: int = 200) -> None:
        self.answers[path] = (status, told if isinstance(told, bytes) else json.dumps(told).encode())


def serve(server: Server, context: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, told = server.answer(
                self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(told)))
            if 300 <= status < 400:
                self.send_header("Location", "https://login.tunnel.test/")
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_PUT = do_POST = handle_any

        def log_message(self, *_words: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
    server.port = listening.server_address[1]
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    return listening


@pytest.fixture
def metrics() -> Iterator[Server]:
    server = Server()
    listening = serve(server)
    server.say("/ready", {"status": 200, "readyConnections": 1})
    server.say("/quicktunnel", {"hostname": NAME})
    yield server
    listening.shutdown()


@pytest.fixture
def cloudflared(metrics: Server) -> Cloudflared:
    return Cloudflared(f"127.0.0.1:{metrics.port}")


def test_a_quick_tunnel_has_the_name_it_was_given(cloudflared: Cloudflared) -> None:
    assert cloudflared.hostname() == NAME


def test_a_name_that_the_edge_does_not_know_is_not_told(metrics: Server, cloudflared: Cloudflared) -> None:
    metrics.say("/ready", {"status": 503, "readyConnections": 0}, 503)
    with pytest.raises(NotYet, match=r"calm-cove.tunnel.test is not registered at the edge"):
        cloudflared.hostname()


def test_a_tunnel_that_has_no_name_yet_is_waited_for(metrics: Server, cloudflared: Cloudflared) -> None:
    metrics.say("/quicktunnel", {"hostname": ""})
    with pytest.raises(NotYet, match="has not been given a name yet"):
        cloudflared.hostname()


def test_a_named_tunnel_is_what_it_is_configured_to_be(metrics: Server, cloudflared: Cloudflared) -> None:
    rules = [
        {"hostname": "gw.tunnel.test", "service": "http://127.0.0.1:8080"},
        {"hostname": "", "service": "x"},
    ]
    metrics.say("/config", {"version": 1, "config": {"ingress": rules}})
    assert cloudflared.hostname("gw.tunnel.test") == "gw.tunnel.test"
    with pytest.raises(
        TunnelError, match=r"no rule for other\.tunnel\.test; it has gw\.tunnel\.test\. Check tunnel_hostname"
    ):
        cloudflared.hostname("other.tunnel.test")


def test_one_that_does_not_run_is_waited_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(NotYet, match=rf"cloudflared does not answer at 127\.0\.0\.1:{port}"):
        Cloudflared(f"127.0.0.1:{port}").hostname()


@pytest.mark.parametrize("told", [b"<html>", b"[]", b""])
def test_another_program_on_its_port_is_named(metrics: Server, cloudflared: Cloudflared, told: bytes) -> None:
    metrics.say("/ready", told)
    with pytest.raises(TunnelError, match=r"is not cloudflared.*tunnel_metrics_port"):
        cloudflared.hostname()


@pytest.mark.parametrize(
    "found,name",
    [
        ("calm-cove.trycloudflare.com", "calm-cove.trycloudflare.com"),
        ("https://calm-cove.trycloudflare.com", "calm-cove.trycloudflare.com"),
        ("https://Calm-Cove.trycloudflare.com/", "calm-cove.trycloudflare.com"),
    ],
)
def test_what_can_be_reached_from_outside(found: str, name: str) -> None:
    assert public_name(found) == name


@pytest.mark.parametrize(
    "found,words",
    [
        ("http://calm-cove.trycloudflare.com", "not https"),
        ("10.0.0.7", "an address and no name"),
        ("https://192.0.2.7", "an address and no name"),
        ("[::1]", "an address and no name"),
        ("localhost", "no name that is reached from outside"),
        ("gateway.localhost", "no name that is reached from outside"),
        ("gateway.internal", "no name that is reached from outside"),
        ("calm cove.example.com", "no name that is reached from outside"),
        ("example.com/path", "no name that is reached from outside"),
        ("user@example.com", "no name that is reached from outside"),
        ("example.com:8443", "no name that is reached from outside"),
        ("", "no name that is reached from outside"),
    ],
)
def test_what_cannot(found: str, words: str) -> None:
    with pytest.raises(TunnelError, match=words):
        public_name(found)


@dataclass
class Outside:
    """The world before the tunnel, and the app."""

    edge: Server
    app: Server
    settings: Settings
    secrets: Secrets

    @property
    def way(self) -> Way:
        return Way(self.settings, self.secrets)

    @property
    def django(self) -> App:
        return App(self.settings, self.secrets)


def certificate(place: Path) -> tuple[Path, Path]:
    """A certificate of that name, and the key with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    authority, both = place / "authority.pem", place / "both.pem"
    authority.write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    both.write_bytes(private + made.public_bytes(pem))
    return authority, both


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    authority, both = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    proof_dir = tmp_path / "proof"
    proof_dir.mkdir()
    edge, app = Server(proof_dir=proof_dir), Server()
    edge.say("/gw-a/v1/responses", {"error": {"message": "input is required"}}, 400)
    listening = [serve(edge, context), serve(app)]
    resolve = socket.getaddrinfo

    def resolved(host: str, port: int, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1", edge.port if host == NAME else port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    settings = Settings(
        metrics="127.0.0.1:1",
        proof_dir=str(proof_dir),
        api_url=f"http://127.0.0.1:{app.port}/api/",
        api_path="internal/gateways/{name}/address/",
        auth_header="Authorization",
        auth_prefix="Bearer",
        ca_path=str(authority),
        hostnames={"gw-a": ""},
    )
    access = {"CF-Access-Client-Id": "an-id", "CF-Access-Client-Secret": "a-secret"}
    yield Outside(edge, app, settings, Secrets(lambda: WATCHERS_TOKEN, lambda _name: TOKEN, lambda: access))
    for one in listening:
        one.shutdown()


def test_a_way_that_leads_here(outside: Outside) -> None:
    assert outside.way.prove(NAME, "gw-a") == f"https://{NAME}/gw-a"
    (_get, proof, first, _none), (method, path, second, body) = outside.edge.asked
    assert proof.startswith(PROOF_PATH) and "authorization" not in first
    assert (method, path, json.loads(body)) == ("POST", "/gw-a/v1/responses", {})
    assert second["authorization"] == f"Bearer {TOKEN}"
    # Whoever stands before the tunnel is shown what it asks for, both times.
    assert first["cf-access-client-secret"] == second["cf-access-client-secret"] == "a-secret"
    assert list(Path(outside.settings.proof_dir).iterdir()) == []


def test_a_quick_tunnels_new_name_is_proven_without_looking_it_up(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks it up before it is known is told that there is none, and for half an hour."""
    resolve, asked = socket.getaddrinfo, []

    def resolved(host: str, port: int, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve(host, outside.edge.port if host == "tunnel.test" else port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    way = outside.way
    way.prove(NAME, "gw-a")
    assert asked == ["tunnel.test"] * 2
    # Later it is reached as others reach it; one of one's own always is.
    monkeypatch.setattr(_tunnel, "_NEW_SECONDS", 0)
    asked.clear()
    way.prove(NAME, "gw-a")
    assert asked == [NAME] * 2
    monkeypatch.setattr(_tunnel, "_NEW_SECONDS", 30)
    asked.clear()
    own = Settings(**{**vars(outside.settings), "hostnames": {"gw-a": NAME}})
    Way(own, outside.secrets).prove(NAME, "gw-a")
    assert asked == [NAME] * 2


def test_a_header_that_cannot_be_sent_is_told_without_its_value(outside: Outside) -> None:
    given = outside.secrets._replace(access=lambda: {"CF-Access-Client-Secret": "a-secret\n"})
    with pytest.raises(TunnelError, match=r"a header .*CF-Access-Client-Secret.* has a line break") as raised:
        Way(outside.settings, given).prove(NAME, "gw-a")
    assert "a-secret" not in str(raised.value) and raised.value.__context__ is not None
    assert raised.value.__suppress_context__


def test_a_secret_is_one_word(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\ntwo\n")
    with pytest.raises(TunnelError, match="more than one word"):
        read_secret(tmp_path / "token")


@pytest.mark.parametrize(
    "status,body,words",
    [
        (200, b"Welcome", "does not lead to this machine: it answers 200"),
        (404, b"", "does not lead to this machine: it answers 404"),
        (302, b"", "something stands before the tunnel.*tunnel_access"),
        (403, b"", "something stands before the tunnel.*tunnel_access"),
        (530, b"error code: 1033", r"leads nowhere yet \(status 530\)"),
    ],
)
def test_a_way_that_leads_elsewhere_gets_no_token(
    outside: Outside, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, words: str
) -> None:
    monkeypatch.setattr(
        outside.edge, "answer", lambda method, path, headers, _body: _asked(outside, headers, status, body)
    )
    with pytest.raises(NotYet, match=words):
        outside.way.prove(NAME, "gw-a")
    assert [headers.get("authorization") for _method, _path, headers, _body in outside.edge.asked] == [None]
    assert list(Path(outside.settings.proof_dir).iterdir()) == []


def _asked(outside: Outside, headers: dict[str, str], status: int, body: bytes) -> tuple[int, bytes]:
    outside.edge.asked.append(("", "", headers, b""))
    return status, body


def test_a_certificate_of_somebody_unknown_is_not_trusted(outside: Outside) -> None:
    settings = Settings(**{**vars(outside.settings), "ca_path": ""})
    with pytest.raises(NotYet, match=r"cannot be reached from here.*certificate"):
        Way(settings, outside.secrets).prove(NAME, "gw-a")
    assert outside.edge.asked == []


@pytest.mark.parametrize(
    "status,error,words",
    [
        (401, TokenRefused, "gateway gw-a refuses its token"),
        (502, NotYet, "gateway gw-a does not answer through calm-cove.tunnel.test: status 502"),
        (404, NotYet, "status 404 where the gateway itself would say 400"),
        (200, NotYet, "status 200 where"),
    ],
)
def test_a_gateway_that_is_not_there(
    outside: Outside, status: int, error: type[TunnelError], words: str
) -> None:
    outside.edge.say("/gw-a/v1/responses", {}, status)
    with pytest.raises(error, match=words) as raised:
        outside.way.prove(NAME, "gw-a")
    assert raised.type is error and TOKEN not in str(raised.value)


def test_the_app_is_told_with_the_watchers_own_token(outside: Outside) -> None:
    outside.app.say("/api/internal/gateways/gw-a/address/", {"changed": True, "former_url": "", "url": "x"})
    assert outside.django.tell("gw-a", f"https://{NAME}/gw-a")["changed"] is True
    outside.django.complain("gw-a", "it is away")
    bodies = [json.loads(body) for _method, _path, _headers, body in outside.app.asked]
    assert bodies == [
        {"url": f"https://{NAME}/gw-a", "answered": True},
        {"answered": False, "reason": "it is away"},
    ]
    assert {headers["authorization"] for _method, _path, headers, _body in outside.app.asked} == {
        f"Bearer {WATCHERS_TOKEN}"
    }


@pytest.mark.parametrize(
    "status,error,words",
    [
        (400, TunnelError, "the app refuses the address: url: "),
        (401, TunnelError, "does not take this machine's token"),
        (403, TunnelError, "token is not for gateway gw-a"),
        (404, NotYet, "does not know gateway gw-a yet. Run the play that provisions"),
        (302, NotYet, "the app answers 302"),
        (500, NotYet, "the app answers 500"),
    ],
)
def test_an_app_that_does_not_take_it(
    outside: Outside, status: int, error: type[TunnelError], words: str
) -> None:
    outside.app.say("/api/internal/gateways/gw-a/address/", {"url": ["no"]} if status == 400 else {}, status)
    with pytest.raises(error, match=words) as raised:
        outside.django.tell("gw-a", f"https://{NAME}/gw-a")
    assert raised.type is error and WATCHERS_TOKEN not in str(raised.value)


def test_settings_are_read_of_what_the_role_wrote(tmp_path: Path) -> None:
    with pytest.raises(
        TunnelError, match=r"tunnel\.json cannot be read: .* Run the role claw\.fleet\.tunnel again"
    ):
        Settings.load(tmp_path)
    written = {
        "metrics": "127.0.0.1:20241", "proof_dir": "/run/x", "api_url": "http://a/", "api_path": "p", "auth_header": "A",
        "auth_prefix": "B", "ca_path": "",
    }  # fmt: skip
    (tmp_path / "tunnel.json").write_text(json.dumps(written))
    (tmp_path / "gateways.d").mkdir()
    (tmp_path / "gateways.d" / "gw-b.json").write_text('{"hostname": "b.example.com"}')
    (tmp_path / "gateways.d" / "gw-a.json").write_text('{"hostname": ""}')
    assert Settings.load(tmp_path).hostnames == {"gw-a": "", "gw-b": "b.example.com"}
    (tmp_path / "tunnel.json").write_text(json.dumps({**written, "more": 1}))
    with pytest.raises(TunnelError, match="of another version"):
        Settings.load(tmp_path)
