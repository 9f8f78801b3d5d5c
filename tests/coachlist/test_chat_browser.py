"""The chat page in a real browser, at the server as it is deployed: what a coach sees, and when she sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from clawbench.browser import ENTER, MISSING, SHIFT, Browser, until
from django.conf.global_settings import PASSWORD_HASHERS

from claw_fleet.coachlist import chat
from claw_fleet.coachlist.models import Gateway

from .conftest import MakeCoach, MakeGateway
from .standin import Reply, StandIn
from .test_ask import FIRST, LAST
from .test_tunnel import refusing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"no {' and no '.join(MISSING)} (Debian: apt-get install chromium chromium-driver)",
    ),
]
PASSWORD = "calm-river-42"
LABELLED = """return [...document.querySelectorAll("textarea, input:not([type=hidden])")].every(
    (field) => field.labels.length === 1)"""
BOX, STATUS, ANSWER = "#question", "#status", "#log article.companion:last-child div"


def delta(text: str) -> bytes:
    """The event of some more words."""
    data = json.dumps({"type": "response.output_text.delta", "delta": text})
    return f"event: response.output_text.delta\ndata: {data}\n\n".encode()


def streams(*texts: str) -> Any:
    """An answer of these words."""

    def answer(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST + b"".join(map(delta, texts)) + LAST)
        reply.end()

    return answer


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A window of a phone's size."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.size(390, 800)
        yield browser


@pytest.fixture
def page(
    server: str,
    window: Browser,
    django_user_model: Any,
    make_coach: MakeCoach,
    make_gateway: MakeGateway,
    standin: StandIn,
    settings: Any,
) -> Browser:
    """The chat page, with a coach who has just signed in."""
    # The server is a process of its own, and checks her password as a deployment does.
    settings.PASSWORD_HASHERS = PASSWORD_HASHERS
    user = django_user_model.objects.create_user("anna", password=PASSWORD)
    make_gateway(url=standin.url)
    make_coach(user=user, gateway_id="gw-a", status="active", observed_generation=1)
    window.open(f"{server}/chat/")
    window.type("#id_username", "anna")
    window.type("#id_password", PASSWORD + ENTER)
    until(lambda: window.text("label"), lambda text: text == "Your question, Anna")
    return window


def messages(page: Browser) -> int:
    """How many the conversation has."""
    count: int = page.run("return document.querySelectorAll('#log article').length")
    return count


def composer(page: Browser) -> Any:
    """Where the form stands in the window."""
    return page.run("return JSON.stringify(document.querySelector('#ask').getBoundingClientRect())")


def test_an_answer_is_read_while_it_comes_and_a_question_is_kept_until_then(
    page: Browser, standin: StandIn
) -> None:
    seen = threading.Event()

    def slowly(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST + delta("Good "))
        # Cut within an event.
        more = delta("morning ☀ <b>")
        reply.chunk(more[:70])
        assert seen.wait(timeout=60)
        reply.chunk(more[70:] + delta("\nAnna.") + LAST)
        reply.end()

    standin.answer = slowly
    stood = composer(page)
    page.type(BOX, "Hello" + SHIFT + ENTER + SHIFT + "there" + ENTER)
    until(lambda: page.text(ANSWER), lambda text: text == "Good")
    assert not seen.is_set(), "the rest was not sent yet"
    assert page.run("return document.querySelector('[aria-busy=true]') !== null")
    assert page.text("#log article.you div") == "Hello\nthere" and page.value(BOX) == ""
    assert composer(page) == stood

    seen.set()
    until(lambda: page.text(ANSWER), lambda text: text == "Good morning ☀ <b>\nAnna.")
    until(lambda: page.run("return document.querySelector('[aria-busy=true]')"), lambda busy: busy is None)
    assert page.text(STATUS) == "" and composer(page) == stood
    assert page.run("return document.activeElement.id") == "question"
    # Nothing was loaded from elsewhere, nothing refused by the page's own policy, nothing missing.
    assert page.complaints() == []

    with refusing(standin) as url:
        Gateway.objects.update(url=url)
        page.type(BOX, "How are you?" + ENTER)
        until(lambda: page.text(STATUS), lambda text: text == chat.UNREACHABLE)
    assert page.value(BOX) == "How are you?"
    assert messages(page) == 2 and composer(page) == stood

    # The gateway's new address has been told; she does nothing but send it again.
    Gateway.objects.update(url=standin.url)
    standin.answer = streams("Fine, ", "thanks.")
    page.click("#send")
    until(lambda: page.text(ANSWER), lambda text: text == "Fine, thanks.")
    assert page.value(BOX) == "" and page.text(STATUS) == "" and messages(page) == 4
    asked = [(heard.body["input"], heard.headers["x-openclaw-session-key"]) for heard in standin.heard]
    assert [question for question, _ in asked] == ["Hello\nthere", "How are you?"]
    assert asked[0][1] == asked[1][1], "it is one conversation"


def test_what_goes_wrong_is_said_in_a_sentence_on_a_page_for_everybody(
    page: Browser, standin: StandIn
) -> None:
    def cut(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST + delta("Half of "))
        reply.break_off()

    def fails(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST + b'event: response.failed\ndata: {"type":"response.failed"}\n\n')
        reply.end()

    page.type(BOX, "How are you?")
    for answer, sentence, left in ((cut, chat.BROKEN_OFF, 2), (fails, chat.FAILED, 2)):
        standin.answer = answer
        page.type(BOX, ENTER)
        until(lambda: page.text(STATUS), lambda text, sentence=sentence: text == sentence)  # type: ignore[misc]
        assert page.value(BOX) == "How are you?" and messages(page) == left
    assert page.text(ANSWER) == "Half of"

    for scheme, ground in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 27)")):
        page.colours(scheme)
        assert page.run("return getComputedStyle(document.body).backgroundColor") == ground
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    small = """return [...document.querySelectorAll("button, textarea")].filter(
        (element) => Math.min(element.offsetHeight, element.offsetWidth) < 44).map((element) => element.id)"""
    assert page.run(small) == []

    assert page.run(LABELLED)

    page.click("header button")
    until(lambda: page.text("main h2"), lambda text: text == "Sign in")
    assert page.run(LABELLED)
