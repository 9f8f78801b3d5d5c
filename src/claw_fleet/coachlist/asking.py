# SPDX-License-Identifier: GPL-3.0-or-later
"""One question on its way to a coach's gateway: where to, with what, and what is said when it does not get there."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from typing import Any

import httpx
from django.db import DatabaseError
from django.views.decorators.debug import sensitive_variables

from claw_fleet.coachlist import conf, conversations, rules, turned_away
from claw_fleet.coachlist.errors import BadGateway, Conflict
from claw_fleet.coachlist.models import CompanionProfile, Gateway, Status, Wanted

logger = logging.getLogger(__name__)

# As much of a gateway's own words as goes into a message.
WORDS_MAX = 300
# What Cloudflare's edge answers where no tunnel of that name is connected: its own status, and its number for this.
_NO_TUNNEL = 530
_NO_TUNNEL_WORDS = re.compile(rb"error[^0-9]{1,60}1033\b", re.IGNORECASE)
# What fails before a request is sent: the name, the connection, TLS, a proxy on the way.
_BEFORE_SENDING = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


class NotReached(BadGateway):
    """502: there is nobody at the gateway's address, so nothing was done and the ask can be repeated."""


def session_key(coach: CompanionProfile, session: str) -> str:
    """The gateway's key of a coach's session.

    It is in the gateway's own form, bound to the agent; a bare key would be looked up as it stands, whoever's
    it is. The row's primary key keeps a coach who gets a former agent id out of the former coach's
    conversations.
    """
    return f"agent:{coach.agent_id}:coach-{coach.pk}-{session}"


def gateway_of(coach: CompanionProfile) -> Gateway:
    """The gateway that serves the coach now; otherwise a 409 or 502 that says what to do."""
    if coach.wanted == Wanted.PAUSED:
        raise Conflict("This coach is paused. Resume her in the admin first.", "paused")
    if coach.status != Status.ACTIVE or coach.gateway is None:
        raise Conflict(
            f"This coach's agent is not active yet: its status is {coach.status}. "
            "Wait for the next run of the fleet, or look at the reason in the admin.",
            "not_active",
        )
    if not rules.AGENT_ID.fullmatch(coach.agent_id) or coach.agent_id in rules.RESERVED_AGENT_IDS:
        # Such a row was imported. The gateway would answer some of these with another agent.
        raise Conflict("This coach's agent id is not a valid one, so no agent can be asked.", "agent_id")
    if not coach.gateway.url:
        raise BadGateway(
            f"The gateway “{coach.gateway.name}” has no address yet. Run the play that sets it.",
            "gateway_no_address",
            gateway=coach.gateway.name,
        )
    return coach.gateway


@functools.cache
def _client() -> httpx.Client:
    """One pool of connections a process. Threads bound how many are open, so the pool does not.

    Nor does it bound how many are kept: httpcore counts all of them as idle then, and closes one that another thread has
    just been given.
    """
    return httpx.Client(
        follow_redirects=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30),
    )


class Asking:
    """One question on its way to the coach's gateway, with each of the gateway's tokens once at most."""

    def __init__(self, coach: CompanionProfile, gateway: Gateway, question: dict[str, Any]) -> None:
        self._coach = coach
        self._gateway = gateway
        self._question = question
        self._tried: set[str] = set()
        self._followed = False
        session = question.get("session")
        self._beginning = conversations.Beginning(session_key(coach, session) if session else "")

    def begun(self) -> None:
        """The answer is there, or its first words: whoever asks in the same conversation may go on."""
        self._beginning.begun()

    @sensitive_variables()
    def send(self) -> httpx.Response:
        """The gateway's answer, its headers read and its body not; otherwise a 502.

        It waits until the ask before it in this conversation has begun; the caller must call `begun` afterwards. A coach
        who was paused in that while is not asked.
        """
        try:
            if self._beginning.wait():
                with contextlib.suppress(CompanionProfile.DoesNotExist):
                    self._coach.refresh_from_db()
                self._gateway = gateway_of(self._coach)
            return self._send()
        except BaseException:
            self.begun()
            raise

    @sensitive_variables()
    def _send(self) -> httpx.Response:
        gateway = self._gateway
        tokens = gateway.tokens()
        if not tokens:
            if gateway.token_encrypted:
                logger.error("COACHLIST_ENCRYPTION_KEYS cannot decrypt the token of gateway %s", gateway.name)
            raise BadGateway(
                f"No usable token of the gateway “{gateway.name}” is stored. "
                "Run the play that registers the gateway.",
                "gateway_no_token",
                gateway=gateway.name,
            )
        while True:
            token = next(token for token in tokens if token not in self._tried)
            self._tried.add(token)
            upstream = self._reach(token)
            if not _is_turned_away(upstream):
                break
            # It has done nothing, or told nothing. Its token may be changing at this moment: see what is known now.
            gateway.refresh_from_db()
            tokens = gateway.tokens()
            if self._tried.issuperset(tokens):
                break
            upstream.close()
        kind = upstream.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        expected = "text/event-stream" if self._question["stream"] else "application/json"
        if upstream.status_code != httpx.codes.OK or kind != expected:
            raise _refusal(gateway, upstream)
        gateway.accepted(token)
        return upstream

    @sensitive_variables()
    def _reach(self, token: str) -> httpx.Response:
        """What the gateway answers to this token.

        Where there is nobody at its address, it may have another by now: that is followed, once for each question.
        """
        gateway, tried = self._gateway, self._gateway.url
        try:
            return _send_with(token, self._coach, gateway, self._question)
        except NotReached:
            gateway.refresh_from_db()
            if self._followed or gateway.url in ("", tried):
                raise
        self._followed = True
        logger.info("gateway %s has another address by now, where it is asked", gateway.name)
        return _send_with(token, self._coach, gateway, self._question)

    def send_again(self) -> httpx.Response | None:
        """As `send`, where the gateway turned the ask away when it had begun to answer; None where that is no use."""
        try:
            self._gateway.refresh_from_db()
            if self._tried.issuperset(self._gateway.tokens()):
                return None
            return self._send()
        except (BadGateway, DatabaseError) as exc:
            logger.warning("gateway %s cannot be asked again: %s", self._gateway.name, exc)
            return None


def _is_turned_away(upstream: httpx.Response) -> bool:
    """Whether the gateway did nothing because of the token, or may have."""
    if upstream.status_code == httpx.codes.UNAUTHORIZED:
        return True
    if upstream.status_code not in (httpx.codes.FORBIDDEN, httpx.codes.INTERNAL_SERVER_ERROR):
        return False
    with contextlib.suppress(httpx.HTTPError):
        return turned_away.says_so(upstream.read())
    return False


def _has_no_tunnel(upstream: httpx.Response) -> bool:
    """Whether it is the tunnel's edge that answers, because the gateway's machine is not connected to it."""
    if upstream.status_code != _NO_TUNNEL:
        return False
    with contextlib.suppress(httpx.HTTPError):
        return bool(_NO_TUNNEL_WORDS.search(upstream.read()))
    return False


@sensitive_variables()
def _send_with(
    token: str, coach: CompanionProfile, gateway: Gateway, question: dict[str, Any]
) -> httpx.Response:
    try:
        upstream = _client().send(_request(token, coach, gateway, question), stream=True)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _unreachable(gateway, exc) from exc
    if _has_no_tunnel(upstream):
        upstream.close()
        logger.warning("gateway %s cannot be asked: no tunnel is connected at its address", gateway.name)
        raise _not_reached(gateway)
    return upstream


@sensitive_variables()
def _request(
    token: str, coach: CompanionProfile, gateway: Gateway, question: dict[str, Any]
) -> httpx.Request:
    stream = question["stream"]
    url = httpx.URL(f"{gateway.url.rstrip('/')}/v1/responses")
    headers = {
        **(_further_headers() if url.scheme == "https" else {}),
        "Authorization": f"Bearer {token}",
        "Accept": "text/event-stream" if stream else "application/json",
        "Accept-Encoding": "identity",  # a compressed stream would arrive in lumps
        "x-openclaw-agent-id": coach.agent_id,
    }
    if stream:
        # Relay ends it by its socket, which therefore must not become another ask's. So each makes a connection of its own.
        headers["Connection"] = "close"
    if question.get("session"):
        headers["x-openclaw-session-key"] = session_key(coach, question["session"])
    return _client().build_request(
        "POST",
        url,
        headers=headers,
        json={"model": "openclaw", "input": question["input"], "stream": stream},
        timeout=httpx.Timeout(
            conf.ask_connect_timeout(), read=conf.ask_read_timeout(), connect=conf.ask_connect_timeout()
        ),
    )


@sensitive_variables()
def _further_headers() -> dict[str, str]:
    """Those of COACHLIST_GATEWAY_HEADERS, without any that an ask has itself."""
    return {
        name: value for name, value in conf.gateway_headers().items() if not rules.is_header_of_an_ask(name)
    }


def _unreachable(gateway: Gateway, exc: Exception) -> BadGateway:
    logger.warning("gateway %s cannot be asked: %s: %s", gateway.name, type(exc).__name__, exc)
    if isinstance(exc, _BEFORE_SENDING):
        return _not_reached(gateway)
    silent = isinstance(exc, (httpx.ReadTimeout, httpx.WriteTimeout))
    return BadGateway(
        _out_of_reach(gateway, "does not answer" if silent else "cannot be reached"),
        "gateway_silent" if silent else "gateway_unreachable",
        gateway=gateway.name,
    )


def _not_reached(gateway: Gateway) -> NotReached:
    return NotReached(
        _out_of_reach(gateway, "cannot be reached"), "gateway_unreachable", gateway=gateway.name
    )


def _out_of_reach(gateway: Gateway, what: str) -> str:
    return (
        f"The gateway “{gateway.name}” {what}. Ask again; "
        "if it stays so, look whether the gateway runs and whether its address is still right."
    )


def _refusal(gateway: Gateway, upstream: httpx.Response) -> BadGateway:
    """What the gateway says, with what to do about the cases an operator meets."""
    try:
        upstream.read()
        words = str(upstream.json()["error"]["message"])[:WORDS_MAX]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        words = ""
    finally:
        upstream.close()
    code = upstream.status_code
    advice = {
        200: "It did not send what was asked for. Is the address really the gateway's?",
        302: "Something in front of it wants a sign-in. COACHLIST_GATEWAY_HEADERS can give it one.",
        400: "If it does not know the agent, run the play that provisions coaches.",
        401: "The stored token is not the gateway's any more. Run the play that registers the gateway.",
        403: "A proxy in front of it refused. Is the address really the gateway's?",
        404: "Either its endpoint for responses is off, or the address is not the gateway's.",
        429: "It is busy. Ask again later.",
        503: "It is starting or stopping. Ask again.",
    }.get(code, "Its log says more.")
    logger.warning("gateway %s refused: %s %s", gateway.name, code, words)
    said = f": {words.rstrip('.')}" if words else ""
    return BadGateway(
        f"The gateway “{gateway.name}” refused with status {code}{said}. {advice}",
        "gateway_refused",
        gateway=gateway.name,
        gateway_status=code,
    )


def whole_answer(upstream: httpx.Response, gateway: Gateway) -> str:
    """The text of an OpenResponses answer; otherwise a 502."""
    try:
        upstream.read()
        answer = upstream.json()
    except httpx.HTTPError as exc:
        raise _unreachable(gateway, exc) from exc
    except ValueError:
        answer = None
    finally:
        upstream.close()
    if not isinstance(answer, dict) or answer.get("status") == "failed":
        error = answer.get("error") if isinstance(answer, dict) else None
        words = str(error.get("message", ""))[:WORDS_MAX] if isinstance(error, dict) else ""
        raise BadGateway(
            f"The agent could not answer{': ' + words if words else ''}. "
            "Ask again; the gateway's log says more.",
            "agent_failed",
            gateway=gateway.name,
        )
    return "".join(
        part["text"]
        for item in answer.get("output") or []
        if item.get("type") == "message"
        for part in item.get("content") or []
        if part.get("type") == "output_text"
    )
