# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the app's knowledge of where this machine's gateways are true: watch.py CONFIG_DIR

It looks every second where the tunnel leads from; what is new there, or was not looked at for a minute, is proven from
outside and told to the app. It remembers nothing between two starts: the app is asked what it knows. Whatever goes wrong is
tried again for as long as it takes, with growing pauses, and stands in one sentence in `systemctl status`.

What it knows of the tunnel is the collection's own module_utils/_tunnel.py, which the role puts beside this file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Run with -I, Python does not look beside the program by itself.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _tunnel import (
    App,
    Cloudflared,
    Settings,
    TokenRefused,
    TunnelError,
    Way,
    read_secret,
    secrets_in,
)

_LOG = logging.getLogger("watch")

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""After which what is known is looked at anew: the app may have been told otherwise, the way be broken."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 10.0
CALM_CHANGES, CHANGES_SECONDS, LONGEST_HOLD_SECONDS = 4, 180.0, 8.0
"""So many names within that time are taken at once; each further one has to hold for longer."""
NEW_SECONDS = 5.0
"""How old a quick tunnel's name has to be before the app is told: who looks it up too early remembers that there is none."""
GIVEN_UP_SECONDS = 30.0
"""How long there may be no tunnel before the app is told."""
TOKEN_CHANGED = 75
"""What it ends with to be started anew, with the gateway's token as it is by then."""
YOUNG_SECONDS, LONGEST_YOUNG_SECONDS = 20.0, 640.0
"""How old it has to be for a token to have been changed since it was started; the older, the more often that was in vain."""
HUNG_SECONDS = 600.0
"""How long a look may take before all of it is started anew. Its requests have limits of their own, which somebody who answers
a little at a time can stretch; the others are looked at meanwhile."""


class Tunnel(Protocol):
    """Where the tunnel leads from: `Cloudflared`."""

    def hostname(self, wanted: str = "") -> str: ...


class Prover(Protocol):
    """Whether that is here: `Way`."""

    def prove(self, hostname: str, gateway: str) -> str: ...


class Told(Protocol):
    """Who is told: `App`."""

    def tell(self, gateway: str, url: str) -> object: ...
    def complain(self, gateway: str, reason: str) -> None: ...


class Damper:
    """How long a name has to hold before it is believed: at once, unless names come and go."""

    def __init__(self) -> None:
        self._changes: deque[float] = deque()

    def hold(self, now: float) -> float:
        """Note a change; the seconds that it has to hold."""
        self._changes.append(now)
        while self._changes and self._changes[0] < now - CHANGES_SECONDS:
            self._changes.popleft()
        beyond = len(self._changes) - CALM_CHANGES
        return 0.0 if beyond <= 0 else min(2.0 ** (beyond - 1), LONGEST_HOLD_SECONDS)


@dataclass
class Gateway:
    """One of the machine's gateways, and how far its address has come."""

    name: str
    wanted: str
    hostname: str = ""
    """The one that was seen last."""
    told: str = ""
    """The one that the app was told of."""
    damper: Damper = field(default_factory=Damper)
    away_since: float | None = None
    """Since when there is no tunnel."""
    due: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    trouble: str = ""
    complained: str = ""
    complain_due: float = 0.0
    refused: bool = False
    """Whether it does not take the token that this process has of it."""
    looked_at_since: float | None = None
    """Since when it is being looked at, if it is."""

    @property
    def how(self) -> str:
        """Why the app does not know of it yet; "" if it does."""
        return self.trouble or ("" if self.told == self.hostname != "" else "where it is is being found out")

    def put_off(self, now: float, trouble: str) -> None:
        """Try again later, the later the longer it goes on."""
        self.trouble = trouble
        self.due = now + self.pause * secrets.SystemRandom().uniform(0.5, 1)
        self.pause = min(self.pause * 2, LONGEST_PAUSE_SECONDS)


class Watch:
    """All gateways of the machine."""

    def __init__(
        self,
        gateways: Iterable[Gateway],
        tunnel: Tunnel,
        way: Prover,
        app: Told,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock``: seconds of one that only goes forward."""
        self.gateways = list(gateways)
        self._tunnel = tunnel
        self._way = way
        self._app = app
        self._clock = clock

    @property
    def stale(self) -> bool:
        """Whether a gateway refuses the token that this process has of it."""
        return any(gateway.refused for gateway in self.gateways)

    @property
    def settled(self) -> bool:
        """Whether the app knows of every gateway."""
        return not any(gateway.how for gateway in self.gateways)

    @property
    def hung(self) -> bool:
        """Whether a look does not come to its end."""
        since = [gateway.looked_at_since for gateway in self.gateways]
        return any(began is not None and self._clock() - began > HUNG_SECONDS for began in since)

    def look(self, gateway: Gateway) -> None:
        """Once at a gateway."""
        gateway.looked_at_since = self._clock()
        try:
            self._look(gateway)
        finally:
            gateway.looked_at_since = None

    def _look(self, gateway: Gateway) -> None:
        try:
            hostname = self._tunnel.hostname(gateway.wanted)
        except TunnelError as error:
            self._away(gateway, str(error))
            return
        now = self._clock()
        gateway.away_since = None
        if hostname != gateway.hostname:
            gateway.hostname, gateway.pause = hostname, FIRST_PAUSE_SECONDS
            hold = gateway.damper.hold(now)
            new = 0.0 if gateway.wanted else NEW_SECONDS
            gateway.due = now + max(hold, new)
            if hold > new:
                gateway.trouble = f"its name changes too often; {hostname} has to hold for {hold:.0f} s first"
            elif new:
                gateway.trouble = f"{hostname} is new, and is told once it may be known everywhere"
        if now >= gateway.due:
            self._bring_home(gateway)

    def sentence(self) -> str:
        """How it is."""
        troubles = [f"{gateway.name}: {how}" for gateway in self.gateways if (how := gateway.how)]
        if troubles:
            return "; ".join(troubles)
        if not self.gateways:
            return "No gateway of this machine has a way through the tunnel"
        hosts = sorted({gateway.told for gateway in self.gateways})
        names = ", ".join(gateway.name for gateway in self.gateways)
        return f"The app reaches {names} at {', '.join(f'https://{host}' for host in hosts)}"

    def _bring_home(self, gateway: Gateway) -> None:
        """Prove the way and tell the app of it. Pauses are counted from when it was over, which may be long after it began."""
        try:
            url = self._way.prove(gateway.hostname, gateway.name)
        except TunnelError as error:
            gateway.refused = isinstance(error, TokenRefused)
            gateway.put_off(self._clock(), str(error))
            if gateway.pause >= LONGEST_PAUSE_SECONDS:
                self._complain(gateway)
            return
        gateway.refused = False
        try:
            self._app.tell(gateway.name, url)
        except TunnelError as error:
            gateway.put_off(self._clock(), str(error))
            return
        gateway.told, gateway.trouble, gateway.complained = gateway.hostname, "", ""
        gateway.due, gateway.pause = self._clock() + AGAIN_SECONDS, FIRST_PAUSE_SECONDS

    def _away(self, gateway: Gateway, trouble: str) -> None:
        """There is no tunnel; what comes back is looked at at once."""
        now = self._clock()
        if gateway.away_since is None:
            gateway.away_since = now
        gateway.trouble, gateway.due = trouble, now
        if now - gateway.away_since >= GIVEN_UP_SECONDS:
            self._complain(gateway)

    def _complain(self, gateway: Gateway) -> None:
        """Have the app show why, once for each reason."""
        if gateway.complained == gateway.trouble or self._clock() < gateway.complain_due:
            return
        try:
            self._app.complain(gateway.name, gateway.trouble)
        except TunnelError:
            # It does not hear even that; what it was to be told is said when it does.
            pause = LONGEST_PAUSE_SECONDS * secrets.SystemRandom().uniform(0.5, 1)
            gateway.complain_due = self._clock() + pause
            return
        gateway.complained = gateway.trouble


class Restarts:
    """How often in a row it was started anew for a token in vain, as a file tells those who come after."""

    def __init__(self, place: Path) -> None:
        self._place = place
        try:
            self._count = min(int(place.read_text()), 10)
        except (OSError, ValueError):
            self._count = 0

    @property
    def old_enough(self) -> float:
        """After how many seconds it may be for another time."""
        return min(YOUNG_SECONDS * 2.0**self._count, LONGEST_YOUNG_SECONDS)

    def one_more(self) -> None:
        """Count it."""
        self._write(self._count + 1)

    def not_in_vain(self) -> None:
        """Begin anew."""
        if self._count:
            self._write(0)

    def _write(self, count: int) -> None:
        self._count = count
        # Without it nothing but the pause is lost.
        with contextlib.suppress(OSError):
            self._place.write_text(str(count))


def notify(text: str) -> None:
    """Tell systemd, if it listens."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.connect(f"\0{place[1:]}" if place.startswith("@") else place)
            line.send(text.encode())


def run(watch: Watch, restarts: Restarts, say: Callable[[str], None]) -> int:
    """Look for as long as one is let."""
    failed: list[BaseException] = []

    def keep_looking(gateway: Gateway) -> None:
        try:
            while True:
                watch.look(gateway)
                time.sleep(LOOK_SECONDS)
        except BaseException as error:
            failed.append(error)

    for gateway in watch.gateways:
        threading.Thread(target=keep_looking, args=(gateway,), daemon=True).start()
    began, said = time.monotonic(), ""
    while True:
        if failed:
            raise failed[0]
        if not watch.hung:
            notify("WATCHDOG=1")
        sentence = watch.sentence()
        if sentence != said:
            said = sentence
            say(said)
        if watch.settled:
            restarts.not_in_vain()
        if watch.stale and time.monotonic() - began > restarts.old_enough:
            restarts.one_more()
            say("A gateway does not take its token. Starting anew, to read it as it is now")
            return TOKEN_CHANGED
        time.sleep(LOOK_SECONDS)


def say(sentence: str) -> None:
    """To the journal and to `systemctl status`."""
    _LOG.info(sentence)
    notify(f"STATUS={sentence}")


def main(config_dir: str, tokens_dir: str) -> int:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    given = Path(os.environ["CREDENTIALS_DIRECTORY"])

    def of_gateway(name: str) -> str:
        return read_secret(Path(tokens_dir) / name)

    try:
        settings = Settings.load(config_dir)
        presented = secrets_in(given, of_gateway)
        way, app = Way(settings, presented), App(settings, presented)
    except TunnelError as error:
        say(str(error))
        return 1
    for left in Path(settings.proof_dir).glob("*"):
        left.unlink(missing_ok=True)
    gateways = [Gateway(name, hostname) for name, hostname in settings.hostnames.items()]
    restarts = Restarts(Path(settings.proof_dir).parent / "restarts")
    notify("READY=1")
    return run(Watch(gateways, Cloudflared(settings.metrics), way, app), restarts, say)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
