# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first turn of an agent: proof that it answers, model and all, and not only that it is in the roster.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _coach, _durable
from ansible_collections.claw.fleet.plugins.module_utils._coach import Row
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    Gateway,
    GatewayError,
    GatewayRefused,
    GatewayUnreachable,
)
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest

_SESSION = "activation"
_STEP = "activation"
_SHOWN = 200
_PAUSES = (2, 5, 10)
"""Seconds before a first turn that a gateway has failed is taken once more."""
_ITS_OWN = (500, 503)


class Outcome(NamedTuple):
    """The rows as ``results``, and whether any agent took a turn, or would."""

    results: list[Row]
    changed: bool


class Activation:
    """The first turns of one gateway's agents."""

    def __init__(
        self, gateway: Gateway, *, text: str, expect: str | None, timeout: float, parallel: int
    ) -> None:
        """``text``: what the agent is told; ``expect``: what its answer must contain, None for anything but
        nothing; ``timeout``: seconds for each turn; ``parallel``: how many turns at a time."""
        self._gateway = gateway
        self._text = text
        self._expect = expect
        self._timeout = timeout
        self._parallel = parallel

    def run(self, rows: list[Row], *, check: bool = False) -> Outcome:
        """Give their first turn to the agents that are to run, are not active and have never answered."""
        rows = [dict(row) for row in _coach.check_rows(rows)]
        answered = Manifest(self._gateway).activated
        due = [row for row in rows if is_due(row, answered)]
        if not check and due:
            self._gateway.wait_ready(self._timeout)
            with ThreadPoolExecutor(self._parallel) as pool:
                for _done in pool.map(self._turn, due):
                    pass
            self._remember({row["agent_id"] for row in due if not _coach.has_error(row)})
        for row in due:
            if not _coach.has_error(row):
                row["actions"] = [*(row.get("actions") or []), "took its first turn"]
        return Outcome(rows, bool(due))

    def _turn(self, row: Row) -> None:
        try:
            answer = self._say(row["agent_id"])
        except GatewayError as error:
            row["error"] = _coach.error(_STEP, f"{error}; look at journalctl -u {self._gateway.unit}")
            return
        if not answer.strip():
            reason = f"{row['agent_id']} answered its first turn with nothing; check the model of its gateway"
            row["error"] = _coach.error(_STEP, reason)
        elif self._expect is not None and self._expect not in answer:
            shown = _coach.shown(answer[:_SHOWN])
            reason = (
                f"{row['agent_id']} did not answer with {self._expect!r} in its first turn but with {shown}"
            )
            row["error"] = _coach.error(_STEP, reason)

    def _say(self, agent_id: str) -> str:
        # A busy gateway has been seen to fail a turn over a lock of its own, and to have it again after some seconds.
        for pause in _PAUSES:
            try:
                return self._gateway.turn(agent_id, self._text, _SESSION, self._timeout)
            except GatewayRefused as error:
                # 502 is what its provider of models said, after the gateway has asked that again and again.
                if error.status not in _ITS_OWN:
                    raise
                time.sleep(pause)
            except GatewayUnreachable as error:
                # A turn that took too long would take it again. Otherwise the process has ended, as over want of memory,
                # and where it comes back those who are still to speak need not wait for another run.
                if isinstance(error.__cause__, TimeoutError):
                    raise
                time.sleep(pause)
                self._gateway.wait_ready(self._timeout)
        return self._gateway.turn(agent_id, self._text, _SESSION, self._timeout)

    def _remember(self, answered: set[str]) -> None:
        with _durable.lock(self._gateway.lock_path):
            manifest = Manifest(self._gateway)
            manifest.activated |= answered
            manifest.save()


def is_due(row: Row, answered: set[str]) -> bool:
    """Whether a checked row's agent is to take its first turn.

    One that answered before, in this life of the agent, need not answer again, whatever happened to it since:
    after a pause or an error the roster's own proof is enough.
    """
    return (
        not _coach.has_error(row)
        and row["wanted"] == "running"
        and row["status"] != "active"
        and row["agent_id"] not in answered
    )
