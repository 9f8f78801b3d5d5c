"""What clients notice: the longest time without an answer, and lost requests, at two turns a second.

While the fleet adds, pauses and removes coaches and gives one of those who are asked a new key; beside the same
changes of who is served by bare renames of the roster file. The clients go the way of Django's requests: through the
proxy, with the gateway's token.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from benchmarks.ground import PROVISION, Ground, Settings
from benchmarks.measure import Rounds, Row
from benchmarks.one_gateway import GATEWAY, bare, furnish, wish

FAMILY = "clients"
SECONDS_BETWEEN = 0.5
QUIET_SECONDS = 5
ASKED = ("coach-00000", "coach-00001")


def run(settings: Settings) -> list[Row]:
    """Every row of this family."""
    ground = settings.ground("one", 1, 1, provider=True)
    furnish(ground, 3 if settings.quick else 100)
    ours, renames = (
        "longest pause while the fleet makes the changes",
        "longest pause while bare renames make them",
    )
    lost, sent = "requests lost while the fleet makes the changes", "requests sent meanwhile"
    taken = Rounds(FAMILY, settings.say)

    def by_fleet() -> float:
        clients = _watched(ground, _by_fleet)
        taken.take(lost, clients.lost)
        taken.take(sent, clients.sent)
        return clients.longest_pause()

    taken.run(
        {ours: by_fleet, renames: lambda: _watched(ground, _by_renames).longest_pause()}, settings.rounds
    )
    return [
        taken.row(ours, renames, at_most=1.2),
        taken.row(lost, sent, unit="requests", at_most=0),
    ]


class Clients:
    """Two who each take a turn a second, until the end of the block."""

    def __init__(self, ground: Ground) -> None:
        self._http = ground.fleet.way_in(GATEWAY)
        self._answers: list[float] = []
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._run)
        self.sent = 0
        self.lost = 0

    def __enter__(self) -> Clients:
        self._beat.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self._over.set()
        self._beat.join()
        self._http.close()

    def longest_pause(self) -> float:
        """The longest time between two answers, in seconds."""
        times = sorted(self._answers)
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def _run(self) -> None:
        begin = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            while not self._over.wait(max(0.0, begin + self.sent * SECONDS_BETWEEN - time.monotonic())):
                pool.submit(self._turn, ASKED[self.sent % len(ASKED)], self.sent)
                self.sent += 1

    def _turn(self, agent_id: str, number: int) -> None:
        headers = {
            "x-openclaw-agent-id": agent_id,
            "x-openclaw-session-key": f"agent:{agent_id}:bench-{number % 4}",
        }
        try:
            answer = self._http.post(
                "/v1/responses", json={"model": "openclaw", "input": "hello"}, headers=headers
            )
        except httpx.HTTPError:
            self.lost += 1
            return
        if answer.status_code == httpx.codes.OK:
            self._answers.append(time.monotonic())
        else:
            self.lost += 1


def _watched(ground: Ground, changes: Callable[[Ground], None]) -> Clients:
    with Clients(ground) as clients:
        time.sleep(QUIET_SECONDS)
        changes(ground)
        time.sleep(QUIET_SECONDS)
    return clients


def _by_fleet(ground: Ground) -> None:
    new = [f"coach-{secrets.token_hex(4)}" for _number in range(2)]
    for ids, what in (
        (new, "provision"),
        (new[:1], "pause"),
        (new, "remove"),
        (list(ASKED[:1]), "rotate_key"),
    ):
        wish(ground, ids, what)
        ground.play(PROVISION)


def _by_renames(ground: Ground) -> None:
    for verb, ids in (("add", ("bare-1", "bare-2")), ("drop", ("bare-1",)), ("drop", ("bare-2",))):
        bare(ground, verb, *ids)
