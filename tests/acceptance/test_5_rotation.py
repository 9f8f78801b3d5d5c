"""Secrets change while people ask: nobody notices, the old one is refused, and whatever is cut off is carried on."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import httpx
import pytest
from clawbench.coachlist import API
from clawbench.inventory import furnish
from clawbench.shell import write_private

from .faults import FaultyList
from .fleet import Fleet, Play, Reply, until

pytestmark = pytest.mark.fire

GATEWAYS = ("gw-a", "gw-b")
COACHES = ("coach-anna", "coach-ben", "coach-clara")
EVERY_SECONDS = 0.5


def sha256(secret: str) -> str:
    """The hash that Django and the provider know a secret by."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Asking:
    """A client who asks the coaches' agents in turn, twice a second, whatever becomes of the asks before."""

    def __init__(self, fleet: Fleet, key: Callable[[str], str] | None = None) -> None:
        """``key``: where an ask takes the coach's key from; by default it is what it was at the beginning."""
        keys = {coach: fleet.credentials(coach)["api_key"] for coach in COACHES}
        self._fleet = fleet
        self._before = fleet.heard_until_now()
        self._key = key or keys.__getitem__
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(32)
        self._asks: list[Future[Reply]] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._asks.append(self._pool.submit(self._ask, len(self._asks)))
            self._stop.wait(EVERY_SECONDS)

    def _ask(self, number: int) -> Reply:
        coach = COACHES[number % len(COACHES)]
        return self._fleet.ask(coach, f"question-{number} ?", f"rotation-{number % 12}", self._key(coach))

    def answers(self) -> int:
        """How many asks were answered until now."""
        return sum(ask.done() for ask in self._asks)

    def wait_for_those_until_now(self) -> None:
        """Wait until everything that was asked until now is answered."""
        wait(list(self._asks), 180)

    def __enter__(self) -> Asking:
        self._thread.start()
        try:
            until("each agent's first answer", lambda: self.answers() >= len(COACHES), 180)
        except BaseException:
            self._end()
            raise
        return self

    def _end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if kind is None:
            replies = [ask.result() for ask in self._asks]
            lost = [
                reply for reply in replies if reply.status != 200 or "response.completed" not in reply.body
            ]
            assert len(replies) > len(COACHES) and lost == []
            heard = Counter(request["user"] for request in self._fleet.heard("question-", after=self._before))
            assert set(heard.values()) == {1} and len(heard) == len(replies), "each is put to the model once"


@contextmanager
def settings(fleet: Fleet, **changes: str) -> Iterator[None]:
    """Django with other settings, until the end."""
    path = fleet.state / "coachlist.env"
    before = path.read_text()
    kept = [line for line in before.splitlines() if line.partition("=")[0] not in changes]

    def restart(text: str) -> None:
        fleet.coach_list.down()
        write_private(path, text)
        furnish(fleet.bench, fleet.coach_list)

    restart("\n".join([*kept, *(f"{name}={shlex.quote(value)}" for name, value in changes.items()), ""]))
    try:
        yield
    finally:
        restart(before)


@pytest.fixture(scope="module", autouse=True)
def as_found(fleet: Fleet) -> Iterator[None]:
    """Nobody is asked too often; and no gateway's process ends for a secret."""
    with settings(fleet, COACHLIST_ASK_RATE=""):
        pids = [fleet.pid(name) for name in GATEWAYS]
        yield
        assert [fleet.pid(name) for name in GATEWAYS] == pids


@pytest.fixture
def between(fleet: Fleet) -> Iterator[FaultyList]:
    """A server before Django that ends a run's talk with it at a request of one's choice."""
    with FaultyList(fleet.coach_list.url) as server:
        yield server


def cut_off(
    fleet: Fleet, between: FaultyList, request: str, playbook: str, *arguments: str, **extra: Any
) -> Play:
    """A run that ends at a request to Django, as if the service token had expired."""
    between.expires_after, between.expired = request, False
    play = fleet.play(playbook, *arguments, coaches_api_url=f"{between.url}{API}/", **extra)
    assert play.rc != 0 and between.expired, play.output
    return play


def silent(fleet: Fleet, play: Play, *former: str) -> bool:
    """Whether a play said none of the secrets of today, nor those of before."""
    return fleet.seen(play.output) == [] and not [
        value for value in (fleet.coach_list.service_token, *former) if value in play.output
    ]


def changed(play: Play) -> list[str]:
    """The hosts that something was changed on, also by a task whose result is not to be seen."""
    return sorted(re.findall(r"^changed: \[([\w-]+)\]", play.output, re.MULTILINE))


def as_predicted(play: Play, check: Play) -> bool:
    """Whether a check had said what the run then did."""
    assert check.rc == 0, check.output
    assert play.rc == 0, play.output
    return (changed(play), sorted(play.diffs(), key=str)) == (changed(check), sorted(check.diffs(), key=str))


GATEWAY_TOKEN = "playbooks/rotate-gateway-token.yml"


def test_a_gateways_token(fleet: Fleet) -> None:
    files, old = fleet.files(), {name: fleet.token(name) for name in GATEWAYS}
    check = fleet.play(GATEWAY_TOKEN, "--check", "--diff")
    assert fleet.files() == files and len(check.changed) == len(GATEWAYS)
    with Asking(fleet):
        play = fleet.play(GATEWAY_TOKEN, "-vvv", "--diff")
        assert play.rc == 0, play.output
        for name in GATEWAYS:
            assert fleet.turn(name, "coach-anna", token=old[name]).status == 401
    assert as_predicted(play, check) and silent(fleet, play, *old.values())
    assert not set(old.values()) & {fleet.token(name) for name in GATEWAYS}
    assert fleet.sh("find /var/lib/claw -maxdepth 2 -name 'token.*'") == ""
    for arguments in (("--check",), ()):
        again = fleet.play(GATEWAY_TOKEN, *arguments, max_age_days=1)
        assert again.rc == 0 and again.changed == []


def test_a_gateways_token_cut_off_twice(fleet: Fleet, between: FaultyList) -> None:
    old = fleet.token("gw-a")
    with Asking(fleet):
        first = cut_off(fleet, between, r"^PUT .*/gw-a/ .*next_token", GATEWAY_TOKEN, "--limit=gw-a", "-vvv")
        pending = fleet.sh("cat /var/lib/claw/gw-a/token.pending").strip()
        assert fleet.token("gw-a") == old != pending
        second = cut_off(fleet, between, r'^PUT .*/gw-a/ \{"token', GATEWAY_TOKEN, "--limit=gw-a", "-vvv")
        # It is in force, and Django finds that out by itself. What else there is to do can be done.
        assert fleet.token("gw-a") == pending
        assert fleet.turn("gw-a", "coach-anna", token=old).status == 401
        provisioned = fleet.provision()
        assert provisioned.rc == 0 and provisioned.changed == []
        # Young as it is now: what is left of it is carried to its end, and there it ends.
        for tasks in (1, 0):
            play = fleet.play(GATEWAY_TOKEN, "--limit=gw-a", max_age_days=1)
            assert play.rc == 0 and len(play.changed) == tasks
    assert fleet.token("gw-a") == pending
    assert silent(fleet, first, old) and silent(fleet, second, old)


PROVIDER_KEY = "playbooks/rotate-provider-key.yml"


def test_a_providers_key(fleet: Fleet) -> None:
    path = fleet.state / "providers.json"
    found = json.loads(path.read_text())
    provider = found["gateway_providers"]["stand-in"]
    old, new = provider["api_key"], f"sk-{secrets.token_hex(16)}"
    try:
        provider["api_key"] = new
        write_private(path, json.dumps(found))
        files = fleet.files()
        check = fleet.play(PROVIDER_KEY, "--check", "--diff")
        assert fleet.files() == files and changed(check) == [*GATEWAYS]
        with Asking(fleet) as asking:
            # As a run leaves it that ends after the file and before the gateway.
            fleet.sh(
                f"umask 377; cd /var/lib/claw/gw-a && printf %s {new} > n && chown claw-gw-a: n && mv -f n provider-stand-in.key"
            )
            play = fleet.play(PROVIDER_KEY, "-vvv", "--diff")
            assert as_predicted(play, check) and silent(fleet, play, new)
            # A turn that began before goes on with the old key, so that one is not revoked before these are through.
            asking.wait_for_those_until_now()
            before, so_far = fleet.heard_until_now(), asking.answers()
            refuse(fleet, sha256(old))
            until("asks after the change", lambda: asking.answers() >= so_far + 2 * len(COACHES))
        heard = {request["key_sha256"] for request in fleet.heard(after=before)}
        assert heard == {sha256(new)}
        for arguments in (("--check",), ()):
            again = fleet.play(PROVIDER_KEY, *arguments)
            assert again.rc == 0 and changed(again) == []
    finally:
        refuse(fleet)
        provider["api_key"] = old
        write_private(path, json.dumps(found))
        assert fleet.play(PROVIDER_KEY).rc == 0


def refuse(fleet: Fleet, *hashes: str) -> None:
    """Have the provider refuse these keys, and no others."""
    httpx.put(f"{fleet.provider}/_refused", json=hashes, trust_env=False).raise_for_status()


def test_a_coachs_key(fleet: Fleet, between: FaultyList) -> None:
    old = fleet.credentials("coach-anna")["api_key"]
    place = f"/var/lib/claw/{fleet.row('coach-anna')['gateway']}/credentials/coach-anna/.credentials.json"

    def key(coach: str) -> str:
        """As an agent's command line has it: from the file, each time."""
        return fleet.credentials(coach)["api_key"]

    check = fleet.provision(None, "--check", "--diff", rotate="coach-anna")
    with Asking(fleet, key):
        first = cut_off(
            fleet, between, "^POST .*/set-key/", "playbooks/provision-coach.yml", "-vvv", rotate="coach-anna"
        )
        pending = json.loads(fleet.sh(f"cat {place}.pending"))["api_key"]
        assert key("coach-anna") == old != pending
        play = fleet.provision(None, "-vvv", "--diff", rotate="coach-anna")
        until("the old key to be refused", lambda: not opens(fleet, old), 15)
    assert play.rc == 0, play.output
    assert play.changed == check.changed, check.output
    assert key("coach-anna") == pending and opens(fleet, pending)
    assert silent(fleet, first, old, pending) and silent(fleet, play, old)
    assert fleet.row("coach-anna")["key_generation"] == fleet.row("coach-anna")["key_wanted_generation"]
    again = fleet.provision()
    assert again.rc == 0 and again.changed == []


def opens(fleet: Fleet, key: str) -> bool:
    """Whether a coach's key opens her data."""
    with fleet.api(key) as api:
        status = api.get("/clients/").status_code
    assert status in (200, 401)
    return status == 200


SERVICE_TOKEN = "playbooks/rotate-service-token.yml"


def test_the_service_token(fleet: Fleet, between: FaultyList) -> None:
    file = fleet.state / "service-token"
    configured = file.read_text()

    def accepted(token: str) -> bool:
        with fleet.api(token.strip()) as api:
            return api.get("/internal/gateways/").status_code == 200

    try:
        with Asking(fleet):
            # One that stands in the settings: everything else is done, and what is left is said.
            first = fleet.play(SERVICE_TOKEN, "-vvv", "--diff")
            registered = file.read_text()
            assert first.rc != 0 and "COACHLIST_SERVICE_TOKENS" in first.output
            assert registered != configured and accepted(registered) and accepted(configured)
        with settings(fleet, COACHLIST_SERVICE_TOKENS=secrets.token_urlsafe(32)):
            play = fleet.play(SERVICE_TOKEN)
            assert play.rc == 0 and len(play.changed) == 1, play.output
            assert file.read_text() == registered and not accepted(configured)

            check = fleet.play(SERVICE_TOKEN, "--check", "--diff")
            with Asking(fleet):
                # Cut off before Django knows it, and before Django forgets the one before.
                cut_off(fleet, between, "^PUT .*/service-tokens/", SERVICE_TOKEN)
                pending = (fleet.state / "service-token.pending").read_text()
                assert file.read_text() == registered
                cut_off(fleet, between, "^DELETE .*/service-tokens/", SERVICE_TOKEN)
                assert file.read_text() == pending and accepted(pending)
                play = fleet.play(SERVICE_TOKEN, "-vvv", "--diff")
                assert not accepted(registered) and accepted(pending)
            assert play.rc == 0 and play.changed == check.changed
            for run in (first, play):
                assert silent(fleet, run, configured.strip(), registered.strip(), pending.strip())
            again = fleet.play(SERVICE_TOKEN, max_age_days=1)
            assert again.rc == 0 and again.changed == []
            assert not list(fleet.state.glob("service-token.[pf]*"))
    finally:
        write_private(file, configured)
        for left in fleet.state.glob("service-token.[pf]*"):
            left.unlink()
        fleet.orm("ServiceToken.objects.all().delete()")


def test_afterwards_nothing_is_left_to_do(fleet: Fleet) -> None:
    for playbook in ("playbooks/site.yml", "playbooks/provision-coach.yml"):
        play = fleet.play(playbook)
        assert play.rc == 0 and play.changed == [], play.output
