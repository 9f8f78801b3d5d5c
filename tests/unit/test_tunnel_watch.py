"""What keeps the app's knowledge of a tunnel true, by a clock and surroundings of the test's own."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COLLECTION = Path(__file__).resolve().parents[2] / "collections/ansible_collections/claw/fleet"

BESIDE = ("_tunnel", "_tunnel_client")


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Any]:
    """The program as the role puts it on a machine."""
    parts = ("roles/tunnel/files/watch.py", *(f"plugins/module_utils/{name}.py" for name in BESIDE))
    for part in parts:
        shutil.copy(COLLECTION / part, tmp_path)
    before, known = list(sys.path), {name: sys.modules.pop(name, None) for name in BESIDE}
    specification = importlib.util.spec_from_file_location("watch", tmp_path / "watch.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    # Its dataclasses look for their module by its name.
    sys.modules["watch"] = module
    specification.loader.exec_module(module)
    yield module
    sys.path[:] = before
    for name in ("watch", *BESIDE):
        sys.modules.pop(name, None)
    sys.modules.update({name: module for name, module in known.items() if module})


@pytest.fixture(autouse=True)
def known_at_once(program: Any, monkeypatch: pytest.MonkeyPatch) -> float:
    """Names that need no time to be known; how long they have otherwise."""
    seconds: float = program.NEW_SECONDS
    monkeypatch.setattr(program, "NEW_SECONDS", 0.0)
    return seconds


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
        self.now = 1000.0
        gateways = [program.Gateway(name, "") for name in names]
        self.watch = program.Watch(gateways, world, world, world, lambda: self.now)

    def pass_by(self, seconds: int) -> None:
        for _second in range(seconds):
            for gateway in self.watch.gateways:
                self.watch.look(gateway)
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


def test_a_quick_tunnels_new_name_is_told_when_it_may_be_known_and_one_of_ones_own_at_once(
    program: Any, world: World, known_at_once: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "NEW_SECONDS", known_at_once)
    day = Day(program, world, "gw-a")
    day.pass_by(5)
    assert (world.proven, day.watch.sentence()) == (
        0,
        "gw-a: one.tunnel.test is new, and is told once it may be known everywhere",
    )
    day.pass_by(1)
    assert world.told == ["https://one.tunnel.test/gw-a"]
    own = Day(program, world, "gw-b")
    own.watch.gateways[0].wanted = "gw-b.tunnel.test"
    own.pass_by(1)
    assert world.told[-1] == "https://gw-b.tunnel.test/gw-b"


def test_a_name_that_is_not_proven_is_never_told(program: Any, day: Day, world: World) -> None:
    world.proof = program.TunnelError("one.tunnel.test does not lead to this machine")
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
    world.app = program.TunnelError("the app does not answer")
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
    world.hostname_now = program.TunnelError("cloudflared does not answer")
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
        raise program.TunnelError("the app does not answer")

    monkeypatch.setattr(world, "complain", complain)
    world.hostname_now = program.TunnelError("no tunnel")
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


def test_what_takes_long_is_paused_after_and_not_meanwhile(program: Any, day: Day, world: World) -> None:
    def prove(_hostname: str, _gateway: str) -> str:
        world.proven += 1
        day.now += 10
        raise program.TunnelError("it does not answer")

    world.prove = prove  # type: ignore[method-assign, assignment]
    day.pass_by(100)
    assert day.now >= 1000 + 100 + 10 * world.proven
    assert world.proven <= 20, "each time a pause of up to ten seconds"


class Given:
    """Restarts in a row, in a file of the test's own; and what the program says while it runs, which is faster than ever."""

    def __init__(self, program: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program, self.place = program, place / "restarts"
        self.said: list[str] = []
        monkeypatch.setattr(program, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(program, "YOUNG_SECONDS", 0.1)

    def run(self, world: World, *names: str) -> int:
        gateways = [self.program.Gateway(name, "") for name in names]
        watch = self.program.Watch(gateways, world, world, world)
        ended: int = self.program.run(watch, self.program.Restarts(self.place), self.said.append)
        return ended


@pytest.fixture
def given(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    return Given(program, tmp_path, monkeypatch)


class Enough(Exception):
    """The end of a run that would have none."""


def test_one_gateway_that_hangs_keeps_no_other_from_the_app(given: Given, world: World) -> None:
    hangs, told = threading.Event(), threading.Event()
    proven = world.prove

    def prove(hostname: str, gateway: str) -> str:
        if gateway == "gw-a":
            hangs.set()
            told.wait(30)
            raise Enough
        hangs.wait(30)
        return proven(hostname, gateway)

    def tell(_gateway: str, url: str) -> None:
        world.told.append(url)
        if world.hostname_now == "two.tunnel.test":
            told.set()
        world.hostname_now = "two.tunnel.test"

    world.prove, world.tell = prove, tell  # type: ignore[method-assign]
    with pytest.raises(Enough):
        given.run(world, "gw-a", "gw-b")
    assert world.told[:2] == ["https://one.tunnel.test/gw-b", "https://two.tunnel.test/gw-b"]
    assert "gw-a: where it is is being found out" in given.said[0]


def test_with_a_token_of_before_it_is_started_anew_and_the_more_seldom_the_longer_it_does_not_help(
    program: Any, given: Given, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.proof = program.TokenRefused("gateway gw-a refuses its token")
    old_enough = []
    for _restart in range(3):
        old_enough.append(program.Restarts(given.place).old_enough)
        assert given.run(world, "gw-a") == program.TOKEN_CHANGED
    assert old_enough == [pytest.approx(0.1 * 2**number) for number in range(3)]
    assert given.said[-2:] == [
        "gw-a: gateway gw-a refuses its token",
        "A gateway does not take its token. Starting anew, to read it as it is now",
    ]
    assert program.Restarts(given.place.parent / "none").old_enough == pytest.approx(0.1)
    # A token that is taken is the end of it.
    world.proof = None

    def tell(_gateway: str, _url: str) -> None:
        if world.proven > 8:
            raise Enough

    world.tell = tell  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(program, "AGAIN_SECONDS", 0.05)
    with pytest.raises(Enough):
        given.run(world, "gw-a")
    assert program.Restarts(given.place).old_enough == pytest.approx(0.1)


def test_a_look_that_does_not_end_is_no_sign_of_life(program: Any, day: Day, world: World) -> None:
    def prove(_hostname: str, _gateway: str) -> str:
        day.now += program.HUNG_SECONDS
        assert not day.watch.hung
        day.now += 1
        assert day.watch.hung
        raise program.TunnelError("at last")

    world.prove = prove  # type: ignore[method-assign, assignment]
    day.pass_by(1)
    assert not day.watch.hung and world.told == []
