"""The chat page without a browser: who gets in, what is asked, and what a coach is told when it does not work."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from claw_fleet.coachlist import chat
from claw_fleet.coachlist.models import CompanionProfile, Gateway

from .conftest import MakeCoach
from .standin import StandIn
from .test_admin import LIST, form_of, text_of
from .test_ask import FIRST, LAST, ask, whole


@pytest.fixture
def anna(coach: CompanionProfile, django_user_model: Any) -> Client:
    """A browser in which the coach is signed in."""
    coach.user = django_user_model.objects.create_user("anna")
    coach.save(update_fields=["user"])
    client = Client()
    client.force_login(coach.user)
    return client


def send(client: Client, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Any:
    """POST chat/ask/, as the page does."""
    return client.post(
        "/chat/ask/",
        {"input": "Hello", "session": "chat-2026-11-26", **(body or {})},
        content_type="application/json",
        headers=headers,
    )


def test_a_coach_signs_in_and_asks(coach: CompanionProfile, anna: Client, standin: StandIn) -> None:
    def stream(reply: Any) -> None:
        reply.start()
        reply.chunk(FIRST + LAST)
        reply.end()

    standin.answer = stream
    assert coach.user is not None
    coach.user.set_password("calm-river-42")
    coach.user.save()
    client = Client()
    first = client.get("/chat/")
    assert (first.status_code, first["Location"]) == (302, "/chat/login/?next=/chat/")
    assert "Sign in" in text_of(client.get(first["Location"]))
    wrong = client.post("/chat/login/", {"username": "anna", "password": "x"})
    assert "correct username and password" in text_of(wrong)
    signed_in = client.post(
        "/chat/login/", {"username": "anna", "password": "calm-river-42", "next": "/chat/"}
    )
    assert signed_in["Location"] == "/chat/"
    page = client.get("/chat/")
    assert "Your question, Anna" in text_of(page)
    session = re.search(r'data-session="([^"]+)"', page.content.decode())
    assert session is not None

    answer = send(client, {"session": session[1]})
    assert answer.status_code == 200 and answer["Content-Type"] == "text/event-stream"
    assert answer["Cache-Control"] == "no-store" and answer["X-Accel-Buffering"] == "no"
    assert b"".join(answer.streaming_content) == FIRST + LAST
    (heard,) = standin.heard
    assert heard.body == {"model": "openclaw", "input": "Hello", "stream": True}
    key = f"agent:coach-anna:coach-{coach.pk}-{session[1]}"
    assert heard.headers["x-openclaw-session-key"] == key

    assert client.post("/chat/logout/")["Location"] == "/chat/login/"
    assert send(client).status_code == 403


def test_a_request_from_another_page_is_refused(
    anna: Client, coach: CompanionProfile, standin: StandIn
) -> None:
    assert coach.user is not None
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(coach.user)
    answer = send(strict)
    assert (answer.status_code, answer.json()) == (403, {"detail": chat.SIGNED_OUT}) and not standin.heard
    standin.answer = lambda reply: reply.json(whole("x"))
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', strict.get("/chat/").content.decode())
    assert token is not None
    assert send(strict, {"stream": False}, {"X-CSRFToken": token[1]}).json() == {"answer": "x"}


def test_neither_a_key_nor_nobody_asks_here(coach: CompanionProfile, standin: StandIn) -> None:
    for headers in ({}, {"Authorization": "Bearer the-key-of-anna"}):
        answer = send(Client(), headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"detail": chat.SIGNED_OUT})
    assert not standin.heard


def test_a_user_without_a_coach_is_told_so(
    client: Client, django_user_model: Any, make_coach: MakeCoach
) -> None:
    make_coach("of-nobody")
    client.force_login(django_user_model.objects.create_user("ben"))
    page = client.get("/chat/")
    assert page.status_code == 403 and chat.REFUSED["no_coach"] in page.content.decode()
    assert "ben" in page.content.decode() and "Sign out" in page.content.decode()
    answer = send(client)
    assert (answer.status_code, answer.json()) == (403, {"detail": chat.REFUSED["no_coach"]})


@pytest.mark.parametrize("fields", [{"wanted": "removed"}, {"status": "removed"}])
def test_a_removed_coach_has_no_companion(anna: Client, fields: dict[str, str]) -> None:
    CompanionProfile.objects.update(**fields)
    assert anna.get("/chat/").status_code == 403
    assert send(anna).json() == {"detail": chat.REFUSED["no_coach"]}


@pytest.mark.parametrize(
    ("fields", "gateway", "body", "status", "sentence"),
    [
        ({"wanted": "paused"}, {}, {}, 409, chat.REFUSED["paused"]),
        ({"status": "pending"}, {}, {}, 409, chat.NOT_READY),
        ({"status": "error"}, {}, {}, 409, chat.NOT_READY),
        ({"agent_id": "main"}, {}, {}, 409, chat.NOT_READY),
        ({}, {"url": ""}, {}, 502, chat.UNREACHABLE),
        ({}, {"url": "https://"}, {}, 502, chat.UNREACHABLE),
        ({}, {"token_encrypted": ""}, {}, 502, chat.UNREACHABLE),
        ({}, {}, {}, 502, chat.UNREACHABLE),
        ({}, {}, {"input": "x" * 100_001}, 400, chat.TOO_LONG),
        ({}, {}, {"input": ""}, 400, chat.TOO_LONG),
    ],
)
def test_what_is_wrong_is_one_plain_sentence(
    anna: Client,
    fields: dict[str, str],
    gateway: dict[str, str],
    body: dict[str, str],
    status: int,
    sentence: str,
) -> None:
    CompanionProfile.objects.update(**fields)
    Gateway.objects.update(**gateway)
    answer = send(anna, body)
    assert (answer.status_code, answer.json()) == (status, {"detail": sentence})


def test_asks_by_page_and_by_key_are_counted_together(anna: Client, standin: StandIn, settings: Any) -> None:
    settings.COACHLIST_ASK_RATE = "2/minute"
    standin.answer = lambda reply: reply.json(whole("x"))
    assert ask().status_code == 200 and send(anna, {"stream": False}).status_code == 200
    answer = send(anna)
    assert answer.status_code == 429 and int(answer["Retry-After"]) > 0
    assert answer.json()["detail"].endswith("Please wait a minute and send it again.")
    settings.COACHLIST_ASK_RATE = "2/hour"
    assert re.search(r"Please wait \d\d minutes and", send(anna).json()["detail"])
    assert ask().status_code == 429


def test_no_sentence_has_words_of_operators() -> None:
    sentences = [value for name, value in vars(chat).items() if name.isupper() and isinstance(value, str)]
    sentences = [text for text in sentences if text != chat.CONTENT_SECURITY_POLICY]
    for sentence in [*sentences, *chat.REFUSED.values()]:
        assert sentence.endswith(".") and len(sentence) < 90, "more would not fit where they are shown"
        assert not re.search(r"gateway|agent|token|server|error|status|admin|\d", sentence, re.IGNORECASE)


def test_pages_load_nothing_from_elsewhere_and_need_no_exception(anna: Client, client: Client) -> None:
    for page in (anna.get("/chat/"), client.get("/chat/login/")):
        policy = page["Content-Security-Policy"].split("; ")
        assert policy[0] == "default-src 'self'" and "unsafe" not in page["Content-Security-Policy"]
        assert "no-store" in page["Cache-Control"]
        html = page.content.decode()
        assert 'name="viewport"' in html
        assert not re.search(
            r"<style|\sstyle=|\son\w+=|javascript:|https?://|<script(?![^>]*\ssrc=\"/static/)", html
        )


def test_who_chats_as_a_coach_is_peoples_to_say(
    admin_client: Client, make_coach: MakeCoach, django_user_model: Any
) -> None:
    coach, other = make_coach(), make_coach("coach-ben")
    ben = django_user_model.objects.create_user("ben")
    url = f"{LIST}{coach.pk}/change/"
    form = form_of(admin_client.get(url))
    admin_client.post(url, {**form, "user": str(ben.pk)})
    coach.refresh_from_db()
    # It is nothing that the fleet has to do anything for.
    assert (coach.user_id, coach.generation) == (ben.pk, 1)
    # A form that was opened before does not carry it back.
    admin_client.post(url, {**form, "name": "Dr. Anna"})
    coach.refresh_from_db()
    assert (coach.user_id, coach.name, coach.generation) == (ben.pk, "Dr. Anna", 2)

    taken = admin_client.post(f"{LIST}{other.pk}/change/", {**form, "name": "Ben", "user": str(ben.pk)})
    assert "already exists" in text_of(taken)
    form = form_of(admin_client.get(url))
    admin_client.post(url, {**form, "user": ""})
    coach.refresh_from_db()
    assert coach.user_id is None
    ben.delete()
