"""What the reconciler's control node installs is what the whole project is tested with."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "collections" / "ansible_collections" / "claw" / "fleet" / "roles" / "reconciler"

Pins = dict[str, set[tuple[str, frozenset[str]]]]


def pins(path: Path) -> Pins:
    """What a lock file pins: by name, the versions and their hashes."""
    found: Pins = {}
    for entry in re.split(r"\n(?=\S)", path.read_text()):
        requirement = re.match(r"([a-z0-9-]+)==(\S+)", entry)
        assert requirement, entry
        hashes = frozenset(re.findall(r"--hash=(\S+)", entry))
        assert hashes, entry
        found.setdefault(requirement[1], set()).add((requirement[2], hashes))
    return found


def test_every_pin_is_one_of_the_projects() -> None:
    role, project = pins(ROLE / "files" / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert {name: project.get(name) for name in role} == role


def test_ansible_core_is_pinned_with_all_it_needs_and_nothing_else() -> None:
    needed: set[str] = set()
    waiting = ["ansible-core"]
    while waiting:
        name = waiting.pop().lower()
        if name not in needed:
            needed.add(name)
            found = map(Requirement, requires(name) or [])
            waiting += [
                each.name for each in found if each.marker is None or each.marker.evaluate({"extra": ""})
            ]
    assert set(pins(ROLE / "files" / "requirements.lock")) == needed
