"""Several at once: threads with connections of their own, and real requests to the real server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import pytest
from django.db import connection

from claw_fleet.coachlist import fleet, people
from claw_fleet.coachlist.models import CompanionProfile, Gateway

from .conftest import API, SERVICE_TOKEN, Api, MakeCoach, MakeGateway, sha256

pytestmark = pytest.mark.django_db(transaction=True)
T = TypeVar("T")


def at_once(acts: list[Callable[[], T]]) -> list[T]:
    """Run all of them in threads that set off together; their results in order."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], T]) -> T:
        barrier.wait(timeout=30)
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def claims(*pairs: tuple[CompanionProfile, str]) -> list[Callable[[], Any]]:
    """Requests for claims, to be sent: which coach, for which gateway."""

    def request(coach: CompanionProfile, gateway: str) -> Callable[[], Any]:
        return lambda: Api(SERVICE_TOKEN).post(f"internal/coaches/{coach.pk}/claim/", {"gateway": gateway})

    return [request(coach, gateway) for coach, gateway in pairs]


def test_one_of_many_gateways_wins_a_coach(make_coach: MakeCoach, make_gateway: MakeGateway) -> None:
    names = [f"gw-{number}" for number in range(8)]
    for name in names:
        make_gateway(name)
    for turn in range(3):
        coach = make_coach(f"coach-{turn}")
        answers = at_once(claims(*((coach, name) for name in names)))
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [200] + [409] * 7
        coach.refresh_from_db()
        assert coach.gateway_id == names[statuses.index(200)]
        assert {a.json()["gateway"] for a in answers} == {coach.gateway_id}


def test_a_gateway_is_never_overfilled(make_coach: MakeCoach, make_gateway: MakeGateway) -> None:
    make_gateway(capacity=5)
    coaches = [make_coach(f"coach-{number}") for number in range(12)]
    answers = at_once(claims(*((coach, "gw-a") for coach in coaches)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [409] * 7
    assert Gateway.objects.get().coaches.count() == 5


def test_no_click_and_no_report_is_lost(make_coach: MakeCoach, make_gateway: MakeGateway) -> None:
    make_gateway()
    coach = make_coach()
    fleet.claim(coach.pk, "gw-a")
    coaches = CompanionProfile.objects.filter(pk=coach.pk)

    def clicks(click: Callable[[], int]) -> Callable[[], int]:
        return lambda: sum(click() for _ in range(10))

    def reports() -> int:
        for number in range(1, 11):
            fleet.report(coach.pk, gateway="gw-a", status="active", reason=f"report {number}")
        return 0

    def keys() -> int:
        for number in range(10):
            fleet.set_key("coach-anna", key_id=f"k{number}", key_sha256=sha256(str(number)), key_generation=1)
        return 0

    counted = at_once(
        [
            clicks(lambda: people.rotate_key(coaches)),
            clicks(lambda: people.provision(coaches)),
            clicks(lambda: people.edit(coach.pk, name="New")),
            reports,
            keys,
        ]
    )
    assert counted == [10, 10, 10, 0, 0]
    coach.refresh_from_db()
    assert (coach.generation, coach.key_wanted_generation, coach.name) == (31, 11, "New")
    assert (coach.status, coach.reason, coach.key_id) == ("active", "report 10", "k9")


def test_of_many_registrations_of_a_gateway_one_creates_it(transactional_db: None) -> None:
    body = {"url": "https://gw.example.org", "token": "t" * 48, "capacity": 3}
    answers = at_once([lambda: Api(SERVICE_TOKEN).put("internal/gateways/gw-a/", body)] * 6)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert sum(answer.json()["changed"] for answer in answers) == 1
    assert Gateway.objects.get().token() == "t" * 48


def test_a_crowd_of_writers_at_the_server_gets_no_error(
    server: str, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    for name in ("gw-a", "gw-b"):
        make_gateway(name, capacity=1000)
    pks = [make_coach(f"coach-{number}").pk for number in range(40)]
    with httpx.Client(
        base_url=f"{server}{API}", headers={"Authorization": f"Bearer {SERVICE_TOKEN}"}, timeout=120
    ) as http:

        def work(number: int) -> list[int]:
            gateway = "gw-a" if number % 2 else "gw-b"
            statuses = []
            for pk in pks[number // 2 :: 6]:
                claimed = http.post(f"internal/coaches/{pk}/claim/", json={"gateway": gateway})
                statuses.append(claimed.status_code)
                if claimed.status_code == 200:
                    body = {"gateway": gateway, "status": "active", "observed_generation": 1}
                    statuses.append(http.patch(f"internal/coaches/{pk}/status/", json=body).status_code)
                statuses.append(http.get("internal/coaches/").status_code)
            return statuses

        with ThreadPoolExecutor(12) as pool:
            statuses = [status for part in pool.map(work, range(12)) for status in part]
    assert set(statuses) <= {200, 409}
    coaches = CompanionProfile.objects.all()
    assert {(coach.status, coach.gateway_id is None) for coach in coaches} == {("active", False)}
