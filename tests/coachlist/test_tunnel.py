"""Asking through a tunnel: its address changes at any moment, and something may stand before it that wants a header."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.core.checks import run_checks

from claw_fleet.coachlist import asking
from claw_fleet.coachlist.models import CompanionProfile, Gateway

from .conftest import GATEWAY_TOKEN
from .standin import Reply, StandIn
from .test_ask import FIRST, LAST, ask, whole

SECRET = "the-secret-of-access"
ACCESS = {"CF-Access-Client-Id": "machine.access", "CF-Access-Client-Secret": SECRET}
NO_TUNNEL = b"<title>Argo Tunnel error</title><span>Error</span> <span class='cf-error-code'>1033</span>"


@contextlib.contextmanager
def refusing(edge: StandIn) -> Iterator[str]:
    """An address where connections are refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextlib.contextmanager
def swallowing(edge: StandIn) -> Iterator[str]:
    """An address where nobody takes a connection, nor refuses it."""
    with socket.socket() as held, contextlib.ExitStack() as queue:
        held.bind(("127.0.0.1", 0))
        held.listen(0)
        for _ in range(2):  # the queue is full with these
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(held.getsockname())
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextlib.contextmanager
def without_tls(edge: StandIn) -> Iterator[str]:
    """An address where TLS is wanted and not spoken."""
    yield edge.url.replace("http:", "https:")


@contextlib.contextmanager
def without_tunnel(edge: StandIn) -> Iterator[str]:
    """The edge of a tunnel that is not connected."""
    edge.answer = lambda reply: reply.whole(NO_TUNNEL, "text/html; charset=UTF-8", 530)
    yield f"{edge.url}/gw-a"


@contextlib.contextmanager
def of_no_kind(edge: StandIn) -> Iterator[str]:
    """An address that is none, as an import can bring one."""
    yield "gw.example.org"


NOBODY = [refusing, swallowing, without_tls, without_tunnel, of_no_kind]
Nobody = Callable[[StandIn], contextlib.AbstractContextManager[str]]


@pytest.fixture
def edge() -> Iterator[StandIn]:
    """What is at the gateway's former address; `standin` is at the new one."""
    with StandIn() as server:
        yield server


@pytest.fixture
def moved(
    coach: CompanionProfile, standin: StandIn, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> list[str]:
    """The gateway's address changes once an ask has read it; to the stand-in's, or the one that is put here."""
    settings.COACHLIST_ASK_CONNECT_TIMEOUT = 0.5
    standin.answer = lambda reply: reply.json(whole("Hello"))
    to, send = [f"{standin.url}/new"], asking._send_with

    def send_late(*arguments: Any) -> httpx.Response:
        Gateway.objects.update(url=to[0])
        return send(*arguments)

    monkeypatch.setattr(asking, "_send_with", send_late)
    return to


@pytest.mark.parametrize("nobody", NOBODY)
def test_a_gateway_that_has_moved_is_followed(
    moved: list[str], edge: StandIn, standin: StandIn, nobody: Nobody
) -> None:
    with nobody(edge) as url:
        Gateway.objects.update(url=url)
        answer = ask()
    assert (answer.status_code, answer.json()) == (200, {"answer": "Hello"})
    (heard,) = standin.heard
    assert heard.path == "/new/v1/responses" and heard.headers["authorization"] == f"Bearer {GATEWAY_TOKEN}"


@pytest.mark.parametrize("nobody", NOBODY)
def test_a_gateway_that_is_away_and_has_not_moved_is_asked_once(
    coach: CompanionProfile, edge: StandIn, settings: Any, nobody: Nobody
) -> None:
    settings.COACHLIST_ASK_CONNECT_TIMEOUT = 0.5
    with nobody(edge) as url:
        Gateway.objects.update(url=url)
        answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (502, "gateway_unreachable")
    assert answer.json()["detail"].startswith("The gateway “gw-a” cannot be reached. Ask again;")
    assert len(edge.heard) == (1 if nobody is without_tunnel else 0)


def test_it_is_followed_once(moved: list[str], edge: StandIn) -> None:
    with without_tunnel(edge) as url, StandIn() as other:
        other.answer = edge.answer
        Gateway.objects.update(url=url)
        moved[0] = other.url
        answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (502, "gateway_unreachable")
    assert [len(edge.heard), len(other.heard)] == [1, 1]


def test_an_address_that_is_taken_away_is_not_followed(moved: list[str], edge: StandIn) -> None:
    with without_tunnel(edge) as url:
        Gateway.objects.update(url=url)
        moved[0] = ""
        assert ask().json()["code"] == "gateway_unreachable"


def says(data: bytes, status: int) -> Callable[[Reply], None]:
    """A whole answer that is none of a gateway's."""
    return lambda reply: reply.whole(data, "text/plain", status)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda reply: reply.wait_until_hung_up(), "gateway_silent"),
        (lambda reply: reply.break_off(), "gateway_unreachable"),
        (says(b"error code: 502", 502), "gateway_refused"),
        (says(b"error code: 504", 504), "gateway_refused"),
        (says(b"error code: 1016", 530), "gateway_refused"),
        (says(b"error code: 1033", 502), "gateway_refused"),
        (says(b"Ray ID: 8f1033a", 530), "gateway_refused"),
    ],
    ids=["silence", "hung-up", "502", "504", "530-other", "502-naming-1033", "530-by-chance"],
)
def test_what_may_have_begun_is_not_repeated(
    moved: list[str],
    edge: StandIn,
    standin: StandIn,
    settings: Any,
    answer: Callable[[Reply], None],
    code: str,
) -> None:
    settings.COACHLIST_ASK_READ_TIMEOUT = 0.2
    edge.answer = answer
    Gateway.objects.update(url=edge.url)
    said = ask()
    assert (said.status_code, said.json()["code"]) == (502, code)
    assert len(edge.heard) == 1 and not standin.heard


def test_a_stream_that_is_cut_is_not_repeated(moved: list[str], edge: StandIn, standin: StandIn) -> None:
    def cut(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST)
        reply.break_off()

    edge.answer = cut
    Gateway.objects.update(url=edge.url)
    got = b"".join(ask({"stream": True}).streaming_content)
    assert got.startswith(FIRST) and b"gateway_lost" in got
    assert not standin.heard


def test_a_stream_begins_at_the_new_address(moved: list[str], edge: StandIn, standin: StandIn) -> None:
    def stream(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST + LAST)
        reply.end()

    standin.answer = stream
    with without_tunnel(edge) as url:
        Gateway.objects.update(url=url)
        assert b"".join(ask({"stream": True}).streaming_content) == FIRST + LAST


# Headers for what stands before the gateway.


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that speaks TLS, with a certificate that asks believe."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    both = tmp_path / "stand-in.pem"
    pem = serialization.Encoding.PEM
    both.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(both)
    client = httpx.Client(verify=ssl.create_default_context(cafile=both), follow_redirects=False)
    monkeypatch.setattr(asking, "_client", lambda: client)
    with client, StandIn(served) as server:
        server.answer = lambda reply: reply.json(whole("Hello"))
        yield server


def test_headers_go_to_gateways_over_https_alone(
    coach: CompanionProfile, secure: StandIn, standin: StandIn, settings: Any
) -> None:
    settings.COACHLIST_GATEWAY_HEADERS = ACCESS
    standin.answer = secure.answer
    for server in (secure, standin):
        Gateway.objects.update(url=server.url)
        assert ask().status_code == 200
        (heard,) = server.heard
        sent = {name: heard.headers.get(name.lower()) for name in ACCESS}
        assert sent == (ACCESS if server is secure else dict.fromkeys(ACCESS))
        assert heard.headers["authorization"] == f"Bearer {GATEWAY_TOKEN}"


def test_no_header_of_an_ask_is_overridden(coach: CompanionProfile, secure: StandIn, settings: Any) -> None:
    others = ["AUTHORIZATION", "X-OpenClaw-Agent-Id", "x-openclaw-session-key", "Content-Type", "host"]
    others += ["accept", "Accept-Encoding", "Content-Length", "Transfer-Encoding"]
    settings.COACHLIST_GATEWAY_HEADERS = {**dict.fromkeys(others, "17"), **ACCESS}
    Gateway.objects.update(url=secure.url)
    assert ask().status_code == 200
    headers = secure.heard[0].headers
    assert "17" not in headers.values() and headers["cf-access-client-secret"] == SECRET
    assert headers["authorization"] == f"Bearer {GATEWAY_TOKEN}"
    warned = [message for message in run_checks() if message.id == "coachlist.W003"]
    assert len(warned) == len(others) and all(SECRET not in str(message) for message in warned)


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        (None, "JSON object"),
        ([SECRET], "JSON object"),
        ({SECRET + ":": "x"}, "number 1"),
        ({"": SECRET}, "number 1"),
        ({"x a": SECRET}, "number 1"),
        ({"x-a": "fine", "x\r\nb": SECRET}, "number 2"),
        ({"x-a": ""}, "“x-a”"),
        ({"x-a": 7}, "“x-a”"),
        ({"x-a": f" {SECRET}"}, "“x-a”"),
        ({"x-a": f"{SECRET}\n"}, "“x-a”"),
        ({"x-a": f"{SECRET}\r\nx-b: c"}, "“x-a”"),
        ({"x-a": f"{SECRET}ü"}, "“x-a”"),
    ],
)
def test_headers_that_cannot_be_sent_are_an_error_that_does_not_show_them(
    coach: CompanionProfile, secure: StandIn, settings: Any, headers: Any, word: str
) -> None:
    settings.COACHLIST_GATEWAY_HEADERS = headers
    (error,) = [message for message in run_checks() if message.id == "coachlist.E004"]
    assert word in error.msg and SECRET not in f"{error.msg} {error.hint}"
    # Nor are they sent where nobody has run the checks.
    Gateway.objects.update(url=secure.url)
    with pytest.raises(Exception, match="COACHLIST_GATEWAY_HEADERS") as raised:
        ask()
    assert SECRET not in str(raised.value) and not secure.heard


@pytest.mark.parametrize("status", [200, 403, 530])
def test_no_log_holds_them(
    coach: CompanionProfile, secure: StandIn, settings: Any, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO)
    settings.COACHLIST_GATEWAY_HEADERS = ACCESS
    secure.answer = lambda reply: reply.json(whole("Hello"), status)
    Gateway.objects.update(url=secure.url)
    answer = ask()
    assert answer.status_code == (200 if status == 200 else 502)
    assert SECRET not in caplog.text + answer.content.decode()


def test_a_sign_in_before_the_gateway_is_named_as_such(coach: CompanionProfile, secure: StandIn) -> None:
    secure.answer = lambda reply: reply.whole(b"", "text/html", 302)
    Gateway.objects.update(url=secure.url)
    assert "COACHLIST_GATEWAY_HEADERS" in ask().json()["detail"]
