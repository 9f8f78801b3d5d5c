# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The coaches' keys on a gateway's machine, which is the only place where they are whole.

PRIVATE to claw.fleet: may change at any time.

A key comes to be in three steps: written as pending, its hash registered in Django by the controller, then
promoted. A pending key that a crash has left is adopted by the next run, so a retry never makes another key,
and at every moment either the old key still counts or the new one is on disk.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _coach, _durable
from ansible_collections.claw.fleet.plugins.module_utils._coach import Row
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway

FINAL = ".credentials.json"
PENDING = ".credentials.json.pending"
_KEY_PREFIX = "cfk_"
_STEP = "key"


@dataclass(frozen=True)
class Credentials:
    """What an agent's command line reads: whose key, the key, the API it opens, its id and generation."""

    agent_id: str
    api_key: str
    api_url: str
    key_id: str
    key_generation: int

    @classmethod
    def make(cls, agent_id: str, api_url: str, generation: int) -> Credentials:
        """A new key."""
        key = _KEY_PREFIX + secrets.token_urlsafe(32)
        return cls(agent_id, key, api_url, secrets.token_hex(6), generation)

    @property
    def sha256(self) -> str:
        """The hash that Django compares by, as hexadecimal digits."""
        return hashlib.sha256(self.api_key.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<Credentials {self.key_id} of {self.agent_id}>"


class Keys:
    """The keys of one gateway's coaches."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._state = Path(gateway.state_dir)

    def prepare(
        self,
        rows: list[Row],
        *,
        state: str,
        api_url: str,
        rotate: Collection[str] = (),
        reveal: bool = False,
        check: bool = False,
    ) -> tuple[list[Row], bool]:
        """The rows, each with what is to be done about its key in ``row["key"]``, or with "error"; and whether
        any file was changed, or would be.

        ``state``: present, rotated or absent; the key of a coach who is wanted removed is always to be absent.
        ``rotate``: ids of those who get a new key with present too.
        "key" holds ``need``: "register", "promote", "revoke", or "" for nothing; ``key_id``, ``key_sha256``,
        ``key_generation`` of the key that will count, "" where check mode would make a new one; ``pending``:
        whether it is yet to be promoted; ``made``: whether it is new; ``right``: what was set right about a key
        that stays; and with ``reveal`` the key itself as ``plaintext``, where Django does not know it yet.
        Outside check mode new keys are pending afterwards.
        """
        results = []
        with nullcontext() if check else _durable.lock(self.gateway.lock_path), self._as_gateway():
            for row in rows:
                result = dict(row)
                if not _coach.has_error(row):
                    try:
                        if state == "absent" or row["wanted"] == "removed":
                            result["key"] = self._absent(row)
                        else:
                            anew = state == "rotated" or row["agent_id"] in rotate
                            result["key"] = self._present(row, anew, api_url, reveal, check)
                    except _durable.DurableError as error:
                        result["error"] = _coach.error(_STEP, str(error))
                results.append(result)
        keys = [result["key"] for result in results if "key" in result]
        return results, any(key.get("made") or key.get("right") for key in keys)

    def are_settled(self, rows: list[Row], api_url: str) -> bool:
        """Whether `prepare` would have nothing to do and nothing to ask of Django."""
        found, changed = self.prepare(rows, state="present", api_url=api_url, check=True)
        return not changed and not any(_coach.has_error(row) or row["key"]["need"] for row in found)

    def conclude(self, registered: Mapping[str, str], revoked: list[str]) -> dict[str, str]:
        """After Django has agreed: promote keys, {agent id: key id}, and remove those of the revoked.

        Returns the sentence of what went wrong by agent id.
        """
        wrong: dict[str, str] = {}
        with _durable.lock(self.gateway.lock_path), self._as_gateway():
            for agent_id, key_id in registered.items():
                with _noting(wrong, agent_id):
                    self._promote(agent_id, key_id)
            for agent_id in revoked:
                with _noting(wrong, agent_id):
                    for name in (PENDING, FINAL):
                        _durable.remove(self._path(agent_id, name), root=self._state)
        return wrong

    @contextmanager
    def _as_gateway(self) -> Iterator[None]:
        with _durable.as_user(*self.gateway.owner):
            yield

    def _absent(self, row: Row) -> dict[str, Any]:
        files = (
            _durable.inspect(self._path(row["agent_id"], name), self._state) for name in (FINAL, PENDING)
        )
        there = bool(row["key_sha256"]) or any(file is not None for file in files)
        return {"need": "revoke" if there else "", "key_id": "", "key_sha256": "", "key_generation": 0}

    def _present(self, row: Row, rotate: bool, api_url: str, reveal: bool, check: bool) -> dict[str, Any]:
        agent_id, wanted = row["agent_id"], row["key_wanted_generation"]
        final, pending = self._read(agent_id, FINAL), self._read(agent_id, PENDING)
        if pending is not None and pending.key_generation >= wanted:
            return self._told(row, pending, "promote", reveal)
        if final is not None and final.key_generation >= wanted and not rotate:
            told = self._told(row, final, "", reveal)
            return told | {"right": self._set_right(final, api_url, check)}
        made = Credentials.make(agent_id, api_url, wanted)
        if not check:
            self._write(made, PENDING)
        told = self._told(row, made, "promote", reveal) | {"made": True}
        return told | ({"key_id": "", "key_sha256": "", "plaintext": None} if check else {})

    def _told(self, row: Row, key: Credentials, rest: str, reveal: bool) -> dict[str, Any]:
        """What is to be done so that this key counts; ``rest``: what remains where Django knows it."""
        known = row["key_sha256"] == key.sha256 and row["key_generation"] >= key.key_generation
        return {
            "need": rest if known else "register",
            "pending": rest == "promote",
            "made": False,
            "key_id": key.key_id,
            "key_sha256": key.sha256,
            "key_generation": key.key_generation,
            "plaintext": key.api_key if reveal and not known else None,
        }

    def _set_right(self, final: Credentials, api_url: str, check: bool) -> list[str]:
        """Set the URL, mode and owner of a key that stays; what was wrong."""
        path, owner = self._path(final.agent_id, FINAL), self.gateway.owner
        wrong = ["api_url"] if final.api_url != api_url else []
        for place, mode in ((path.parent, 0o700), (path, 0o600)):
            found = _durable.inspect(place, self._state)
            if found is not None and (found.mode, found.owner) != (mode, owner):
                wrong.append(f"mode of {place.name}")
        if wrong and not check:
            self._write(replace(final, api_url=api_url), FINAL)
        return wrong

    def _promote(self, agent_id: str, key_id: str) -> None:
        pending = self._read(agent_id, PENDING)
        if pending is not None and pending.key_id == key_id:
            final = self._path(agent_id, FINAL)
            _durable.move(self._path(agent_id, PENDING), final, root=self._state, replace=True)
            return
        final_key = self._read(agent_id, FINAL)
        if final_key is None or final_key.key_id != key_id:
            raise _durable.DurableError(
                f"the key {key_id} of {agent_id} was registered, but another run has made another one; run again"
            )

    def _read(self, agent_id: str, name: str) -> Credentials | None:
        path = self._path(agent_id, name)
        data = _durable.read(path, root=self._state)
        if data is None:
            return None
        with suppress(ValueError, TypeError):
            found = Credentials(**json.loads(data))
            if found.agent_id == agent_id and isinstance(found.key_generation, int) and found.api_key:
                return found
        raise _durable.DurableError(
            f"{path} does not hold the credentials of {agent_id}; move it away and run again for a new key"
        )

    def _write(self, credentials: Credentials, name: str) -> None:
        path = self._path(credentials.agent_id, name)
        data = (json.dumps(asdict(credentials), indent=1) + "\n").encode()
        owner = self.gateway.owner
        _durable.make_dir(path.parent, mode=0o700, owner=owner, root=self._state)
        _durable.write(path, data, mode=0o600, owner=owner, root=self._state)

    def _path(self, agent_id: str, name: str) -> Path:
        return self._state / "credentials" / agent_id / name


@contextmanager
def _noting(wrong: dict[str, str], agent_id: str) -> Iterator[None]:
    try:
        yield
    except _durable.DurableError as error:
        wrong[agent_id] = str(error)
