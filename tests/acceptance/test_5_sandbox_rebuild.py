"""The image of agents' sandboxes changes under a fleet that is at work, and comes to every agent once she is idle."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from clawbench.coachlist import API

from .faults import FaultyList
from .fleet import ROOT, Fleet, Play, until
from .sandboxes import BUILD, CLIENTS, GATEWAYS, Sandboxes, deeds, executing, outcome
from .test_5_bad_machine import full
from .test_5_rotation import settings

pytestmark = pytest.mark.fire

ANNA, BEN, CLARA = COACHES = ("coach-anna", "coach-ben", "coach-clara")
EVER = "slow:3000"
"""What an agent does until she is hurried."""
WAITING = "ps -eo etimes=,args= | awk '$1 >= 10 && $2 == \"/usr/bin/python3\" && NF == 2'"
"""A module that does not end, as Ansible starts them: of those of this play one that waits for an agent to be idle."""


@pytest.fixture(scope="module")
def sandboxes(fleet: Fleet) -> Sandboxes:
    """Each agent has one, of the app's document as it is."""
    found = Sandboxes(fleet)
    found.rebuilt()
    for coach in COACHES:
        found.furnish(coach)
    return found


@pytest.fixture(scope="module")
def former(sandboxes: Sandboxes) -> str:
    """The image that there was at the beginning."""
    (former,) = {name for name, found in sandboxes.images().items() if found == sandboxes.of(ANNA).image_id}
    return former


@pytest.fixture(scope="module")
def document(sandboxes: Sandboxes, former: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app's document with a field and an endpoint more; at the end everything is of the real one again."""
    yield str(sandboxes.document(tmp_path_factory.mktemp("document"), weather=True))
    sandboxes.rebuilt()


@contextmanager
def hurried_at_last(fleet: Fleet) -> Iterator[Callable[[], None]]:
    """What has every turn come to its end, which they also do where the block fails."""

    def put(value: bool) -> None:
        httpx.put(f"{fleet.provider}/_hurry", json=value, trust_env=False).raise_for_status()

    try:
        yield lambda: put(True)
    finally:
        put(True)


@pytest.fixture(autouse=True)
def slow_again(fleet: Fleet) -> Iterator[None]:
    """Nobody who comes later is hurried."""
    yield
    httpx.put(f"{fleet.provider}/_hurry", json=False, trust_env=False).raise_for_status()


def test_a_new_image_comes_to_each_agent_once_she_is_idle(
    fleet: Fleet, sandboxes: Sandboxes, document: str, former: str
) -> None:
    before, pids = sandboxes.all(), [fleet.pid(name) for name in GATEWAYS]
    note = f"{sandboxes.workspace(CLARA)}/note.md"
    fleet.ask(CLARA, 'tool:write {"path": "note.md", "content": "to be kept"}', "note")
    unchanged = sandboxes.state()
    predicted = sandboxes.rebuild("--check", "--diff", sandbox_openapi=document)
    assert predicted.rc == 0, predicted.output
    assert sandboxes.state() == unchanged
    between = f"{executing(CLIENTS)} {EVER} {executing(CLIENTS)}"
    with (
        sandboxes.executed() as executed,
        sandboxes.turn(ANNA, EVER, "long") as long,
        sandboxes.turn(BEN, between, "between") as calls,
        ThreadPoolExecutor(1) as pool,
        hurried_at_last(fleet) as hurry,
    ):
        until("the first of two calls", lambda: _has_called(fleet, between))
        # They do not end in time: nobody waits for them for longer than is wanted, and everything else is done.
        first = sandboxes.rebuilt("--diff", sandbox_openapi=document, sandbox_wait=1)
        assert not long.done() and not calls.done()
        # The next run waits for them.
        waiting = pool.submit(sandboxes.rebuilt, sandbox_openapi=document, sandbox_wait=600)
        until("the run to wait", lambda: waiting.done() or fleet.sh(WAITING) != "", 300)
        assert not long.done() and not calls.done()
        hurry()
        second = waiting.result()
    # How long somebody is at work cannot be predicted.
    assert first.changed == predicted.changed
    (told, another), (later, others), (foretold, all_of_them) = map(_parted, (first, second, predicted))
    assert (told, later) == (foretold, [])
    assert sorted(another + others) == sorted(all_of_them)
    assert _merged(first, "recreated") == [CLARA] and _merged(first, "busy") == [ANNA, BEN]
    assert "had turns that did not end within 1 s" in " ".join(first.output.split())
    assert (long.result().status, calls.result().status) == (200, 200)
    assert "tick-3000" in long.result().text and "A client of coach-ben" in calls.result().text
    assert _merged(second, "recreated") == [ANNA, BEN] and _merged(second, "busy") == []
    assert second.result(GATEWAYS[0], BUILD)["changed"] is False
    lines = [container for container, line in executed if line.endswith(CLIENTS)]
    assert lines == [before[BEN].id] * 2, "both calls of a turn are of one sandbox"
    for coach in COACHES:
        _has_both(sandboxes, coach, first.result(GATEWAYS[0], BUILD)["image"])
    assert fleet.sh(f"cat {note}") == "to be kept"
    after = sandboxes.all()
    assert not {sandbox.id for sandbox in after.values()} & {sandbox.id for sandbox in before.values()}
    assert [fleet.pid(name) for name in GATEWAYS] == pids


def _parted(play: Play) -> tuple[list[Any], list[str]]:
    """What a play told of what it changed; and, apart from that, whose containers it replaced."""
    told, replaced = [], []
    for gateway, task, shown in play.diffs():
        for difference in shown if isinstance(shown, list) else [shown]:
            if difference.get("before_header") == "containers":
                replaced += difference["before"].splitlines()
            else:
                told.append((gateway, task, difference))
    return sorted(told, key=str), replaced


def _has_called(fleet: Fleet, text: str) -> bool:
    return any(request["directive"] == "slow" for request in fleet.heard(text))


def _merged(play: Play, what: str) -> list[str]:
    return sorted(name for gateway in GATEWAYS for name in outcome(play, gateway)[what])


def _has_both(sandboxes: Sandboxes, coach: str, image: str) -> None:
    """Her command knows the new endpoint and the new field, and her container is of the new image."""
    assert "show" in sandboxes.execute(coach, "journeyloop weather --help")
    assert "--reward" in sandboxes.execute(coach, "journeyloop goals create --help")
    assert sandboxes.of(coach).image_id == sandboxes.images()[image]


def test_again_nothing_is_built_and_nobodys_sandbox_replaced(sandboxes: Sandboxes, document: str) -> None:
    before = sandboxes.state()
    for arguments in ((), ("--check",)):
        play = sandboxes.rebuild(*arguments, sandbox_openapi=document)
        assert (play.rc, play.changed) == (0, []), play.output
        assert play.output.count("Nothing was done: ") == len(GATEWAYS)
    assert sandboxes.state() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sandbox_openapi": "/dev/null"}, "openapi /dev/null: it is empty. No image was built."),
        (
            {"sandbox_base": {"image": f"127.0.0.1:9/debian@sha256:{'0' * 64}"}},
            "the build failed: ",
        ),
        ({"sandbox_image": "claw-sandbox:nobodys"}, "there is no image claw-sandbox:nobodys on the machine"),
        ({"sandbox_tools": ["group:fs"]}, "Name each tool by OpenClaw's own name for it"),
    ],
)
def test_what_cannot_be_built_leaves_all_as_it_was(
    sandboxes: Sandboxes, document: str, options: dict[str, Any], words: str
) -> None:
    before = sandboxes.state()
    play = sandboxes.rebuild(**{"sandbox_openapi": document, **options})
    assert play.rc != 0 and words in " ".join(play.output.split()), play.output
    assert sandboxes.state() == before


def test_a_document_without_end_is_not_read(fleet: Fleet, sandboxes: Sandboxes) -> None:
    before = sandboxes.state()
    with FaultyList(fleet.coach_list.url) as server:
        server.befall("/schema/", "huge", 1)
        play = sandboxes.rebuild(sandbox_openapi=f"{server.url}{API}/schema/?format=json")
        assert server.befallen.left == 0
    assert play.rc != 0 and "No image was built" in " ".join(play.output.split()), play.output
    assert sandboxes.state() == before


def test_a_build_on_a_full_disk_leaves_all_as_it_was(
    fleet: Fleet, sandboxes: Sandboxes, document: str
) -> None:
    before = sandboxes.state()
    fill, cure = full("/var/tmp")
    packages = ["busybox-static", "ca-certificates", "python3-minimal"]
    fleet.sh(fill)
    try:
        play = sandboxes.rebuild(sandbox_openapi=document, sandbox_base={"packages": packages})
    finally:
        fleet.sh(cure)
    said = " ".join(play.output.split())
    assert play.rc != 0 and "Debian's packages make no base" in said, play.output
    assert "/var/tmp is full; make room in it" in said, play.output
    assert sandboxes.state() == before
    assert sandboxes.rebuilt(sandbox_openapi=document).changed == []


def test_back_to_the_former_image(fleet: Fleet, sandboxes: Sandboxes, document: str, former: str) -> None:
    pids = [fleet.pid(name) for name in GATEWAYS]
    predicted = sandboxes.rebuild("--check", "--diff", sandbox_image=former)
    play = sandboxes.rebuilt("--diff", sandbox_image=former)
    assert deeds(play) == deeds(predicted)
    assert _merged(play, "recreated") == _merged(play, "updated") == [*COACHES]
    for coach in COACHES:
        assert "No such command 'weather'" in sandboxes.execute(coach, "journeyloop weather --help")
        assert sandboxes.of(coach).image_id == sandboxes.images()[former]
    assert [fleet.pid(name) for name in GATEWAYS] == pids
    assert sandboxes.rebuilt(sandbox_image=former).changed == []


def test_what_another_gateway_is_to_have_is_not_removed(
    fleet: Fleet, sandboxes: Sandboxes, tmp_path: Path
) -> None:
    """Also while nobody there has a sandbox, and one gateway alone has been given new images more often than are kept."""
    sandboxes.rebuilt()
    one, other = GATEWAYS
    (coach,) = [name for name in COACHES if fleet.row(name)["gateway"] == other][:1]
    image = sandboxes.of(coach).image_id
    sandboxes.docker("rm", "--force", *(box.id for box in sandboxes.all().values() if box.gateway == other))
    try:
        for number in (1, 2, 3):
            place = tmp_path / str(number)
            place.mkdir()
            document = str(sandboxes.document(place, **{f"weather{number}": True}))
            sandboxes.rebuilt("--limit", one, sandbox_openapi=document)
        assert image in sandboxes.images().values()
        sandboxes.clients(coach)
        assert sandboxes.of(coach).image_id == image
    finally:
        sandboxes.rebuilt()
        for each in COACHES:
            sandboxes.clients(each)


def test_an_image_that_was_removed_by_hand_is_built_again(sandboxes: Sandboxes, former: str) -> None:
    ids = [sandbox.id for sandbox in sandboxes.all().values()]
    sandboxes.docker("rm", "--force", *ids)
    sandboxes.docker("image", "rm", "--force", former)
    play = sandboxes.rebuilt()
    assert play.result(GATEWAYS[0], BUILD)["changed"] is True
    for coach in COACHES:
        sandboxes.clients(coach)
    assert sandboxes.of(ANNA).image_id == sandboxes.images()[former]
    assert sandboxes.rebuilt().changed == []


def test_an_engine_that_stops_while_it_builds(fleet: Fleet, sandboxes: Sandboxes, tmp_path: Path) -> None:
    # One that no earlier run can have left an image of.
    tide = f"tide{secrets.token_hex(2)}"
    document = str(sandboxes.document(tmp_path, **{tide: True}))
    here, images, pids = sandboxes.all(), sandboxes.images(), [fleet.pid(name) for name in GATEWAYS]

    def running() -> set[str]:
        return set(sandboxes.docker("ps", "--quiet", "--no-trunc").split())

    others = running()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(sandboxes.rebuild, sandbox_openapi=document)
        until("a step of the build", lambda: run.done() or running() - others, 300)
        fleet.sh("systemctl stop docker.socket docker.service")
        play = run.result()
    said = " ".join(play.output.split())
    # Where an engine has the steps from before, the first container is the one in which the image is tried.
    assert play.rc != 0 and "Traceback" not in said, play.output
    assert "could not build the image" in said or "could not try the image" in said, play.output
    again = sandboxes.rebuilt(sandbox_openapi=document)
    assert again.result(GATEWAYS[0], BUILD)["changed"] is True
    assert len(sandboxes.images().keys() - images.keys()) == 1
    for coach in COACHES:
        assert "show" in sandboxes.execute(coach, f"journeyloop {tide} --help")
        assert sandboxes.of(coach).id != here[coach].id
    # What an engine that is stopped leaves of its own steps is its own, and does not run.
    assert running() <= {sandbox.id for sandbox in sandboxes.all().values()}, "a step of the build goes on"
    assert [fleet.pid(name) for name in GATEWAYS] == pids
    assert sandboxes.rebuilt(sandbox_openapi=document).changed == []
    sandboxes.rebuilt()


def test_an_engine_that_stops_in_the_middle(fleet: Fleet, sandboxes: Sandboxes, document: str) -> None:
    """While the document is fetched for a new image; the next run starts it again and does what is left."""
    images, here = sandboxes.images(), sandboxes.all()
    files, pids = fleet.files(), [fleet.pid(name) for name in GATEWAYS]
    with FaultyList(fleet.coach_list.url) as server, ThreadPoolExecutor(1) as pool:
        with server.gate("^GET .*/schema/") as gate:
            run = pool.submit(sandboxes.rebuild, sandbox_openapi=f"{server.url}{API}/schema/?format=json")
            gate.wait(300)
            fleet.sh("systemctl stop docker.socket docker.service")
        play = run.result()
    said = " ".join(play.output.split())
    assert play.rc != 0 and "no container engine answers at unix:///run/docker.sock" in said, play.output
    assert (fleet.files(), [fleet.pid(name) for name in GATEWAYS]) == (files, pids)
    # Meanwhile an agent answers what needs no tool of hers, or says that she cannot; the gateway stays.
    again = sandboxes.rebuilt()
    assert "Docker runs, and comes up with the machine" in " ".join(again.changed)
    assert sandboxes.images() == images
    assert {(name, sandbox.id) for name, sandbox in sandboxes.all().items()} == {
        (name, sandbox.id) for name, sandbox in here.items()
    }
    for coach in COACHES:
        assert f"A client of {coach}" in sandboxes.clients(coach)
    assert [fleet.pid(name) for name in GATEWAYS] == pids
    assert sandboxes.rebuilt().changed == []


def test_what_django_has_anew_comes_into_every_command(fleet: Fleet, sandboxes: Sandboxes) -> None:
    sandboxes.rebuilt()
    pids = [fleet.pid(name) for name in GATEWAYS]
    assert "known_as" not in sandboxes.execute(ANNA, CLIENTS)
    another = {"DJANGO_SETTINGS_MODULE": "tests.acceptance.later_app.settings"}
    with settings(fleet, **another, PYTHONPATH=f"{ROOT / 'src'}:{ROOT}"):
        play = sandboxes.rebuilt()
        assert _merged(play, "recreated") == [*COACHES]
        for coach in COACHES:
            assert f"clear above {coach}" in sandboxes.execute(coach, "journeyloop weather show")
            clients = json.loads(sandboxes.execute(coach, CLIENTS))
            assert f"A client of {coach}" in {client["name"] for client in clients}
            assert [client for client in clients if client["known_as"] != client["name"]] == []
        assert sandboxes.rebuilt().changed == []
    assert _merged(sandboxes.rebuilt(), "recreated") == [*COACHES]
    assert "No such command 'weather'" in sandboxes.execute(ANNA, "journeyloop weather show")
    assert [fleet.pid(name) for name in GATEWAYS] == pids
