"""Secrets that change while people ask: nothing is lost on the way, and the old one ends."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from claw_fleet.coachlist import asking
from claw_fleet.coachlist.models import CompanionProfile, Gateway, ServiceToken
from claw_fleet.coachlist.relay import KEEPALIVE
from claw_fleet.coachlist.turned_away import continued

from .conftest import (
    GATEWAY_TOKEN,
    KEY,
    OLD_SERVICE_TOKEN,
    SERVICE_TOKEN,
    Api,
    MakeCoach,
    sha256,
)
from .standin import Reply, StandIn

NEXT = "cd34" * 12
REGISTERED = "registered-" + "0123456789" * 4
ANSWER = {
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
}


def ask() -> int:
    """The status of an ask."""
    status: int = Api(KEY).post("ask/", {"input": "Hello", "stream": False}).status_code
    return status


def taking(standin: StandIn, token: str) -> Callable[[Reply], None]:
    """A gateway that takes one token alone."""

    def answer(reply: Reply) -> None:
        if standin.heard[-1].headers["authorization"] == f"Bearer {token}":
            reply.json(ANSWER)
        else:
            reply.json({"error": {"message": "Unauthorized"}}, 401)

    return answer


def presented(standin: StandIn) -> list[str]:
    """The tokens that came to the gateway, in order."""
    return [heard.headers["authorization"].removeprefix("Bearer ") for heard in standin.heard]


def announce(fleet_api: Api) -> dict[str, Any]:
    """The fleet says which token will be in force."""
    answer = fleet_api.put("internal/gateways/gw-a/", {"next_token": NEXT})
    assert answer.status_code == 200 and NEXT not in answer.content.decode()
    told: dict[str, Any] = answer.json()
    return told


def test_a_gateways_token_changes_and_no_ask_is_lost(
    coach: CompanionProfile, fleet_api: Api, standin: StandIn
) -> None:
    standin.answer = taking(standin, GATEWAY_TOKEN)
    told = announce(fleet_api)
    assert (told["token_sha256"], told["next_token_sha256"]) == (sha256(GATEWAY_TOKEN), sha256(NEXT))
    assert told["changed"] and not announce(fleet_api)["changed"]
    assert ask() == 200 and presented(standin) == [GATEWAY_TOKEN]

    standin.answer = taking(standin, NEXT)
    assert ask() == 200 and presented(standin)[1:] == [GATEWAY_TOKEN, NEXT]
    assert ask() == 200 and presented(standin)[3:] == [NEXT]
    assert Gateway.objects.get().tokens() == [NEXT]
    assert fleet_api.get("internal/gateways/gw-a/").json()["next_token_sha256"] == ""


def test_the_fleet_ends_the_overlap_when_nobody_asks(coach: CompanionProfile, fleet_api: Api) -> None:
    announce(fleet_api)
    told = fleet_api.put("internal/gateways/gw-a/", {"token": NEXT}).json()
    assert (told["token_sha256"], told["next_token_sha256"], told["changed"]) == (sha256(NEXT), "", True)
    assert fleet_api.put("internal/gateways/gw-a/", {"token": NEXT}).json()["changed"] is False
    announce(fleet_api)
    assert Gateway.objects.get().tokens() == [NEXT], "what is in force need not be announced"


def test_an_announcement_can_be_taken_back(coach: CompanionProfile, fleet_api: Api) -> None:
    announce(fleet_api)
    assert fleet_api.put("internal/gateways/gw-a/", {"token": GATEWAY_TOKEN}).json()["changed"] is True
    assert Gateway.objects.get().tokens() == [GATEWAY_TOKEN]


def test_a_token_that_is_announced_and_taken_while_an_ask_is_under_way(
    coach: CompanionProfile, fleet_api: Api, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = asking._send_with

    def send_late(*arguments: Any) -> Any:
        # The gateway's row has been read by now.
        announce(fleet_api)
        standin.answer = taking(standin, NEXT)
        return send(*arguments)

    monkeypatch.setattr(asking, "_send_with", send_late)
    assert ask() == 200 and presented(standin) == [GATEWAY_TOKEN, NEXT]


def test_a_gateway_that_takes_neither_is_a_502_after_two_tries(
    coach: CompanionProfile, fleet_api: Api, standin: StandIn
) -> None:
    announce(fleet_api)
    standin.answer = taking(standin, "another")
    assert ask() == 502 and presented(standin) == [GATEWAY_TOKEN, NEXT]
    assert Gateway.objects.get().tokens() == [GATEWAY_TOKEN, NEXT]


def test_a_lost_token_does_not_hide_the_announced_one(
    coach: CompanionProfile, fleet_api: Api, standin: StandIn
) -> None:
    Gateway.objects.update(token_encrypted="gAAAA-of-a-lost-key")
    announce(fleet_api)
    standin.answer = taking(standin, NEXT)
    assert ask() == 200 and presented(standin) == [NEXT]


def test_one_token_at_a_time_is_told(coach: CompanionProfile, fleet_api: Api) -> None:
    answer = fleet_api.put("internal/gateways/gw-a/", {"token": NEXT, "next_token": "e" * 48})
    assert answer.status_code == 400 and "next_token" in answer.json()["detail"]
    assert Gateway.objects.get().tokens() == [GATEWAY_TOKEN]


TURNED_AWAY = {"code": "authentication_error", "message": "Gateway requester authority changed"}
WITHOUT_WORDS = {"code": "api_error", "message": "internal error"}


def events(number: int, *words: str, failure: dict[str, str] | None = None) -> list[bytes]:
    """A stream as the gateway writes it, by the ids of its number; with a failure or without words it fails."""
    response, item = f"resp_{number}", f"msg_{number}"
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": {"id": response, "status": "in_progress"}}),
        ("response.in_progress", {"response": {"id": response}}),
        ("response.output_item.added", {"item": {"id": item}}),
        ("response.content_part.added", {"item_id": item}),
        *(("response.output_text.delta", {"item_id": item, "delta": word}) for word in words),
    ]
    if words and not failure:
        told.append(("response.completed", {"response": {"id": response, "output": [{"id": item}]}}))
    else:
        told.append(("response.failed", {"response": {"id": response, "error": failure or TURNED_AWAY}}))
    made = [
        f"event: {kind}\n".encode()
        + b"data: "
        + json.dumps({"type": kind, **data}, separators=(",", ":")).encode()
        + b"\n\n"
        for kind, data in told
    ]
    return [*made, b"data: [DONE]\n\n"]


@given(data=st.data(), size=st.integers(1, 60))
def test_a_stream_that_was_turned_away_is_continued_by_the_next(data: st.DataObject, size: int) -> None:
    def pieces(stream: list[bytes]) -> list[bytes]:
        whole = b"".join(stream)
        if data.draw(st.booleans()):
            return stream
        return [whole[start : start + size] for start in range(0, len(whole), size)]

    failure = data.draw(st.sampled_from([TURNED_AWAY, WITHOUT_WORDS]))
    first, second = pieces(events(1, failure=failure)), pieces(events(2, "Good", "morning"))
    got = b"".join(continued(first, lambda: second))
    assert got == b"".join(events(1, "Good", "morning"))
    # Where nobody can ask again, and where nothing was turned away, each byte stays what it is, when it comes.
    assert b"".join(continued(first, lambda: None)) == b"".join(first)
    assert list(continued(second, lambda: None)) == second
    for other in (
        events(1, failure={"code": "rate_limit_error", "message": "Too many requests"}),
        events(1, "Good", failure=failure),
    ):
        assert b"".join(continued(pieces(other), lambda: second)) == b"".join(other)


@pytest.mark.django_db(transaction=True)
def test_an_ask_that_waits_while_the_token_changes_is_answered(
    server: str, coach: CompanionProfile, fleet_api: Api, standin: StandIn
) -> None:
    def turned_away(reply: Reply) -> None:
        reply.start()
        for event in events(1)[:4]:
            reply.chunk(event)
        standin.answer = answered
        for event in events(1)[4:]:
            reply.chunk(event)
        reply.end()

    def answered(reply: Reply) -> None:
        reply.start()
        for event in events(2, "Good", "morning"):
            reply.chunk(event)
        reply.end()

    announce(fleet_api)
    standin.answer = turned_away
    url, headers = f"{server}/api/companion/v1/ask/", {"Authorization": f"Bearer {KEY}"}
    got = httpx.post(url, json={"input": "Hello"}, headers=headers, timeout=60).content
    # On a busy machine Django may have told meanwhile that it is still there.
    assert got.replace(KEEPALIVE, b"") == b"".join(events(1, "Good", "morning"))
    assert presented(standin) == [GATEWAY_TOKEN, NEXT]
    assert Gateway.objects.get().tokens() == [NEXT]


@pytest.mark.parametrize(("error", "status"), [(TURNED_AWAY, 403), (WITHOUT_WORDS, 500)])
def test_an_ask_in_one_piece_that_waits_is_answered_too(
    coach: CompanionProfile, fleet_api: Api, standin: StandIn, error: dict[str, str], status: int
) -> None:
    def turned_away(reply: Reply) -> None:
        standin.answer = taking(standin, NEXT)
        reply.json({"status": "failed", "error": error}, status)

    announce(fleet_api)
    standin.answer = turned_away
    assert ask() == 200 and presented(standin) == [GATEWAY_TOKEN, NEXT]


# A coach's key.


def register(fleet_api: Api, key: str, **changes: Any) -> bool:
    """Register a key by its hash; whether that changed anything."""
    body = {"key_id": key[:4], "key_sha256": sha256(key), "key_generation": 1, **changes}
    answer = fleet_api.post("internal/set-key/coach-anna/", body)
    assert answer.status_code == 200, answer.content
    changed: bool = answer.json()["changed"]
    return changed


def opens(key: str) -> bool:
    """Whether a key opens the coach's data."""
    status: int = Api(key).get("clients/").status_code
    assert status in {200, 401}
    return status == 200


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Moves the clock so many seconds ahead of the true one."""
    true = timezone.now

    def ahead(seconds: int) -> None:
        monkeypatch.setattr(timezone, "now", lambda: true() + datetime.timedelta(seconds=seconds))

    return ahead


@pytest.mark.django_db
def test_the_key_before_is_good_for_a_moment(
    fleet_api: Api, make_coach: MakeCoach, clock: Callable[[int], None]
) -> None:
    make_coach(key="one")
    assert register(fleet_api, "two", former_seconds=60) is True
    assert opens("one") and opens("two")
    # Told again when it is in place: less, and never more.
    assert register(fleet_api, "two", former_seconds=5) is False
    assert register(fleet_api, "two", former_seconds=300) is False
    assert opens("one")
    clock(6)
    assert not opens("one") and opens("two")


@pytest.mark.django_db
@pytest.mark.parametrize("end", ["at once", "told", "another", "revoked", "removed"])
def test_the_key_before_ends_with_what_ends_it(fleet_api: Api, make_coach: MakeCoach, end: str) -> None:
    coach = make_coach(key="one")
    register(fleet_api, "two", former_seconds=0 if end == "at once" else 60)
    if end == "told":
        register(fleet_api, "two")
    elif end == "another":
        register(fleet_api, "three", former_seconds=60)
        assert opens("two")
    elif end == "revoked":
        assert fleet_api.delete("internal/set-key/coach-anna/").json() == {"changed": True}
        assert not opens("two")
    elif end == "removed":
        CompanionProfile.objects.filter(pk=coach.pk).update(wanted="removed")
    assert not opens("one")


@pytest.mark.django_db
def test_a_first_key_leaves_nothing_before_it(fleet_api: Api, make_coach: MakeCoach) -> None:
    make_coach()
    register(fleet_api, "one", former_seconds=60)
    coach = CompanionProfile.objects.get()
    assert (coach.former_key_sha256, coach.former_key_until) == ("", None)
    assert not opens("")


# Service tokens.


def at(token: str) -> str:
    """Where a service token is."""
    return f"internal/service-tokens/{sha256(token)}/"


@pytest.fixture
def registered(db: None, fleet_api: Api) -> Api:
    """The internal API, with a token that was registered through it."""
    assert fleet_api.put(at(REGISTERED), {"name": "controller"}).json() == {"changed": True}
    assert fleet_api.put(at(REGISTERED), {"name": "controller"}).json() == {"changed": False}
    return Api(REGISTERED)


def test_a_registered_token_is_as_good_as_a_configured_one(registered: Api) -> None:
    assert registered.get("internal/coaches/").status_code == 200
    token = ServiceToken.objects.get()
    assert token.last_used_at is not None and REGISTERED not in str(ServiceToken.objects.values())
    shown = {"token_sha256": sha256(REGISTERED), "name": "controller", "configured": False, "presented": True}
    assert registered.get(at(REGISTERED)).json() == {**shown, "gateways": []}
    configured = registered.get(at(SERVICE_TOKEN)).json()
    assert (configured["configured"], configured["presented"]) == (True, False)


def test_a_revoked_token_is_refused_at_once_and_does_not_come_back(registered: Api, fleet_api: Api) -> None:
    assert fleet_api.delete(at(REGISTERED)).json() == {"changed": True}
    assert registered.get("internal/coaches/").status_code == 401
    assert fleet_api.delete(at(REGISTERED)).json() == {"changed": False}
    assert fleet_api.get(at(REGISTERED)).status_code == 404
    again = fleet_api.put(at(REGISTERED), {"name": "controller"})
    assert again.status_code == 409 and "new one" in again.json()["detail"]


def test_a_configured_token_can_only_be_taken_out_of_the_settings(registered: Api, settings: Any) -> None:
    answer = registered.delete(at(OLD_SERVICE_TOKEN))
    assert answer.status_code == 409 and answer.json()["code"] == "service_token_configured"
    assert "COACHLIST_SERVICE_TOKENS" in answer.json()["detail"]
    assert Api(OLD_SERVICE_TOKEN).get("internal/coaches/").status_code == 200
    settings.COACHLIST_SERVICE_TOKENS = [SERVICE_TOKEN]
    assert registered.delete(at(OLD_SERVICE_TOKEN)).status_code == 404
    assert Api(OLD_SERVICE_TOKEN).get("internal/coaches/").status_code == 401


def test_nobody_saws_off_the_branch_they_sit_on(registered: Api) -> None:
    answer = registered.delete(at(REGISTERED))
    assert answer.status_code == 409 and answer.json()["code"] == "service_token_presented"
    assert registered.get("internal/coaches/").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("digest", ["x", "A" * 64, "a" * 63, "%00"])
def test_a_token_is_named_by_its_hash_alone(fleet_api: Api, digest: str) -> None:
    for answer in (
        fleet_api.put(f"internal/service-tokens/{digest}/", {"name": "x"}),
        fleet_api.get(f"internal/service-tokens/{digest}/"),
        fleet_api.delete(f"internal/service-tokens/{digest}/"),
    ):
        assert answer.status_code == 400
    assert not ServiceToken.objects.exists()


@pytest.mark.django_db
def test_a_coachs_key_and_nobody_register_no_token(make_coach: MakeCoach) -> None:
    make_coach(key=KEY)
    for bearer in (None, KEY):
        assert Api(bearer).put(at(REGISTERED), {"name": "x"}).status_code == 401
    assert not ServiceToken.objects.exists()


def test_a_person_revokes_a_token_in_the_admin(registered: Api, admin_client: Client) -> None:
    pk = ServiceToken.objects.get().pk
    page = admin_client.post(
        "/admin/coachlist/servicetoken/", {"action": "revoke", "_selected_action": [pk]}, follow=True
    )
    assert "1 revoked" in page.content.decode()
    assert registered.get("internal/coaches/").status_code == 401
    assert admin_client.get(f"/admin/coachlist/servicetoken/{pk}/change/").status_code == 200
    assert admin_client.get("/admin/coachlist/servicetoken/add/").status_code == 403


@pytest.mark.django_db(transaction=True)
def test_a_database_from_before_keeps_what_is_in_it() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate([("coachlist", "0001_initial")])
    try:
        old = executor.loader.project_state([("coachlist", "0001_initial")]).apps
        old.get_model("coachlist", "Gateway").objects.create(name="gw-a", token_sha256="a" * 64)
        old.get_model("coachlist", "CompanionProfile").objects.create(
            agent_id="coach-anna", name="Anna", key_sha256=sha256(KEY)
        )
    finally:
        call_command("migrate", "coachlist", verbosity=0)
    assert Gateway.objects.get().next_token_sha256 == ""
    assert opens(KEY)
