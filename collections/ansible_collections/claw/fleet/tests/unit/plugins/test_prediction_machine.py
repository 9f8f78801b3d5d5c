# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As test_prediction.py, of what is made on machines and in their engines: whatever is wished in whatever order, a check
writes nothing and says exactly what a run then does, and after that there is nothing to do.

The modules themselves are run. What they have others do is done here by somebody who only remembers: usermod, npm, pip,
engines. That the real ones do what these do is for the scenarios to show.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible_collections.claw.fleet.plugins.action import openclaw_tree as ship_tree
from ansible_collections.claw.fleet.plugins.action import reconciler_runtime as ship_runtime
from ansible_collections.claw.fleet.plugins.action import sandbox_image as ship_image
from ansible_collections.claw.fleet.plugins.action import sandbox_image_copy as ship_copy
from ansible_collections.claw.fleet.plugins.module_utils import (
    _agent_sandbox,
    _command,
    _engine,
    _sandbox,
    _sandbox_network,
)
from ansible_collections.claw.fleet.plugins.module_utils._former import FormerGateway
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._image import INPUTS, tag_of
from ansible_collections.claw.fleet.plugins.module_utils._roster import Roster
from ansible_collections.claw.fleet.plugins.module_utils._subordinate_ids import FIRST, LAST, parse
from ansible_collections.claw.fleet.plugins.modules import (
    agent_adoption,
    agent_sandbox,
    openclaw_tree,
    reconciler_runtime,
    sandbox_image,
    sandbox_image_copy,
    sandbox_network,
    subordinate_ids,
    tunnel_token_file,
)
from ansible_collections.claw.fleet.tests.unit.plugins.image_engine import Image, ImageEngine
from ansible_collections.claw.fleet.tests.unit.plugins.module_utils.test_adoption import API, Machine
from ansible_collections.claw.fleet.tests.unit.plugins.module_utils.test_agent_sandbox import (
    Engine as ContainerEngine,
)
from ansible_collections.claw.fleet.tests.unit.plugins.module_utils.test_agent_sandbox import run_it
from ansible_collections.claw.fleet.tests.unit.plugins.module_utils.test_subordinate_ids import usermod_of
from ansible_collections.claw.fleet.tests.unit.plugins.module_utils.test_tree import Bench, small_lock
from ansible_collections.claw.fleet.tests.unit.plugins.modules.test_sandbox_network import ROUTES
from ansible_collections.claw.fleet.tests.unit.plugins.modules.test_sandbox_network import (
    Engine as NetworkEngine,
)
from ansible_collections.claw.fleet.tests.unit.plugins.offline import A_SANDBOX
from ansible_collections.claw.fleet.tests.unit.plugins.prediction import (
    Result,
    below,
    four_times,
    fresh_gateway,
    fresh_place,
    nothing_to_do,
    on_disk,
    on_this_machine,
    run_module,
    without,
)
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow


# The ids of a user's containers

MANY = 65536
SOMEBODYS = {
    "somebody has ids": f"other:{FIRST + MANY}:{MANY}\n",
    "somebody has the last ids": f"other:{LAST - 9}:10\n",
    "a line is none": "claw-a:x:y\n",
}
IDS = st.tuples(
    st.sampled_from(["claw-a", "claw-b", "other"]),
    st.sampled_from([MANY, MANY, 2 * MANY]),
    st.sampled_from(["nothing", "nothing", "the file is removed", "the last line is removed", *SOMEBODYS]),
    st.sampled_from(["subuid", "subgid"]),
)


@settings(max_examples=40)
@given(st.lists(IDS, min_size=1, max_size=6))
def test_subordinate_ids(steps: list[tuple[str, int, str, str]]) -> None:
    with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
        usermod_of(place, patch)
        for user, number, hands, name in steps:
            file = place / name
            if hands in SOMEBODYS:
                with file.open("a") as text:
                    text.write(SOMEBODYS[hands])
            elif hands == "the file is removed":
                file.unlink(missing_ok=True)
            elif hands == "the last line is removed" and file.exists():
                file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))

            def run(check: bool, user: str = user, number: int = number) -> Result:
                (place / "lock").unlink(missing_ok=True)
                told = run_module(subordinate_ids, {"user": user, "count": number}, check)
                assert (place / "lock").exists() is not check
                return told

            done = four_times(run, lambda: below(place))
            for kind in ("subuid", "subgid"):
                ranges = parse((place / kind).read_text()) if (place / kind).exists() else []
                given_to = any(one.owner == user and one.size >= number for one in ranges)
                assert given_to or "failed" in done


# The file of a tunnel's token

RENEWALS = st.tuples(
    st.sampled_from(["", "", "the one that is there", "another"]),
    st.sampled_from(["nothing", "nothing", "it is removed", "it is emptied", "a gateway has a way"]),
)


@settings(max_examples=40)
@given(st.lists(RENEWALS, min_size=1, max_size=6))
def test_tunnel_token_file(steps: list[tuple[str, str]]) -> None:
    with fresh_place() as place:
        directory = place / "tunnel"
        token = directory / "token"
        for renewed, hands in steps:
            if directory.exists():
                if hands == "it is removed":
                    token.unlink(missing_ok=True)
                elif hands == "it is emptied":
                    token.write_text("\n")
                elif hands == "a gateway has a way":
                    (directory / "gateways.d" / "gw-a.json").write_text("{}")
            there = token.read_text().strip() if token.exists() else ""
            digest = hashlib.sha256((there if renewed != "another" else "x").encode()).hexdigest()
            options = {"tunnel_dir": str(directory), "renew": digest if renewed else ""}
            done = four_times(
                lambda check, options=options: run_module(tunnel_token_file, options, check),
                lambda: below(place),
                # What is yet to be made has no hash.
                alike=lambda told: without("token_sha256")(told) if told["changed"] else told,
                between=lambda: (directory / "gateways.d").mkdir(parents=True, exist_ok=True),
            )
            assert done["changed"] is (not there or renewed == "the one that is there")
            assert done["token_sha256"] == hashlib.sha256(token.read_text().strip().encode()).hexdigest()


# The network of sandboxes

BRIDGE = "com.docker.network.bridge."
NETWORKS = st.tuples(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["claw-sandbox", "claw-sandbox", "claw"]),
            "bridge": st.sampled_from(["clw0", "clw0", "clw1"]),
            "subnet": st.sampled_from(
                ["172.29.240.0/22", "172.29.240.0/23", "10.1.0.0/24", "10.0.2.0/24", "9.9.9.0/24"]
            ),
        }
    ),
    st.sampled_from(
        [
            "nothing",
            "nothing",
            "it is opened",
            "its options are lost",
            "a container is attached",
            "containers are gone",
            "it is removed",
            "another has the subnet",
            "another has the name",
        ]
    ),
)


@settings(max_examples=60)
@given(st.lists(NETWORKS, min_size=1, max_size=6))
def test_sandbox_network(steps: list[tuple[dict[str, str], str]]) -> None:
    with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
        engine = NetworkEngine()
        (place / "route").write_text(ROUTES)
        patch.setattr(_engine, "connect", lambda _where: engine)
        patch.setattr(_engine, "SDK_MISSING", None)
        patch.setattr(_sandbox_network, "ROUTES", place / "route")
        for wanted, hands in steps:
            lay_hands_on_network(engine, hands)
            done = four_times(
                lambda check, wanted=wanted: run_module(sandbox_network, wanted, check),
                lambda: [(it.id, it.name, json.dumps(it.attrs)) for it in engine.there],
                # What is yet to be made has no id.
                alike=lambda told: without("id")(told) if told.get("changed") else told,
            )
            if "failed" not in done:
                assert done["id"] in [it.id for it in engine.there if it.name == wanted["name"]]


def lay_hands_on_network(engine: NetworkEngine, what: str) -> None:
    if what == "containers are gone":
        engine.attached.clear()
    if not engine.there:
        return
    network = engine.there[-1]
    if what == "it is opened":
        network.attrs["Internal"] = False
    elif what == "its options are lost":
        network.attrs["Options"] = None
    elif what == "a container is attached":
        engine.attached[network.id] = ["one"]
    elif what == "it is removed":
        network.remove()
    elif what == "another has the subnet":
        engine.other("theirs", "10.1.0.0/16", bridge="br-theirs")
    elif what == "another has the name":
        engine.other("claw", "10.7.0.0/24", bridge="br-other")


# The image of sandboxes

DOCUMENT = {
    "openapi": "3.0.3",
    "info": {"title": "App", "version": "1"},
    "paths": {"/notes/": {"get": {"operationId": "notes_list", "tags": ["notes"], "responses": {}}}},
}
IMAGE_HANDS = (
    "nothing",
    "nothing",
    "the newest is used",
    "the oldest is used",
    "containers are gone",
    "the newest is removed",
    "a build is killed",
)
IMAGES = st.tuples(
    st.sampled_from(["1", "2", "3"]),
    st.fixed_dictionaries(
        {"keep": st.integers(0, 2), "command": st.sampled_from(["app", "app", "journeyloop"])}
    ),
    st.sampled_from(IMAGE_HANDS),
)


def lay_hands_on_images(engine: ImageEngine, what: str) -> None:
    named = [image for image in engine.all if image.tags]
    if what == "containers are gone":
        engine.used.clear()
    elif what == "a build is killed":
        Image(engine, {INPUTS: "{}"})
    elif what == "the newest is removed" and named and named[-1].id not in engine.used:
        engine.all.remove(named[-1])
    elif what in ("the newest is used", "the oldest is used") and named:
        engine.used.append(named[0 if "oldest" in what else -1].id)


def named_images(engine: ImageEngine) -> list[Any]:
    """Those that have a name; what an earlier build or a copy left without one is cleared with the next."""
    return [image for image in engine.seen() if image[1]]


def test_sandbox_image() -> None:
    errors = pytest.importorskip("docker.errors")

    @settings(max_examples=40)
    @given(st.lists(IMAGES, min_size=1, max_size=6))
    def holds(steps: list[tuple[str, dict[str, Any], str]]) -> None:
        with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
            engine = ImageEngine(errors.ImageNotFound)
            patch.setattr(_engine, "connect", lambda _where: engine)
            patch.setattr(ship_image, "_generator", lambda: "1")
            # What the generator makes of a document is in the tests of the command line.
            patch.setattr(ship_image.cli, "make", lambda *given: (given[-1] / "coachcli").mkdir())
            action = on_this_machine(ship_image.ActionModule, sandbox_image)
            base = {"image": f"debian@sha256:{'0' * 64}"}
            for version, options, hands in steps:
                lay_hands_on_images(engine, hands)
                document = {**DOCUMENT, "info": {"title": "App", "version": version}}
                (place / "openapi.json").write_text(json.dumps(document))
                given = {"openapi": str(place / "openapi.json"), "base": base, **options}
                # What is yet to be built has no id, and is not there.
                done = four_times(
                    lambda check, given=given: run_action(action, given, check_mode=check),
                    lambda: named_images(engine),
                    alike=lambda told: without("id", "present")(told) if told["differs"] else told,
                )
                assert done["present"] and done["image"] in engine.get(done["id"]).tags

    holds()


COPIES = st.tuples(
    st.sampled_from(["1", "2", "3"]),
    st.integers(0, 2),
    st.sampled_from(["another machine", "another engine of the machine"]),
    st.sampled_from([*IMAGE_HANDS, "it was built here before", "the builder lost it"]),
)


def test_sandbox_image_copy() -> None:
    errors = pytest.importorskip("docker.errors")

    @settings(max_examples=40)
    @given(st.lists(COPIES, min_size=1, max_size=6))
    def holds(steps: list[tuple[str, int, str, str]]) -> None:
        with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
            builder, engine = (ImageEngine(errors.ImageNotFound) for _both in range(2))
            patch.setattr(_engine, "connect", {"unix:///builder": builder, "unix:///here": engine}.get)
            for version, keep, origin, hands in steps:
                lay_hands_on_images(engine, hands)
                inputs = {"document": version}
                image = f"claw-sandbox:{tag_of(inputs)}"
                if hands == "it was built here before":
                    built(engine, inputs)
                if hands == "the builder lost it":
                    builder.all.clear()
                # The controller keeps images for one run of Ansible.
                patch.setattr(constants, "DEFAULT_LOCAL_TMP", str(place / str(len(list(place.iterdir())))))
                Path(constants.DEFAULT_LOCAL_TMP).mkdir()
                one_copy(builder, engine, inputs, image, keep, origin)

    holds()


def built(engine: ImageEngine, inputs: dict[str, str]) -> Image:
    made = Image(engine, {INPUTS: json.dumps(inputs)})
    made.tag("claw-sandbox", tag_of(inputs))
    return made


def one_copy(
    builder: ImageEngine, engine: ImageEngine, inputs: dict[str, str], image: str, keep: int, origin: str
) -> None:
    action = on_this_machine(ship_copy.ActionModule, sandbox_image_copy)

    def original() -> str:
        return next((it.id for it in builder.all if image in it.tags), "")

    def saved(check: bool) -> Result:
        given = {"image": image, "id": original(), "state": "saved", "docker_host": "unix:///builder"}
        return run_action(action, given, check_mode=check)

    def loaded(check: bool) -> Result:
        given = {"image": image, "state": "loaded", "keep": keep, "docker_host": "unix:///here"}
        of = {"id": original()} if origin == "another machine" else {"source": "unix:///builder"}
        return run_action(action, {**given, **of}, check_mode=check)

    def before_it() -> None:
        if not original():
            built(builder, inputs)
        if origin == "another machine":
            assert saved(False)["changed"] is False

    seen = builder.seen()
    assert saved(True)["changed"] is False
    assert (builder.seen(), list(Path(constants.DEFAULT_LOCAL_TMP).iterdir())) == (seen, [])
    # What is yet to be copied is not there.
    four_times(
        loaded,
        lambda: named_images(engine),
        alike=lambda told: (told["changed"], told["removed"]),
        between=before_it,
    )
    assert engine.get(image).id == original()


# The sandboxes of a gateway's agents

ANNA, BEN = "coach-anna", "coach-ben"
SANDBOX_HANDS = (
    "nothing",
    "an agent is added",
    "an agent is removed",
    "one has an old container",
    "a container is gone",
    "the descriptor is removed",
    "the descriptor is edited",
    "the roster's mode is changed",
    "the image is gone",
)
SANDBOXES = st.tuples(
    # None: as before, so that there is nothing to do but for what somebody's hands did.
    st.none()
    | st.sampled_from(
        [{}, {"image": "claw-sandbox:2"}, {"memory": "1g", "tools": ["exec"]}, {"state": "absent"}]
    ),
    st.sampled_from(SANDBOX_HANDS),
    st.sampled_from(["stopped", "running", "at work"]),
)


class Sandboxes:
    """Of a gateway that is yet to be made on a machine whose image is yet to be built."""

    def __init__(self, gateway: Gateway, patch: pytest.MonkeyPatch) -> None:
        self.gateway = gateway
        self.roster = Roster(gateway)
        self.engine = ContainerEngine()
        self.images: dict[str, str] = {}
        place = Path(gateway.state_dir).parent
        (place / "docker.sock").touch()
        self._plain = replace(A_SANDBOX, docker_host=f"unix://{place}/docker.sock")
        self.wanted = self._plain
        self.gone = False
        """Whether there are to be none; `wanted` is what there was before."""
        self.config_root = place / "etc"
        self._numbers = count(1)
        patch.setattr(self.engine, "image_id", lambda image: self.images.get(image, ""))
        patch.setattr(_agent_sandbox, "Containers", lambda _gateway, _docker_host: self.engine)
        patch.setattr(Gateway, "load", lambda _name, _root: gateway)

    def wish(self, **more: Any) -> None:
        self.gone = more.pop("state", "present") == "absent"
        if not self.gone:
            self.wanted = replace(self._plain, **more)

    @property
    def made(self) -> bool:
        return (self.config_root / "gw-a" / "gateway.json").exists()

    def make(self) -> None:
        """What the tasks before this one do."""
        if not self.made:
            (self.config_root / "gw-a").mkdir()
            (self.config_root / "gw-a" / "gateway.json").touch()
            self.roster.create()
        # One that is built again is another one.
        self.images.setdefault(self.wanted.image, f"sha256:{next(self._numbers)}")

    def run(self, check: bool) -> Result:
        which = {"gateway": "gw-a", "config_root": str(self.config_root)}
        how = {"state": "absent"} if self.gone else asdict(self.wanted)
        return run_module(agent_sandbox, {**how, **which, "wait": 0}, check)

    def seen(self) -> Any:
        return on_disk(self.gateway), dict(self.engine.here)

    def turn(self) -> None:
        """Everybody has one, and so a container that is as it should be; or nobody has."""
        if self.gone:
            return
        for agent_id in self.roster.entries():
            self.engine.make(agent_id, self.wanted, self.images[self.wanted.image])

    def meddle(self, what: str) -> None:
        entries, descriptor = self.roster.entries(), _sandbox.descriptor(self.gateway)
        if what == "an agent is added":
            agent_id = BEN if ANNA in entries else ANNA
            state = self.gateway.state_dir
            homes = {"workspace": f"{state}/workspaces/{agent_id}", "agentDir": f"{state}/agents/{agent_id}"}
            self.roster.apply({**entries, agent_id: {"name": agent_id, **homes}})
        elif what == "an agent is removed" and entries:
            self.roster.apply(dict(list(entries.items())[1:]))
        elif what == "one has an old container":
            self.engine.make(ANNA, self.wanted, "sha256:old")
        elif what == "a container is gone":
            self.engine.here.pop(ANNA, None)
        elif what == "the descriptor is removed":
            descriptor.unlink(missing_ok=True)
        elif what == "the descriptor is edited":
            descriptor.write_text(json.dumps(asdict(self.wanted)))
        elif what == "the roster's mode is changed":
            Path(self.gateway.roster).chmod(0o600)
        elif what == "the image is gone":
            self.images.pop(self.wanted.image)


@settings(max_examples=40)
@given(st.lists(SANDBOXES, min_size=1, max_size=6))
def test_agent_sandbox(steps: list[tuple[dict[str, Any] | None, str, str]]) -> None:
    with fresh_gateway() as gateway, pytest.MonkeyPatch.context() as patch:
        sandboxes = Sandboxes(gateway, patch)
        for wish, hands, state in steps:
            if sandboxes.made:
                sandboxes.meddle(hands)
            if wish is not None:
                sandboxes.wish(**wish)
            with pytest.MonkeyPatch.context() as running:
                if state != "stopped" and sandboxes.made:
                    run_it(sandboxes.engine, running)
                    if state == "at work":
                        while_at_work(sandboxes)
                    if sandboxes.gone:
                        sandboxes.engine.at_work.clear()
                done = four_times(sandboxes.run, sandboxes.seen, between=sandboxes.make)
            assert "failed" not in done
            assert _sandbox.Sandbox.load(gateway) == (None if sandboxes.gone else sandboxes.wanted)
            if sandboxes.gone:
                assert not any(entry.keys() & _sandbox.KEYS for entry in sandboxes.roster.entries().values())
            sandboxes.turn()
            assert nothing_to_do(sandboxes.run(True))


def while_at_work(sandboxes: Sandboxes) -> None:
    """Whether an agent will be idle is not foreseen: who is at work counts as recreated, and is so once she is."""
    sandboxes.engine.at_work = dict.fromkeys(sandboxes.engine.here, 1000)
    before = sandboxes.seen()
    predicted = sandboxes.run(True)
    assert sandboxes.seen() == before
    sandboxes.make()
    done = sandboxes.run(False)
    assert (predicted["recreated"], predicted["busy"]) == (done["busy"], done["recreated"])
    assert (predicted["updated"], predicted["reloads"]) == (done["updated"], done["reloads"])
    assert (sandboxes.seen() != before) is done["changed"]
    after = sandboxes.seen()
    again = sandboxes.run(False)
    assert nothing_to_do(again) and again["busy"] == done["busy"]
    assert sandboxes.seen() == after
    sandboxes.engine.at_work.clear()


# OpenClaw's tree

TREES = st.tuples(
    st.sampled_from(["1", "2"]),
    st.sampled_from(["registry", "controller"]),
    st.sampled_from(["nothing", "the tree is removed", "a build is killed", "the archive is removed"]),
)


@settings(max_examples=8)
@given(st.lists(TREES, min_size=1, max_size=3))
def test_openclaw_tree(steps: list[tuple[str, str, str]]) -> None:
    with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
        # Nothing here has to outlive a power cut.
        patch.setattr(os, "sync", lambda: None)
        npm = str(Bench(place).npm)
        action = on_this_machine(ship_tree.ActionModule, openclaw_tree)
        root, built_here = place / "opt", place / "cache"
        for number in ("1", "2"):
            lock = small_lock(other=number)
            (place / f"lock-{number}").mkdir()
            (place / f"lock-{number}" / "package.json").write_bytes(lock.package)
            (place / f"lock-{number}" / "package-lock.json").write_bytes(lock.content)
        for number, origin, hands in steps:
            if hands == "the tree is removed":
                shutil.rmtree(root, ignore_errors=True)
            elif hands == "a build is killed":
                (root / ".unfinished-of-somebody").mkdir(parents=True, exist_ok=True)
            elif hands == "the archive is removed":
                shutil.rmtree(built_here, ignore_errors=True)
            given = {
                "lock_dir": str(place / f"lock-{number}"),
                "version": "1.2.3",
                "root": str(root),
                "install_from": origin,
                "npm": npm,
                "controller_npm": npm,
                "npm_environment": {},
                "build_dir": str(built_here),
                "machine": "m",
            }
            done = four_times(
                lambda check, given=given: run_action(action, given, check_mode=check), lambda: below(place)
            )
            assert "failed" not in done and Path(done["node"]).is_file() and Path(done["entry"]).is_file()


# The reconciler's runtime

RUNTIMES = st.tuples(
    st.sampled_from(["0.1.0", "0.2.0"]),
    st.sampled_from(["one==1\n", "two==2\n"]),
    st.sampled_from(["nothing", "nothing", "an installation is killed", "all is removed"]),
)


def collection_archive(place: Path, version: str) -> Path:
    """A built collection, as far as it says what it is."""
    told = {
        "MANIFEST.json": {"collection_info": {"version": version}},
        "FILES.json": {"files": [{"name": "a", "ftype": "file", "chksum_sha256": version}]},
    }
    archive = place / f"claw-fleet-{version}.tar.gz"
    with tarfile.open(archive, "w:gz") as bundle:
        for name, content in told.items():
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            bundle.addfile(entry, io.BytesIO(data))
    return archive


@settings(max_examples=40)
@given(st.lists(RUNTIMES, min_size=1, max_size=5))
def test_reconciler_runtime(steps: list[tuple[str, str, str]]) -> None:
    with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: None)
        patch.setattr(_command, "run", install)
        action = on_this_machine(ship_runtime.ActionModule, reconciler_runtime)
        root = place / "opt"
        archives = {version: collection_archive(place, version) for version in ("0.1.0", "0.2.0")}
        for version, requirements, hands in steps:
            if hands == "all is removed":
                shutil.rmtree(root, ignore_errors=True)
            elif hands == "an installation is killed":
                for complete in root.glob("*/complete"):
                    complete.unlink()
            (place / "lock.txt").write_text(requirements)
            given = {
                "lock": str(place / "lock.txt"),
                "collection": str(archives[version]),
                "root": str(root),
                "pip_environment": {},
            }
            done = four_times(
                lambda check, given=given: run_action(action, given, check_mode=check),
                lambda: below(place),
            )
            assert Path(done["runtime"], "requirements.lock").read_text() == requirements
            assert Path(done["collections"], "installed").read_text() == archives[version].name


def install(command: Sequence[str], _place: Path, _environment: object) -> str:
    """What venv and ansible-galaxy leave behind; pip only fills what there is."""
    if command[1:3] == ["-m", "venv"]:
        Path(command[3]).mkdir()
    if "collection" in command:
        (archive,) = (Path(word).name for word in command if word.endswith(".tar.gz"))
        collections = Path(command[-1])
        collections.mkdir()
        (collections / "installed").write_text(archive)
    return ""


# The agents of a former gateway

FORMER_HANDS = (
    "nothing",
    "nothing",
    "a run is killed",
    "a run is killed when all is copied",
    "a link is planted",
    "her key is another",
    "her key is removed",
    "she was made here by mistake",
    "what she has here is removed",
    "she is renamed there",
    "she has scheduled jobs",
    "it is of another version",
)
ADOPTIONS = st.tuples(
    st.lists(st.sampled_from([1, 2, 3]), unique=True, max_size=3),
    st.sampled_from(["running", "running", "paused", "removed"]),
    st.sampled_from(["nobody", "nobody", "one"]),
    st.sampled_from(FORMER_HANDS),
    st.sampled_from([1, 2]),
)


@settings(max_examples=30)
@given(st.lists(ADOPTIONS, min_size=1, max_size=5))
def test_agent_adoption(steps: list[tuple[list[int], str, str, str, int]]) -> None:
    with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
        machine = Machine(place)
        machine.gateway.lock_path.touch()
        patch.setattr(Gateway, "load", lambda _name, _root: machine.gateway)
        # Whether somebody still runs it has a test of its own, and takes a look at all of this machine's processes.
        patch.setattr(FormerGateway, "in_use", lambda _self: False)
        for numbers, wanted, unwell, hands, number in steps:
            lay_hands_on_former(machine, hands, number)
            rows = [
                machine.row(it, wanted=wanted, **({} if it < 3 else {"key_sha256": "", "key_generation": 0}))
                for it in numbers
            ]
            if unwell == "one" and rows:
                rows[0]["error"] = {"step": "claim", "reason": "because"}
            given = {
                "gateway": "gw-a",
                "agents": rows,
                "state_dir": str(machine.former),
                "coach_api_url": API,
            }
            four_times(
                lambda check, given=given: run_module(agent_adoption, json.loads(json.dumps(given)), check),
                lambda: below(place, dated=False),
            )


def lay_hands_on_former(machine: Machine, what: str, number: int) -> None:
    agent_id = f"coach-{number}"
    home, here = machine.former.parent / "ws" / agent_id, machine.state / "workspaces" / agent_id
    key = home / ".credentials.json"
    if what in ("a run is killed", "a run is killed when all is copied"):
        left, record = (
            machine.state / "adopting" / agent_id,
            Path(machine.gateway.config_dir) / "adopted.json",
        )
        # Of whoever was taken over the next run clears it away, and calls that no change.
        if not record.exists() or agent_id not in record.read_text():
            (left / "workspace").mkdir(parents=True, exist_ok=True)
            if what != "a run is killed":
                (left / "complete").touch()
    elif what == "a link is planted" and not (home / "link").is_symlink():
        (home / "link").symlink_to("/etc/passwd")
    elif what == "her key is another":
        key.write_text('{"api_key": "another"}')
    elif what == "her key is removed":
        key.unlink(missing_ok=True)
    elif what == "she was made here by mistake":
        here.mkdir(parents=True, exist_ok=True)
    elif what == "what she has here is removed":
        shutil.rmtree(here, ignore_errors=True)
    elif what == "she is renamed there":
        machine.config({"agents": {"list": [*machine.agents[:number], *machine.agents[number + 1 :]]}})
    elif what == "she has scheduled jobs":
        schedule(machine.former / "state" / "openclaw.sqlite", agent_id)
    elif what == "it is of another version":
        machine.config({"meta": {"lastTouchedVersion": "1"}, "agents": {"list": machine.agents}})


def schedule(path: Path, agent_id: str) -> None:
    """A job, as OpenClaw writes it down."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS cron_jobs (agent_id, name, payload_kind)")
        database.execute("INSERT INTO cron_jobs VALUES (?, 'evening', 'agentTurn')", (agent_id,))
        database.commit()
