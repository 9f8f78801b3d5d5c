"""The admin, by its own pages: what people do, what they see, and what they cannot overwrite."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from claw_fleet.coachlist import fleet, people
from claw_fleet.coachlist.models import CoachingClient, CompanionProfile, Gateway

from .conftest import GATEWAY_TOKEN, MakeCoach, MakeGateway, sha256

pytestmark = pytest.mark.django_db
LIST = "/admin/coachlist/companionprofile/"
GATEWAYS = "/admin/coachlist/gateway/"


def text_of(page: Any) -> str:
    """What a page says, without its tags."""
    assert page.status_code == 200
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.content.decode())))


def form_of(page: Any) -> dict[str, str]:
    """The values the form of a page was opened with, hidden ones too."""
    form = page.context["adminform"].form
    values: dict[str, str] = {}
    for bound in form:
        widgets = [(bound.html_name, bound.field.widget)]
        if bound.field.show_hidden_initial:
            widgets.append((bound.html_initial_name, bound.field.hidden_widget()))
        for name, widget in widgets:
            values[name] = str(widget.format_value(bound.field.prepare_value(bound.initial)) or "")
    return values


def act(client: Client, action: str, *coaches: CompanionProfile) -> str:
    """Choose an action for some coaches; what the admin says to it."""
    form = {"action": action, "_selected_action": [coach.pk for coach in coaches]}
    page = client.post(LIST, form, follow=True)
    return " ".join(str(message) for message in page.context["messages"])


def test_a_coach_is_added(admin_client: Client) -> None:
    form = {"agent_id": "coach-anna", "name": "Anna", "vars": '{"tone": "warm"}'}
    assert "was added successfully" in text_of(admin_client.post(f"{LIST}add/", form, follow=True))
    coach = CompanionProfile.objects.get()
    assert (coach.agent_id, coach.name, coach.vars) == ("coach-anna", "Anna", {"tone": "warm"})
    assert (coach.wanted, coach.generation, coach.observed_generation) == ("running", 1, 0)
    assert (coach.status, coach.key_wanted_generation, coach.gateway) == ("pending", 1, None)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"agent_id": "main"}, "reserved"),
        ({"agent_id": "Coach"}, "lower-case"),
        ({"agent_id": "-a"}, "hyphen"),
        ({"agent_id": "a" * 65}, "64"),
        ({"agent_id": "a b"}, "lower-case"),
        ({"agent_id": ""}, "required"),
        ({"agent_id": "taken"}, "already"),
        ({"agent_id": "odd-one"}, "“Odd-One” is already there"),
        ({"name": ""}, "required"),
        ({"name": "x" * 201}, "200"),
        ({"name": "bell\x07"}, "control"),
        ({"vars": "[1]"}, "JSON object"),
        ({"vars": '{"a": [1]}'}, "list or an object"),
        ({"vars": '{"a b": 1}'}, "variable name"),
        ({"vars": '{"a": NaN}'}, "finite"),
        ({"vars": "{"}, "valid JSON"),
    ],
)
def test_what_a_form_refuses(
    admin_client: Client, make_coach: MakeCoach, changes: dict[str, str], word: str
) -> None:
    make_coach("taken"), make_coach("Odd-One")
    form = {"agent_id": "coach-anna", "name": "Anna", "vars": "{}", **changes}
    assert word in text_of(admin_client.post(f"{LIST}add/", form))
    assert CompanionProfile.objects.count() == 2


def test_an_edit_writes_what_was_edited(admin_client: Client, make_coach: MakeCoach) -> None:
    coach = make_coach(vars={"tone": "warm"})
    url = f"{LIST}{coach.pk}/change/"
    form = form_of(admin_client.get(url))
    assert "agent_id" not in form

    admin_client.post(url, form)
    coach.refresh_from_db()
    assert coach.generation == 1

    admin_client.post(
        url, {**form, "name": "Dr. Anna", "agent_id": "other", "wanted": "removed", "status": "x"}
    )
    coach.refresh_from_db()
    assert (coach.name, coach.generation, coach.vars) == ("Dr. Anna", 2, {"tone": "warm"})
    assert (coach.agent_id, coach.wanted, coach.status) == ("coach-anna", "running", "pending")


def test_an_edit_in_the_midst_of_a_run_loses_nothing(
    admin_client: Client, make_coach: MakeCoach, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_gateway()
    coach = make_coach()
    url = f"{LIST}{coach.pk}/change/"
    form = form_of(admin_client.get(url))
    fleet.claim(coach.pk, "gw-a")
    edit = people.edit

    def edit_late(pk: int, **values: Any) -> int:
        # The admin has read the row; the fleet's run ends before the admin writes.
        fleet.set_key("coach-anna", key_id="k1", key_sha256=sha256("k"), key_generation=1)
        fleet.report(coach.pk, gateway="gw-a", status="active", observed_generation=1)
        return edit(pk, **values)

    monkeypatch.setattr(people, "edit", edit_late)
    admin_client.post(url, {**form, "name": "Dr. Anna"})
    coach.refresh_from_db()
    assert (coach.name, coach.generation) == ("Dr. Anna", 2)
    assert (coach.status, coach.observed_generation, coach.gateway_id) == ("active", 1, "gw-a")
    assert (coach.key_id, coach.key_generation) == ("k1", 1)
    assert coach.due


def test_two_people_editing_different_fields_both_win(admin_client: Client, make_coach: MakeCoach) -> None:
    coach = make_coach(vars={"tone": "warm"})
    url = f"{LIST}{coach.pk}/change/"
    first, second = form_of(admin_client.get(url)), form_of(admin_client.get(url))
    admin_client.post(url, {**first, "name": "Dr. Anna"})
    admin_client.post(url, {**second, "vars": '{"tone": "cold"}'})
    coach.refresh_from_db()
    assert (coach.name, coach.vars, coach.generation) == ("Dr. Anna", {"tone": "cold"}, 3)


def test_a_row_no_form_would_take_can_be_mended(admin_client: Client, make_coach: MakeCoach) -> None:
    coach = make_coach("Odd One/ü", name="two\nlines", vars=[1])
    url = f"{LIST}{coach.pk}/change/"
    form = form_of(admin_client.get(url))
    assert "control characters" in text_of(
        admin_client.post(url, {**form, "name": "two\nlines", "vars": "{}"})
    )
    admin_client.post(url, {**form, "name": "Two", "vars": "{}"})
    coach.refresh_from_db()
    assert (coach.name, coach.vars, coach.agent_id) == ("Two", {}, "Odd One/ü")


@pytest.mark.parametrize("status", ["pending", "active", "error", "removed", "paused"])
@pytest.mark.parametrize("wanted", ["running", "paused", "removed"])
def test_actions(admin_client: Client, make_coach: MakeCoach, wanted: str, status: str) -> None:
    outcomes = {
        "provision": "running",
        "pause": "paused" if wanted == "running" else None,
        "resume": "running" if wanted == "paused" else None,
        "remove": "removed" if wanted != "removed" else None,
        "rotate_key": wanted if wanted != "removed" else None,
    }
    for action, outcome in outcomes.items():
        coach = make_coach(f"coach-{action}", wanted=wanted, status=status, reason="kept", generation=5)
        said = act(admin_client, action, coach)
        coach.refresh_from_db()
        assert (coach.status, coach.reason, coach.observed_generation) == (status, "kept", 0)
        assert coach.key_wanted_generation == (2 if action == "rotate_key" and outcome else 1)
        if outcome is None:
            assert (coach.wanted, coach.generation) == (wanted, 5)
            assert said.startswith("1 coach left unchanged: ")
        else:
            assert (coach.wanted, coach.generation) == (outcome, 6)
            assert said.startswith("1 coach ") and "unchanged" not in said


def test_an_action_on_many_says_how_many(admin_client: Client, make_coach: MakeCoach) -> None:
    coaches = [make_coach(f"c-{number}", wanted="running" if number < 3 else "paused") for number in range(5)]
    said = act(admin_client, "pause", *coaches)
    assert said.startswith("3 coaches wanted paused") and "2 coaches left unchanged" in said
    assert LogEntry.objects.filter(change_message__contains="pause").count() == 5


def test_an_action_that_leaves_its_own_filter_still_counts(
    admin_client: Client, make_coach: MakeCoach
) -> None:
    coach = make_coach()
    page = admin_client.post(
        f"{LIST}?wanted__exact=running", {"action": "remove", "_selected_action": [coach.pk]}, follow=True
    )
    assert "1 coach wanted removed" in text_of(page)
    coach.refresh_from_db()
    assert coach.wanted == "removed"


def test_who_may_only_look_cannot_act(client: Client, django_user_model: Any, make_coach: MakeCoach) -> None:
    from django.contrib.auth.models import Permission

    user = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_companionprofile"))
    client.force_login(user)
    coach = make_coach()
    assert "coach-anna" in text_of(client.get(LIST))
    client.post(LIST, {"action": "remove", "_selected_action": [coach.pk]})
    coach.refresh_from_db()
    assert (coach.wanted, coach.generation) == ("running", 1)


def test_the_list_tells_in_words(
    admin_client: Client, make_coach: MakeCoach, make_gateway: MakeGateway, django_assert_max_num_queries: Any
) -> None:
    make_gateway()
    make_coach("settled", status="active", observed_generation=1, key_generation=1, gateway_id="gw-a")
    make_coach("broken", status="error", reason="No space left on gw-a.", gateway_id="gw-a")
    for number in range(30):
        make_coach(f"more-{number}", gateway_id="gw-a")
    with django_assert_max_num_queries(12):
        page = text_of(admin_client.get(LIST))
    assert re.search(r"settled Anna running active settled gw-a", page)
    assert re.search(r"broken Anna running error due: wanted running, is error gw-a No space left", page)

    def listed(query: str) -> set[str]:
        return set(re.findall(r"\b(settled|broken)\b Anna", text_of(admin_client.get(f"{LIST}?{query}"))))

    assert listed("due=no") == {"settled"}
    assert listed("due=yes&q=broken") == {"broken"}
    assert listed("status__exact=error") == {"broken"}
    assert listed("gateway__name__exact=gw-a&q=settled") == {"settled"}
    assert listed("wanted__exact=paused") == set()


def test_a_row_goes_only_once_its_agent_is_gone(admin_client: Client, make_coach: MakeCoach) -> None:
    assert b"delete_selected" not in admin_client.get(LIST).content
    for wanted, status, allowed in (
        ("running", "active", False),
        ("removed", "active", False),
        ("running", "removed", False),
        ("removed", "removed", True),
    ):
        coach = make_coach(wanted=wanted, status=status)
        answer = admin_client.post(f"{LIST}{coach.pk}/delete/", {"post": "yes"})
        assert answer.status_code == (302 if allowed else 403)
        assert CompanionProfile.objects.exists() != allowed
        CompanionProfile.objects.all().delete()


def test_no_page_shows_a_key_or_a_token(
    admin_client: Client, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(url="https://gw.example.org")
    coach = make_coach(key="the-plain-key", gateway_id="gw-a")
    for url in (LIST, f"{LIST}{coach.pk}/change/", GATEWAYS, f"{GATEWAYS}gw-a/change/"):
        page = admin_client.get(url).content.decode()
        assert GATEWAY_TOKEN not in page and gateway.token_encrypted not in page
        assert "the-plain-key" not in page and coach.key_sha256 not in page


def test_a_gateway_is_added_and_changed(admin_client: Client) -> None:
    form = {"name": "gw-a", "url": "https://gw.example.org/", "capacity": "7", "new_token": GATEWAY_TOKEN}
    assert "was added successfully" in text_of(admin_client.post(f"{GATEWAYS}add/", form, follow=True))
    gateway = Gateway.objects.get()
    assert (gateway.url, gateway.capacity, gateway.token()) == ("https://gw.example.org", 7, GATEWAY_TOKEN)
    assert gateway.url_set_at is not None and gateway.token_sha256 == sha256(GATEWAY_TOKEN)

    # The fleet moves the gateway while somebody has the form open to raise the capacity.
    url = f"{GATEWAYS}gw-a/change/"
    form = form_of(admin_client.get(url))
    assert "name" not in form and form["new_token"] == ""
    fleet.put_gateway("gw-a", fleet.GatewayValues(url="https://new.example.org", token="n" * 48))
    admin_client.post(url, {**form, "capacity": "9"})
    gateway.refresh_from_db()
    assert (gateway.url, gateway.capacity, gateway.token()) == ("https://new.example.org", 9, "n" * 48)
    assert "0 of 9" in text_of(admin_client.get(GATEWAYS))


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"name": "None!"}, "27"), ({"url": "ftp://x"}, "https://"), ({"new_token": "short"}, "16 to 512")],
)
def test_what_a_gateways_form_refuses(admin_client: Client, changes: dict[str, str], word: str) -> None:
    form = {"name": "gw-a", "url": "", "capacity": "7", "new_token": "", **changes}
    assert word in text_of(admin_client.post(f"{GATEWAYS}add/", form))
    assert not Gateway.objects.exists()


def test_a_gateway_with_coaches_stays(
    admin_client: Client, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway(capacity=1)
    make_coach(gateway_id="gw-a")
    admin_client.post(f"{GATEWAYS}gw-a/delete/", {"post": "yes"})
    assert Gateway.objects.exists()
    assert "1 of 1 (full)" in text_of(admin_client.get(GATEWAYS))


def test_clients_sessions_and_goals_have_pages(admin_client: Client, make_coach: MakeCoach) -> None:
    client = CoachingClient.objects.create(coach=make_coach(), name="Zoë")
    goal = client.goals.create(slug="g", title="G")
    for url in (
        "/admin/coachlist/coachingclient/",
        f"/admin/coachlist/coachingclient/{client.pk}/change/",
        "/admin/coachlist/coachingsession/add/",
        f"/admin/coachlist/coachinggoal/{goal.pk}/change/",
    ):
        assert admin_client.get(url).status_code == 200
