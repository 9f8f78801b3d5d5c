"""Two machines, of which the first builds the image of sandboxes for both: `sandbox_build: once`, as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .fleet import Fleet, Play
from .sandboxes import REBUILD, Sandboxes
from .second import COACH, GATEWAY, Second, second

pytestmark = pytest.mark.fire

FIRST = "gw-a"


@pytest.fixture(scope="module")
def other(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    """The machine that does not build."""
    with second(fleet, tmp_path_factory.mktemp("second"), engine=True) as other:
        yield other


def both(other: Second, playbook: str, *arguments: str, **extra: Any) -> Play:
    """Run a playbook for a gateway of each machine."""
    return other.done(playbook, "--limit", f"{FIRST},{GATEWAY}", *arguments, sandbox_build="once", **extra)


def test_the_first_machine_builds_and_the_other_gets_it(fleet: Fleet, other: Second) -> None:
    both(other, "playbooks/site.yml")
    assert other.sh("docker image ls --quiet claw-sandbox-base") == "", "it has built one itself"
    (image,) = Sandboxes(other).images().items()
    assert image in Sandboxes(fleet).images().items()
    assert both(other, "playbooks/site.yml").changed == []
    both(other, "playbooks/provision-coach.yml")
    other.orm(
        f"CompanionProfile.objects.get(agent_id={COACH!r}).clients.get_or_create(name='A client of Erik')"
    )
    assert Sandboxes(other).clients(COACH) == ["A client of Erik"]


def test_another_document_is_another_image_on_both(fleet: Fleet, other: Second, tmp_path: Path) -> None:
    built, shipped = Sandboxes(fleet), Sandboxes(other)
    before = shipped.images()
    document = str(built.document(tmp_path, weather=True))
    predicted = both(other, REBUILD, "--check", sandbox_openapi=document)
    assert shipped.images() == before
    done = both(other, REBUILD, sandbox_openapi=document)
    assert sorted(done.changed) == sorted(predicted.changed)
    (new,) = shipped.images().keys() - before.keys()
    assert shipped.images()[new] == built.images()[new]
    assert "show" in shipped.execute(COACH, "journeyloop weather --help")
    assert both(other, REBUILD, sandbox_openapi=document).changed == []
    both(other, REBUILD)
