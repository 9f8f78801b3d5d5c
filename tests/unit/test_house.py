"""The house's own rules, where a machine can check them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections" / "ansible_collections" / "claw" / "fleet"
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir() if path.is_dir())
TOOLS = Path(sys.executable).parent


def options_of(role: str) -> dict[str, Any]:
    """A role's documented options."""
    specs = yaml.safe_load((COLLECTION / "roles" / role / "meta" / "argument_specs.yml").read_text())
    options: dict[str, Any] = specs["argument_specs"]["main"]["options"]
    return options


@pytest.mark.parametrize("role", ROLES)
def test_documented_defaults_are_the_defaults(role: str) -> None:
    documented = {name: option["default"] for name, option in options_of(role).items() if "default" in option}
    file = COLLECTION / "roles" / role / "defaults" / "main.yml"
    actual = yaml.safe_load(file.read_text()) if file.is_file() else {}
    assert documented == actual


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_used(role: str) -> None:
    directory = COLLECTION / "roles" / role
    story = "".join(
        path.read_text()
        for part in ("tasks", "templates", "vars", "handlers", "defaults")
        for path in (directory / part).rglob("*")
        if path.is_file()
    )
    documented = set(options_of(role))
    defaults = (directory / "defaults" / "main.yml").read_text()
    unused = {
        name
        for name in documented
        if story.replace(f"\n{name}:", "").count(name) == 0 and f"{name}:" not in defaults
    }
    assert not unused


def ansible_doc(*words: str) -> dict[str, Any]:
    """What ansible-doc says, as data."""
    done = subprocess.run(
        [TOOLS / "ansible-doc", "--json", *words],
        cwd=ROOT,
        env={
            "PATH": f"{TOOLS}:/usr/bin:/bin",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "HOME": str(Path.home()),
        },
        text=True,
        capture_output=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["modules", "inventory"])
def test_ansible_doc_covers_every_plugin(kind: str) -> None:
    names = sorted(path.stem for path in (COLLECTION / "plugins" / kind).glob("*.py"))
    assert names
    kind_word = "module" if kind == "modules" else kind
    documented = ansible_doc("-t", kind_word, *(f"claw.fleet.{name}" for name in names))
    for name in names:
        page = documented[f"claw.fleet.{name}"]
        assert page["doc"]["short_description"]
        assert page["examples"]
        assert kind == "inventory" or page["return"]


def test_ansible_doc_covers_every_role() -> None:
    documented = ansible_doc("-t", "role", *(f"claw.fleet.{role}" for role in ROLES))
    assert set(documented) == {f"claw.fleet.{role}" for role in ROLES}


def test_no_room_is_too_long() -> None:
    long_plugins = {
        str(path.relative_to(ROOT)): lines
        for path in (COLLECTION / "plugins").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    long_tasks = {
        str(path.relative_to(ROOT)): lines
        for path in (COLLECTION / "roles").rglob("tasks/*.yml")
        if (lines := len(path.read_text().splitlines())) > 150
    }
    assert not long_plugins and not long_tasks
