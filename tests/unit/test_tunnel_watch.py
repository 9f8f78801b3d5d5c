"""What keeps the app's knowledge of a tunnel true, by a clock and surroundings of the test's own."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COLLECTION = Path(__file__).resolve().parents[2] / "collections/ansible_collections/claw/fleet"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Any]:
    """The program as the role puts it on a machine."""
    for part in ("roles/tunnel/files/watch.py", "plugins/module_utils/_tunnel.py"):
        shutil.copy(COLLECTION / part, tmp_path)
    before, known = list(sys.path), sys.modules.pop("_tunnel", None)
    specification = importlib.util.spec_from_file_location("watch", tmp_path / "watch.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    # Its dataclasses look for their module by its name.
    sys.modules["watch"] = module
    specification.loader.exec_module(module)
    yield module
    sys.path[:] = before
    for name in ("watch", "_tunnel"):
        sys.modules.pop(name, None)
    if known:
        sys.modules["_tunnel"] = known


@dataclass
class World:
    """The tunnel, the way and the app, as the watcher meets them; what is an error here is raised there."""

    hostname_now: str | Exception = "one.tunnel.test"
    proof: Exception | None = None
    app: Exception | None = None
    told: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    proven: int = 0

    def hostname(self, wanted: str = "") -> str:
        if isinstance(self.hostname_now, Exception):
            raise self.hostname_now
        return wanted or self.hostname_now

    def prove(self, hostname: str, gateway: str) -> str:
        self.proven += 1
        if self.proof:
            raise self.proof
        return f"https://{hostname}/{gateway}"

    def tell(self, _gateway: str, url: str) -> None:
        if self.app:
            raise self.app
        self.told.append(url)

    def complain(self, _gateway: str, reason: str) -> None:
        if self.app:
            raise self.app
        self.complaints.append(reason)


class Day:
    """Seconds that pass, with a look in each."""

    def __init__(self, program: Any, world: World, *names: str) -> None:
        self.watch = program.Watch([program.Gateway(name, "") for name in names], world, world, world)
        self.now = 1000.0

    def pass_by(self, seconds: int) -> None:
        for _second in range(seconds):
            self.watch.look(self.now)
            self.now += 1


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def day(program: Any, world: World) -> Day:
    return Day(program, world, "gw-a")


def test_what_it_finds_at_its_start_is_told_at_once_and_then_each_minute(day: Day, world: World) -> None:
    day.pass_by(1)
    assert world.told == ["https://one.tunnel.test/gw-a"]
    day.pass_by(59)
    assert world.proven == 1
    day.pass_by(2)
    assert world.told == ["https://one.tunnel.test/gw-a"] * 2
    assert day.watch.sentence() == "The app reaches gw-a at https://one.tunnel.test"


def test_another_name_is_told_at_the_next_look(day: Day, world: World) -> None:
    day.pass_by(3)
    world.hostname_now = "two.tunnel.test"
    day.pass_by(1)
    assert world.told[-1] == "https://two.tunnel.test/gw-a"


def test_a_name_that_is_not_proven_is_never_told(program: Any, day: Day, world: World) -> None:
    world.proof = program.NotYet("one.tunnel.test does not lead to this machine")
    day.pass_by(300)
    assert world.told == []
    assert world.complaints == ["one.tunnel.test does not lead to this machine"]
    assert day.watch.sentence() == "gw-a: one.tunnel.test does not lead to this machine"
    world.proof = None
    day.pass_by(11)
    assert world.told == ["https://one.tunnel.test/gw-a"]
    assert "The app reaches gw-a" in day.watch.sentence()


def test_an_app_that_is_down_is_told_when_it_is_back_and_the_newest_only(
    program: Any, day: Day, world: World
) -> None:
    world.app = program.NotYet("the app does not answer")
    day.pass_by(30)
    world.hostname_now = "two.tunnel.test"
    day.pass_by(30)
    assert day.watch.sentence() == "gw-a: the app does not answer"
    world.app = None
    day.pass_by(11)
    assert world.told == ["https://two.tunnel.test/gw-a"]


def test_it_asks_the_less_often_the_longer_it_is_refused_and_never_gives_up(
    program: Any, day: Day, world: World
) -> None:
    world.app = program.TunnelError("the app answers 401")
    day.pass_by(600)
    assert 600 / 11 <= world.proven <= 600 / 5 + 10


def test_ten_restarts_in_a_row_end_on_the_last_name(day: Day, world: World) -> None:
    for number in range(10):
        world.hostname_now = f"number-{number}.tunnel.test"
        day.pass_by(2)
    before_calm = len(world.told)
    assert before_calm < 10
    day.pass_by(10)
    assert world.told[-1] == "https://number-9.tunnel.test/gw-a"
    assert len(world.told) == before_calm + 1


def test_names_that_come_and_go_are_told_once_they_hold(day: Day, world: World) -> None:
    for _round in range(60):
        for name in ("one", "two"):
            world.hostname_now = f"{name}.tunnel.test"
            day.pass_by(1)
    assert len(world.told) <= 5
    assert "changes too often" in day.watch.sentence()
    day.pass_by(9)
    assert world.told[-1] == "https://two.tunnel.test/gw-a"


def test_a_tunnel_that_stays_away_is_complained_of_once(program: Any, day: Day, world: World) -> None:
    day.pass_by(5)
    world.hostname_now = program.NotYet("cloudflared does not answer")
    day.pass_by(20)
    assert world.complaints == []
    day.pass_by(100)
    assert world.complaints == ["cloudflared does not answer"]
    world.hostname_now = "one.tunnel.test"
    day.pass_by(1)
    assert world.told[-1] == "https://one.tunnel.test/gw-a" and len(world.told) == 2


def test_an_app_that_is_down_is_not_told_of_a_tunnel_that_is_away_in_every_second(
    program: Any, day: Day, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    day.pass_by(3)
    tries = []

    def complain(_gateway: str, reason: str) -> None:
        tries.append(reason)
        raise program.NotYet("the app does not answer")

    monkeypatch.setattr(world, "complain", complain)
    world.hostname_now = program.NotYet("no tunnel")
    day.pass_by(130)
    assert 10 <= len(tries) <= 21


def test_one_gateway_in_trouble_keeps_no_other_from_the_app(program: Any, world: World) -> None:
    day = Day(program, world, "gw-a", "gw-b")
    proven = world.prove

    def prove(hostname: str, gateway: str) -> str:
        if gateway == "gw-a":
            raise program.TokenRefused("gateway gw-a refuses its token")
        return proven(hostname, gateway)

    world.prove = prove  # type: ignore[method-assign]
    day.pass_by(2)
    assert world.told == ["https://one.tunnel.test/gw-b"]
    assert day.watch.stale
    assert day.watch.sentence() == "gw-a: gateway gw-a refuses its token"


def test_with_a_token_of_before_it_is_started_anew_but_not_for_ever(
    program: Any, day: Day, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.proof = program.TokenRefused("gateway gw-a refuses its token")
    slept: list[float] = []
    clock = iter(range(1000, 2000))
    monkeypatch.setattr(program.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(program.time, "sleep", slept.append)
    said: list[str] = []
    assert program.run(day.watch, said.append) == program.TOKEN_CHANGED
    assert len(slept) >= program.YOUNG_SECONDS / 3
    assert said == [
        "gw-a: gateway gw-a refuses its token",
        "A gateway's token was changed. Starting anew, to read it as it is now",
    ]
