"""A machine of one's own, by the inventory that is there for it: an address and a key, straight or through another machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clawbench.shell import cache_dir

from .fleet import ROOT, Fleet, Play
from .second import beside

BARE, GATEWAY = "bare", "gw-a"
READY = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:18789/readyz', timeout=20).status)"

pytestmark = pytest.mark.fire


class Bare(Fleet):
    """A machine with SSH and Python alone, and who makes a gateway of it."""

    def site(self, config: Path, place: Path, *words: str) -> Play:
        """Run the play as an operator with that inventory does; only that models are the stand-in's."""
        return self.play(
            "playbooks/site.yml",
            *words,
            inventory=[ROOT / "inventories" / "bare-metal"],
            environment={"ANTHROPIC_API_KEY": "nobody's"},
            ansible_host=BARE,
            ansible_ssh_private_key_file=str(self.state / "id_ed25519"),
            ansible_ssh_common_args=f"-F {config}",
            # Of a way of its own, as one that is open goes on.
            ansible_control_path_dir=str(place),
            # OpenClaw's tree as the demo has it already.
            gateway_install_from="controller",
            gateway_controller_npm=str(Path(sys.executable).parent / "npm"),
            gateway_build_dir=str(cache_dir() / "openclaw"),
            **json.loads((self.state / "providers.json").read_text()),
        )


@pytest.fixture(scope="module")
def bare(fleet: Fleet) -> Iterator[Bare]:
    """It is there, and taken away afterwards."""
    with beside(fleet, BARE, engine=True):
        yield Bare(fleet.state, BARE)


def test_through_another_machine_it_becomes_one_with_a_gateway(bare: Bare, tmp_path: Path) -> None:
    config, straight = tmp_path / "ssh_config", bare.bench.ssh_config
    config.write_text(
        f"Match originalhost {BARE}\n  ProxyCommand ssh -F {straight} -W %h:%p machine1\nMatch all\nInclude {straight}\n"
    )
    cursor = bare.sh("journalctl -n 0 --show-cursor").partition("cursor: ")[2].strip()
    play = bare.site(config, tmp_path / "cp")
    assert play.rc == 0, play.output
    accepted = bare.sh(f"journalctl -u ssh --after-cursor '{cursor}' -o cat --grep '^Accepted'").splitlines()
    by_whom = {line.split(" from ")[1].split()[0] for line in accepted}
    assert by_whom == {bare.bench.facts()["hosts"]["machine1"]}
    assert bare.sh(f"systemctl is-active openclaw-gateway@{GATEWAY}").strip() == "active"
    assert bare.machine.check_output("python3 -c %s", READY) == "200"


def test_straight_there_is_nothing_left_to_do(bare: Bare, tmp_path: Path) -> None:
    for words in ((), ("--check",)):
        play = bare.site(bare.bench.ssh_config, tmp_path / "cp", *words)
        assert (play.rc, play.changed) == (0, []), play.output
