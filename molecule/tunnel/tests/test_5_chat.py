"""The chat page in a real browser, whose questions go through the tunnel to a real agent."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from clawbench.browser import ENTER, MISSING, Browser, until
from tunnels import COACH_LIST, TUNNEL, known_everywhere

from claw_fleet.coachlist.chat import UNREACHABLE

pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"no {' and no '.join(MISSING)} (Debian: apt-get install chromium chromium-driver)",
)
AGENT, NAME, PASSWORD = "coach-anna", "anna", secrets.token_urlsafe(12)
BOX, STATUS, ANSWER = "#question", "#status", "#log article.companion:last-child div"
SIGNS_IN = f"""
from django.contrib.auth import get_user_model
from claw_fleet.coachlist.models import CompanionProfile
anna, _made = get_user_model().objects.get_or_create(username={NAME!r})
anna.set_password({PASSWORD!r})
anna.save()
CompanionProfile.objects.filter(agent_id={AGENT!r}).update(user=anna)
"""


def test_a_coach_is_told_when_her_companion_cannot_be_reached_and_is_answered_when_it_can(
    machine: Any, tmp_path: Path
) -> None:
    known_everywhere(machine, 60)
    COACH_LIST.manage("shell", "--no-imports", "-c", SIGNS_IN)
    with Browser(tmp_path / "profile") as page:
        page.size(390, 800)
        page.open(f"{COACH_LIST.url}/chat/")
        page.type("#id_username", NAME)
        page.type("#id_password", PASSWORD + ENTER)
        until(lambda: page.text("label"), lambda text: text.startswith("Your question"))
        page.type(BOX, "slow:6" + ENTER)
        # It is read while it comes.
        first = until(lambda: page.text(ANSWER), bool)
        whole = until(
            lambda: (page.text(ANSWER), page.run("return document.querySelector('[aria-busy=true]')")),
            lambda seen: seen[1] is None,
        )[0]
        assert len(first) < len(whole) and page.text(STATUS) == ""

        machine.check_output("systemctl stop %s", TUNNEL)
        try:
            page.type(BOX, "count:3" + ENTER)
            until(lambda: page.text(STATUS), lambda text: text == UNREACHABLE)
            assert page.value(BOX) == "count:3", "she need not type it again"
        finally:
            machine.check_output("systemctl start %s", TUNNEL)
        known_everywhere(machine)
        page.click("#send")
        until(lambda: page.text(ANSWER), lambda text: text.startswith("1 2 3"))
        assert page.text(STATUS) == "" and page.value(BOX) == ""
