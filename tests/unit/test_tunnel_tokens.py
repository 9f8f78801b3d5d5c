"""What the tunnel's watcher is given of the gateways' tokens, and what a gateway that was taken over makes of it."""

from __future__ import annotations

import grp
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COLLECTION = Path(__file__).resolve().parents[2] / "collections/ansible_collections/claw/fleet"


@pytest.fixture
def give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Run it for the gateways of tmp_path/gateways.d; what there is then, by name."""
    for part in ("roles/tunnel/files/tokens.py", "plugins/module_utils/_durable.py"):
        shutil.copy(COLLECTION / part, tmp_path)
    (tmp_path / "gateways.d").mkdir()
    monkeypatch.setattr(os, "chown", lambda *_given: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    group = grp.getgrgid(os.getgid()).gr_name

    def run() -> dict[str, str]:
        program = runpy.run_path(str(tmp_path / "tokens.py"))
        # The states are the test's own, and so is whoever owns what is written.
        program["main"].__globals__.update(STATES=tmp_path, Owner=lambda _uid, gid: (os.getuid(), gid))
        program["main"](tmp_path, tmp_path / "given", group)
        return {place.name: place.read_text() for place in (tmp_path / "given").iterdir()}

    return run


def gateway(place: Path, name: str, token: str) -> Path:
    (place / "gateways.d" / f"{name}.json").write_text("{}")
    (place / name).mkdir()
    (place / name / "token").write_text(token)
    return place / name / "token"


def test_each_token_is_given_and_none_of_whoever_left(
    tmp_path: Path, give: Callable[[], dict[str, str]]
) -> None:
    gateway(tmp_path, "gw-a", "a")
    gateway(tmp_path, "gw-b", "b")
    assert give() == {"gw-a": "a", "gw-b": "b"}
    assert {(tmp_path / "given" / name).stat().st_mode & 0o777 for name in ("gw-a", "gw-b")} == {0o640}
    (tmp_path / "gateways.d/gw-b.json").unlink()
    assert give() == {"gw-a": "a"}


@pytest.mark.parametrize("plant", [os.symlink, os.link, lambda _secret, token: os.mkfifo(token)])
def test_a_gateway_is_not_told_what_it_leads_to(
    tmp_path: Path, give: Callable[[], dict[str, str]], plant: Callable[[Path, Path], None]
) -> None:
    secret = gateway(tmp_path, "gw-b", "a-secret")
    token = gateway(tmp_path, "gw-a", "a")
    give()
    token.unlink()
    plant(secret, token)
    assert "gw-a" not in give()
