"""What a coach's key opens, and what it does not."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from django.utils import timezone

from claw_fleet.coachlist.authentication import LAST_USED_STEP
from claw_fleet.coachlist.models import (
    CoachingClient,
    CoachingGoal,
    CoachingMilestone,
    CoachingSession,
    CompanionProfile,
)

from .conftest import SERVICE_TOKEN, Api, MakeCoach, sha256

pytestmark = pytest.mark.django_db

KEY, OTHER = "the-key-of-anna", "the-key-of-bert"


@pytest.fixture
def coach(make_coach: MakeCoach) -> CompanionProfile:
    """Anna."""
    return make_coach(key=KEY, status="active", observed_generation=1)


@pytest.fixture
def client(coach: CompanionProfile) -> CoachingClient:
    """A client of Anna's who agreed to have transcripts read."""
    return coach.clients.create(
        name="Zoë Clark", email="zoe@example.org", has_consented=True, total_sessions=3
    )


@pytest.fixture
def api(coach: CompanionProfile) -> Api:
    """With Anna's key."""
    return Api(KEY)


def session(client: CoachingClient, days: float, **fields: Any) -> CoachingSession:
    """A session so many days from now."""
    date = timezone.now() + datetime.timedelta(days=days)
    return client.sessions.create(title=f"day {days:+}", date=date, **fields)


def test_clients(api: Api, client: CoachingClient) -> None:
    summary = {"id": client.pk, "name": "Zoë Clark", "email": "zoe@example.org"}
    assert api.get("clients/").json() == [summary]
    goal = client.goals.create(slug="run", title="Run")
    goal.milestones.create(title="5 km", target_date=datetime.date(2030, 1, 2))
    assert api.get(f"clients/{client.pk}/").json() == {
        **summary,
        "total_sessions": 3,
        "has_consented": True,
        "goals": [
            {
                "id": goal.pk,
                "slug": "run",
                "title": "Run",
                "status": "active",
                "milestones": [
                    {
                        "id": CoachingMilestone.objects.get().pk,
                        "title": "5 km",
                        "target_date": "2030-01-02",
                        "status": "upcoming",
                    }
                ],
            }
        ],
    }


def test_search(api: Api, coach: CompanionProfile, client: CoachingClient) -> None:
    coach.clients.create(name="Clara 100%")

    def found(q: str) -> list[str]:
        return [row["name"] for row in api.get("clients/search/", {"q": q}).json()]

    assert found("CLA") == ["Zoë Clark", "Clara 100%"]
    assert found("0%") == ["Clara 100%"]
    assert found("_") == []
    for query in ({}, {"q": ""}, {"q": "a\x00"}):
        answer = api.get("clients/search/", query)
        assert answer.status_code == 400 and answer.json()["detail"].startswith("q: ")


def test_sessions(api: Api, client: CoachingClient) -> None:
    names = {days: session(client, days).pk for days in (-9, -1, -0.1, 0.1, 6.9, 7.1)}

    def ids(path: str, **query: Any) -> list[int]:
        return [row["id"] for row in api.get(path, query).json()]

    assert ids("sessions/upcoming/") == [names[0.1], names[6.9]]
    assert ids("sessions/recent/") == [names[-0.1], names[-1], names[-9]]
    assert ids("sessions/recent/", limit=1) == [names[-0.1]]
    assert ids(f"clients/{client.pk}/sessions/") == [names[days] for days in (7.1, 6.9, 0.1, -0.1, -1, -9)]
    for limit in ("0", "101", "many"):
        assert api.get("sessions/recent/", {"limit": limit}).status_code == 400


def test_a_transcript_is_read_with_consent_alone(api: Api, client: CoachingClient) -> None:
    with_text = session(client, -1, transcript="Zoë said: grüß dich\n", session_type="intake")
    without = session(client, -2)
    detail = api.get(f"sessions/{with_text.pk}/").json()
    assert detail["transcript_available"] is True and detail["session_type"] == "intake"
    assert "transcript" not in detail and detail["client"]["id"] == client.pk
    answer = api.get(f"sessions/{with_text.pk}/transcript/", Accept="text/plain")
    assert answer.content.decode() == "Zoë said: grüß dich\n"
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert api.get(f"sessions/{without.pk}/transcript/").status_code == 404

    CoachingClient.objects.update(has_consented=False)
    answer = api.get(f"sessions/{with_text.pk}/transcript/")
    assert answer.status_code == 403 and answer.json()["code"] == "no_consent"
    for path in (f"sessions/{with_text.pk}/", "sessions/recent/", f"clients/{client.pk}/sessions/"):
        answer = api.get(path)
        assert b"grue" not in answer.content and "grüß" not in answer.content.decode()
    assert api.get(f"sessions/{with_text.pk}/").json()["transcript_available"] is False


def test_goals(api: Api, client: CoachingClient) -> None:
    path = f"clients/{client.pk}/goals/"
    made = api.post(path, {"title": "Run far"})
    assert made.status_code == 201
    goal = made.json()
    assert goal == {
        "id": goal["id"],
        "slug": "run-far",
        "title": "Run far",
        "status": "active",
        "milestones": [],
    }
    assert api.post(path, {"title": "Run far!"}).json()["slug"] == "run-far-2"
    assert api.post(path, {"title": "☀"}).json()["slug"] == "goal"
    twice = api.post(path, {"title": "x", "slug": "run-far"})
    assert twice.status_code == 409 and "run-far" in twice.json()["detail"]
    assert len(api.get(path).json()) == 3

    one = f"{path}{goal['id']}/"
    assert api.patch(one, {"status": "complete"}).json() == {**goal, "status": "complete"}
    assert api.patch(one, {"title": "Run", "slug": "x"}).json() == {
        **goal,
        "title": "Run",
        "status": "complete",
    }
    assert api.patch(one, {}).status_code == 200
    assert api.patch(one, {"status": "done"}).status_code == 400
    assert api.post(path, {}).status_code == 400
    assert api.delete(one).status_code == 204
    assert api.delete(one).status_code == 404


def test_profile(api: Api, coach: CompanionProfile) -> None:
    shown = {"agent_id": "coach-anna", "name": "Anna", "wanted": "running", "status": "active"}
    assert api.get("profile/").json() == shown
    assert api.patch("profile/", {"name": "Anna"}).json() == shown
    coach.refresh_from_db()
    assert coach.generation == 1
    assert api.patch("profile/", {"name": "Dr. Anna"}).json() == {**shown, "name": "Dr. Anna"}
    coach.refresh_from_db()
    assert (coach.name, coach.generation, coach.observed_generation) == ("Dr. Anna", 2, 1)
    for name in ("", "   ", "two\nlines", "x" * 201):
        assert api.patch("profile/", {"name": name}).status_code == 400
    api.patch("profile/", {"wanted": "removed", "status": "error", "agent_id": "x", "generation": 9})
    coach.refresh_from_db()
    assert (coach.wanted, coach.status, coach.agent_id, coach.generation) == (
        "running",
        "active",
        "coach-anna",
        2,
    )


def requests(
    client: CoachingClient, goal: CoachingGoal, session: CoachingSession
) -> list[tuple[str, str, Any]]:
    """Every request that names something of a coach."""
    return [
        ("get", f"clients/{client.pk}/", None),
        ("get", f"clients/{client.pk}/sessions/", None),
        ("get", f"clients/{client.pk}/goals/", None),
        ("post", f"clients/{client.pk}/goals/", {"title": "stolen"}),
        ("patch", f"clients/{client.pk}/goals/{goal.pk}/", {"title": "stolen"}),
        ("delete", f"clients/{client.pk}/goals/{goal.pk}/", None),
        ("get", f"sessions/{session.pk}/", None),
        ("get", f"sessions/{session.pk}/transcript/", None),
    ]


def send(api: Api, method: str, path: str, body: Any) -> Any:
    """One of them."""
    return getattr(api, method)(path, *([] if body is None else [body]))


def test_one_coachs_data_is_not_there_for_another(client: CoachingClient, make_coach: MakeCoach) -> None:
    other = make_coach("bert", key=OTHER, name="Bert")
    own = other.clients.create(name="Zoë of Bert")
    goal = client.goals.create(slug="g", title="G")
    past = session(client, -1, transcript="secret")
    session(client, 1)
    api = Api(OTHER)
    for method, path, body in requests(client, goal, past):
        assert send(api, method, path, body).status_code == 404, path
    # A goal of hers is not reached by way of a client of his either.
    assert api.patch(f"clients/{own.pk}/goals/{goal.pk}/", {"title": "stolen"}).status_code == 404
    assert [row["id"] for row in api.get("clients/").json()] == [own.pk]
    assert [row["id"] for row in api.get("clients/search/", {"q": "Zoë"}).json()] == [own.pk]
    assert api.get("sessions/recent/").json() == api.get("sessions/upcoming/").json() == []
    assert api.get("profile/").json()["name"] == "Bert"
    goal.refresh_from_db()
    assert goal.title == "G" and client.goals.count() == 1


@pytest.mark.parametrize(
    "key", [None, "", "wrong", KEY + "x", KEY[:-1], SERVICE_TOKEN, sha256(KEY), "x" * 5000]
)
def test_other_keys_open_nothing(client: CoachingClient, key: str | None) -> None:
    goal, past = client.goals.create(slug="g", title="G"), session(client, -1)
    listed = [
        ("get", path, None) for path in ("clients/", "clients/search/?q=a", "profile/", "sessions/recent/")
    ]
    for method, path, body in [*requests(client, goal, past), *listed, ("post", "ask/", {"input": "x"})]:
        answer = send(Api(key), method, path, body)
        assert answer.status_code == 401, path
        assert answer["WWW-Authenticate"].startswith("Bearer ") and answer.json()["detail"]


def test_a_coach_without_a_key_is_not_found_by_the_empty_one(make_coach: MakeCoach) -> None:
    make_coach()
    assert Api("").get("profile/").status_code == 401


@pytest.mark.parametrize("fields", [{"wanted": "removed"}, {"status": "removed"}, {"key_sha256": ""}])
def test_a_removed_coachs_or_a_revoked_key_is_refused_at_once(api: Api, fields: dict[str, str]) -> None:
    assert api.get("profile/").status_code == 200
    CompanionProfile.objects.update(**fields)
    assert api.get("profile/").status_code == 401


def test_a_paused_coachs_key_reads_and_does_not_write(api: Api, client: CoachingClient) -> None:
    CompanionProfile.objects.update(wanted="paused")
    goal, past = client.goals.create(slug="g", title="G"), session(client, -1, transcript="said")
    for method, path, body in [*requests(client, goal, past), ("patch", "profile/", {"name": "New"})]:
        answer = send(api, method, path, body)
        assert answer.status_code == (200 if method == "get" else 409), path
    assert answer.json()["code"] == "paused" and "Resume" in answer.json()["detail"]
    assert client.goals.get().title == "G" and CompanionProfile.objects.get().name == "Anna"


def test_when_a_key_was_used_is_noted_now_and_then(api: Api, coach: CompanionProfile) -> None:
    api.get("profile/")
    coach.refresh_from_db()
    first = coach.key_last_used_at
    assert first is not None
    api.get("profile/")
    coach.refresh_from_db()
    assert coach.key_last_used_at == first
    CompanionProfile.objects.update(key_last_used_at=first - LAST_USED_STEP)
    api.get("profile/")
    coach.refresh_from_db()
    assert coach.key_last_used_at is not None and coach.key_last_used_at >= first


def test_lists_take_as_many_queries_for_many_as_for_one(
    api: Api, client: CoachingClient, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        goal = client.goals.create(slug=f"g-{number}", title="G")
        goal.milestones.create(title="m")
        session(client, -number - 1)
    api.get("profile/")  # notes the key's use
    for path in (f"clients/{client.pk}/", f"clients/{client.pk}/goals/", "sessions/recent/"):
        with django_assert_max_num_queries(4):
            assert api.get(path).status_code == 200


def test_what_is_private_is_not_cached(api: Api) -> None:
    assert api.get("profile/")["Cache-Control"] == "private, no-cache"
