"""The first site of a bare machine: the power fails amid its packages, and its controller is killed at task after task.

Each run goes on where the one before was killed; what a module did there while nobody waited for it any more is in it too.
A sample of the tasks here; every one of them with `make soak`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clawbench import hosts
from clawbench.shell import docker

from .cut_short import Begun, killed_at_task_after_task
from .fleet import Fleet, until
from .kills import Say
from .second import COACH, GATEWAY, MACHINE, Second, second

pytestmark = pytest.mark.fire

SITE = ("playbooks/site.yml", "--limit", GATEWAY)


@pytest.fixture(scope="module")
def bare(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    """A machine with SSH and Python alone."""
    with second(fleet, tmp_path_factory.mktemp("second")) as bare:
        yield bare


@pytest.fixture(scope="module")
def cut(bare: Second) -> Second:
    """The machine after the power failed while its first packages were installed."""
    run = Begun(bare, [bare.place], *SITE)
    halfway = "dpkg-query -W -f '${db:Status-Status}\\n' | grep -qE 'unpacked|half|triggers'"
    try:
        until("packages to be halfway", lambda: bare.machine.run(halfway).rc == 0, 300)
        docker("kill", bare.bench.container(MACHINE))
    finally:
        run.kill()
    hosts.create(bare.bench, ["machine1", MACHINE], provider=True)
    assert bare.machine.run(halfway).rc == 0, "nothing was cut short"
    return bare


def test_a_first_site_is_made_good_that_was_cut_short_again_and_again(cut: Second, say: Say) -> None:
    if not killed_at_task_after_task("first site", cut, [cut.place], *SITE, say=say):
        return
    assert cut.done(*SITE).changed == []
    cut.done("playbooks/provision-coach.yml", "--limit", GATEWAY)
    assert cut.ask(COACH, "hello").status == 200
    for playbook in ("site", "provision-coach"):
        assert cut.done(f"playbooks/{playbook}.yml", "--limit", GATEWAY).changed == []
