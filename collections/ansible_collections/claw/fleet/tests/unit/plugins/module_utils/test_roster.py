# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roster's file while the gateway is stopped; what a running one does to it is tested with a real one."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._gateway import REDACTED
from ansible_collections.claw.fleet.plugins.module_utils._roster import Roster, RosterError, matches
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway, offline_gateway


@pytest.fixture
def gateway(tmp_path: Path) -> OfflineGateway:
    return offline_gateway(tmp_path)


def entry(gateway: OfflineGateway, name: str, **more: Any) -> dict[str, Any]:
    state = gateway.state_dir
    places = {"workspace": f"{state}/workspaces/{name}", "agentDir": f"{state}/agents/{name}/agent"}
    return {"name": name.title(), **places, **more}


def listing(directory: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def test_four_verbs(gateway: OfflineGateway) -> None:
    roster = Roster(gateway)
    wanted = {name: entry(gateway, name) for name in ("anna", "bert")}
    before = listing(gateway.config_dir)
    predicted = roster.apply(wanted, check=True)
    assert listing(gateway.config_dir) == before
    assert roster.apply(wanted) == predicted
    assert predicted == (True, {}, wanted, 0, False)
    assert json.loads(Path(gateway.roster).read_bytes()) == wanted
    for check in (False, True):
        assert roster.apply(wanted, check=check) == (False, wanted, wanted, 0, False)


def test_the_same_entries_in_other_words_are_no_change(gateway: OfflineGateway) -> None:
    wanted = {name: entry(gateway, name) for name in ("anna", "bert")}
    path = Path(gateway.roster)
    path.write_text(json.dumps(dict(reversed(wanted.items()))))
    path.chmod(0o640)
    before = path.read_bytes()
    assert Roster(gateway).apply(wanted).changed is False
    assert path.read_bytes() == before


def test_mode_is_kept_and_told(gateway: OfflineGateway) -> None:
    roster, path = Roster(gateway), Path(gateway.roster)
    assert roster.create(check=True) is True
    assert not path.exists()
    assert roster.create() is True
    assert roster.create() is False
    path.chmod(0o666)
    assert roster.apply({}, check=True).changed is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert roster.apply({}).changed is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert roster.apply({}).changed is False


def test_the_former_roster_is_kept(gateway: OfflineGateway) -> None:
    roster = Roster(gateway)
    roster.apply({"anna": entry(gateway, "anna")})
    first = Path(gateway.roster).read_bytes()
    roster.apply({})
    assert roster.previous.read_bytes() == first
    assert stat.S_IMODE(roster.previous.stat().st_mode) == stat.S_IMODE(roster.path.stat().st_mode) == 0o640


@pytest.mark.parametrize("content", [b"", b'{"anna": ', b"[]", b'{"anna": 1}', None])
def test_a_lost_or_broken_roster_is_never_an_empty_one(
    gateway: OfflineGateway, content: bytes | None
) -> None:
    roster, path = Roster(gateway), Path(gateway.roster)
    roster.apply({"anna": entry(gateway, "anna")})
    roster.apply({"anna": entry(gateway, "anna") | {"name": "Another"}})
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    before = listing(gateway.config_dir)
    for deed in (roster.entries, roster.create, lambda: roster.apply({})):
        if content is not None and deed == roster.create:
            continue
        with pytest.raises(RosterError, match="never taken for an empty one"):
            deed()
    assert listing(gateway.config_dir) == before


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("Anna", {}, "an agent's id is 'Anna'; it must be"),
        ("main", {}, "an agent's id is 'main', which the gateway keeps"),
        ("anna", {"tools": {}}, "has the keys"),
        ("anna", {"workspace": "/etc"}, "is not below"),
        ("anna", {"workspace": None}, "is not below"),
        ("bert", {"agentDir": "{state}/agents/carl/agent"}, "also that of"),
        ("anna", {"agentDir": "{state}/agents/../../x"}, "is not below"),
    ],
)
def test_what_the_fleet_must_not_write(
    gateway: OfflineGateway, name: str, change: dict[str, Any], reason: str
) -> None:
    bad = entry(gateway, name) | {
        key: value.format(state=gateway.state_dir) if isinstance(value, str) else value
        for key, value in change.items()
    }
    with pytest.raises(RosterError, match=reason):
        Roster(gateway).apply({"carl": entry(gateway, "carl"), name: bad})
    assert not Path(gateway.roster).exists()


def test_somebody_else_writing_starts_it_over(
    gateway: OfflineGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(gateway.roster)
    others = iter([b"{ }\n", b"{  }\n"])

    def meanwhile(self: OfflineGateway, **_files: Any) -> list[str]:
        content = next(others, None)
        if content:
            path.write_bytes(content)
        return []

    monkeypatch.setattr(OfflineGateway, "validate", meanwhile)
    wanted = {"anna": entry(gateway, "anna")}
    assert Roster(gateway).apply(wanted).after == wanted
    assert json.loads(path.read_bytes()) == wanted


def test_it_gives_up_after_three_times(gateway: OfflineGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(gateway.roster)

    count = itertools.count(1)

    def always(self: OfflineGateway, **_files: Any) -> list[str]:
        path.write_bytes(b"{}" + b" " * next(count))
        return []

    monkeypatch.setattr(OfflineGateway, "validate", always)
    with pytest.raises(RosterError, match="3 times in a row; nothing was written"):
        Roster(gateway).apply({"anna": entry(gateway, "anna")})
    assert json.loads(path.read_bytes()) == {}
    assert next(count) == 4


@pytest.mark.parametrize("lasting", [False, True])
def test_a_roster_that_may_not_last_is_put_back(
    gateway: OfflineGateway, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    """The disk takes the rename and then says that it could not write the directory."""
    roster, path = Roster(gateway), Path(gateway.roster)
    roster.apply({"anna": entry(gateway, "anna")})
    before = path.read_bytes()
    fsync, renamed = os.fsync, False

    def fail(descriptor: int) -> None:
        nonlocal renamed
        fsync(descriptor)
        if path.read_bytes() != before and (lasting or not renamed):
            renamed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    words = "could not be put back" if lasting else "was put back"
    with pytest.raises(RosterError, match=f"agents.json: Input/output error. The old roster {words}"):
        roster.apply({})
    assert renamed
    monkeypatch.undo()
    assert lasting or path.read_bytes() == before
    assert roster.apply({}).after == {}


def test_redacted_text_matches_any_text() -> None:
    redacted = REDACTED
    assert matches({"a": {"b": ["x", 1]}}, {"a": {"b": [redacted, 1]}})
    assert not matches({"a": 1}, {"a": redacted})
    assert not matches({"a": "x"}, {"a": redacted, "b": "y"})
    assert not matches(["x"], ["x", "y"])
    assert not matches({"a": "x"}, redacted)
