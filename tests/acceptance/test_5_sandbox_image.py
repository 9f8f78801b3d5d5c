"""The image of sandboxes, in a real engine, with a command line made of the real app's document."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from clawbench.coachlist import API
from clawbench.shell import docker, program

from .fleet import Fleet, Play, until

# It makes bases and images again and again; the scenario of sandboxes makes one of each, always.
pytestmark = pytest.mark.fire

NAME = "claw-test-sandbox"
BASES = f"{NAME}-base"
TASK = "The sandboxes' image is there"
ANNA, BEN = "coach-anna", "coach-ben"


class Sandboxes:
    """Images in this machine's engine, and what is run of them."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self.fleet = fleet
        self.place = place
        self.document = place / "openapi.json"
        headers = {"Accept": "application/json"}
        url = f"{fleet.coach_list.url}{API}/schema/"
        self.source: dict[str, Any] = (
            httpx.get(url, headers=headers, trust_env=False).raise_for_status().json()
        )
        self.write(self.source)

    def write(self, source: dict[str, Any]) -> None:
        """Have this document."""
        self.document.write_text(json.dumps(source))

    def play(self, *words: str, **options: Any) -> Play:
        """Run the module as the role does, which beside it would have this machine make sandboxes."""
        given = {"openapi": str(self.document), "name": NAME, **options}
        task = {"name": TASK, "claw.fleet.sandbox_image": given}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
        playbook = self.place / "sandbox.yml"
        playbook.write_text(json.dumps([play]))
        return self.fleet.play(str(playbook), *words, ansible_python_interpreter=sys.executable)

    def building(self, **options: Any) -> tuple[dict[str, Any], list[str]]:
        """The result of a run that has to succeed, and the steps that it told of."""
        play = self.play(**options)
        assert play.rc == 0, play.output
        return play.result("localhost", TASK), re.findall(r"localhost: .*, ([0-9] of [0-9]): ", play.output)

    def built(self, **options: Any) -> dict[str, Any]:
        """The result of a run that has to succeed."""
        return self.building(**options)[0]

    def tags(self, name: str = NAME) -> set[str]:
        """The images that there are."""
        return set(docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).split())

    def run(self, image: str, *words: str, coach: str = "") -> subprocess.CompletedProcess[str]:
        """Run something in a sandbox of this image, as the machine runs them; with a coach's key."""
        options = ["--rm", "--read-only", "--cap-drop=ALL", "--network=none"]
        if coach:
            directory = self.place / coach
            directory.mkdir(exist_ok=True)
            (directory / ".credentials.json").write_text(json.dumps(self.fleet.credentials(coach)))
            options[-1] = f"--network={self.fleet.bench.network}"
            options.append(f"--volume={directory}:/run/credentials:ro")
        command = ["docker", "run", *options, image, *words]
        return subprocess.run(command, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def sandboxes(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandboxes]:
    """None at first, and none afterwards."""
    program("mmdebstrap", "mmdebstrap")
    for coach in (ANNA, BEN):
        fleet.orm(
            f"CompanionProfile.objects.get(agent_id={coach!r}).clients.get_or_create(name='A client of {coach}')"
        )
    _remove()
    yield Sandboxes(fleet, tmp_path_factory.mktemp("sandboxes"))
    _remove()


def _remove() -> None:
    """Have no image of ours."""
    for name in (NAME, BASES):
        if images := docker("image", "ls", "--quiet", name).split():
            docker("image", "rm", "--force", *set(images))


@pytest.fixture(scope="module")
def image(sandboxes: Sandboxes) -> str:
    """The first image, which was predicted."""
    predicted = sandboxes.play("--check", "--diff")
    assert predicted.rc == 0 and len(predicted.changed) == 1, predicted.output
    told = predicted.result("localhost", TASK)
    assert (told["present"], told["differs"]) == (
        False,
        ["base", "command", "document", "generator", "recipe"],
    )
    assert sandboxes.tags() == set()
    built, steps = sandboxes.building()
    assert (built["changed"], built["image"], built["diff"]) == (True, told["image"], told["diff"])
    assert steps == ["1 of 3", "2 of 3", "3 of 3"]
    assert sandboxes.tags() == {built["image"]}
    return str(built["image"])


def test_again_nothing_is_built(sandboxes: Sandboxes, image: str) -> None:
    for words in ((), ("--check",)):
        play = sandboxes.play(*words)
        assert (play.rc, play.changed) == (0, []), play.output
        told = play.result("localhost", TASK)
        assert (told["image"], told["present"], told["differs"]) == (image, True, [])


def test_its_user_is_nobody_and_its_command_asks_the_app(sandboxes: Sandboxes, image: str) -> None:
    assert sandboxes.run(image, "id", "-u").stdout == "1000\n"
    assert sandboxes.run(image, "touch", "/usr/local/bin/x").returncode != 0
    for coach in (ANNA, BEN):
        done = sandboxes.run(image, "journeyloop", "clients", "list", coach=coach)
        assert done.returncode == 0, done.stderr
        hers = f"CompanionProfile.objects.get(agent_id={coach!r}).clients.values_list('name', flat=True)"
        names = json.loads(sandboxes.fleet.orm(f"import json; print(json.dumps(sorted({hers})))"))
        assert sorted(row["name"] for row in json.loads(done.stdout)) == names
        assert f"A client of {coach}" in names
    without = sandboxes.run(image, "journeyloop", "clients", "list")
    assert without.returncode == 5 and "the fleet has to provide it" in without.stderr


BEFORE = 'export PATH="${OPENCLAW_PREPEND_PATH}:$PATH"; unset OPENCLAW_PREPEND_PATH; '
"""What OpenClaw puts before a line."""
# A program that is not static says so at once where it is to load this.
HOSTILE = (
    "LD_PRELOAD=/nonexistent.so",
    "LD_AUDIT=/nonexistent.so",
    "PYTHONPATH=/workspace",
    "PYTHONINSPECT=1",
    "ENV=/x",
)


@pytest.fixture
def running(sandboxes: Sandboxes, image: str) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """Executes a line in a running sandbox, as OpenClaw does for an agent; in the worst environment."""
    container = docker("run", "--detach", "--read-only", "--cap-drop=ALL", "--network=none", image).strip()
    environment = [f"--env={variable}" for variable in HOSTILE]

    def execute(line: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "exec", "-i", *environment, container, "/bin/sh", "-lc", line]
        return subprocess.run(command, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL)

    yield execute
    docker("rm", "--force", container)


def test_an_agent_can_execute_the_command(running: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    for line in ("journeyloop --help", f"{BEFORE}journeyloop --help"):
        done = running(line)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Exit status" in done.stdout
    unknown = running("journeyloop clients search --q 'a; id $(id)' '`id`'")
    assert unknown.returncode == 2 and "uid=" not in unknown.stdout + unknown.stderr


@pytest.mark.parametrize(
    "line",
    [
        "id",
        f"{BEFORE}id",
        "/bin/bash -c id",
        "/usr/bin/dash -c id",
        "busybox id",
        "python3 -c 'import os; os.system(\"id\")'",
        "journeyloop --help; id",
        "journeyloop --help && id",
        "journeyloop --help | cat",
        "journeyloop --help > /workspace/x",
        "journeyloop $(id)",
        "journeyloop --help\nid",
        "cat /run/credentials/.credentials.json",
        "FOO=1 journeyloop --help",
        "exec id",
        "",
    ],
)
def test_an_agent_can_execute_nothing_else(
    running: Callable[[str], subprocess.CompletedProcess[str]], line: str
) -> None:
    done = running(line)
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr.startswith("Only `journeyloop` can be executed here")


def test_what_runs_is_found_by_openclaws_mark_and_files_by_a_real_shell(
    sandboxes: Sandboxes, image: str
) -> None:
    """OpenClaw ends what it has started by looking for its mark with scripts of its own."""
    address = httpx.URL((sandboxes.fleet.state / "coachlist.url-for-hosts").read_text().strip()).host
    directory = sandboxes.place / "silent"
    directory.mkdir()
    with socket.create_server((address, 0)) as silent:
        url = f"http://{address}:{silent.getsockname()[1]}{API}/"
        (directory / ".credentials.json").write_text(json.dumps({"api_key": "x", "api_url": url}))
        options = [f"--network={sandboxes.fleet.bench.network}", f"--volume={directory}:/run/credentials:ro"]
        container = docker("run", "--detach", "--read-only", *options, image).strip()
        try:
            line = "journeyloop clients list"
            docker("exec", "--detach", "--env=CODEX_SANDBOX_EXEC_ID=mark", container, "/bin/sh", "-lc", line)
            script = "for file in /proc/[0-9]*/environ; do tr '\\0' '\\n' <$file; done; echo $1"
            seen = ["exec", container, "sh", "-c", script, "openclaw-sandbox-fs", "given"]
            until("the command to run", lambda: "CODEX_SANDBOX_EXEC_ID=mark" in docker(*seen).splitlines())
            assert docker(*seen).splitlines()[-1] == "given"
        finally:
            docker("rm", "--force", container)


def test_a_new_endpoint_is_a_new_verb_and_old_images_go_when_nobody_uses_them(
    sandboxes: Sandboxes, image: str
) -> None:
    in_use = docker("run", "--detach", "--network=none", image).strip()
    known, (base,) = [image], sandboxes.tags(BASES)
    docker("tag", base, f"{BASES}:former")
    try:
        for number in (1, 2, 3):
            paths = {**sandboxes.source["paths"]}
            path = f"{API}/weather-{number}/"
            paths[path] = {
                "get": {"operationId": f"weather_day_{number}", "tags": ["weather"], "responses": {}}
            }
            sandboxes.write({**sandboxes.source, "paths": paths})
            predicted = sandboxes.play("--check").result("localhost", TASK)
            built, steps = sandboxes.building()
            assert steps == ["1 of 3", "3 of 3"]
            assert built["differs"] == predicted["differs"] == ["document"]
            # What is used is what is kept.
            assert predicted["removed"] == built["removed"] == ([known[-1]] if number > 1 else [])
            known.append(built["image"])
            assert f"day-{number}" in sandboxes.run(built["image"], "journeyloop", "weather", "--help").stdout
    finally:
        docker("rm", "--force", in_use)
    assert sandboxes.tags() == {known[0], known[3]}
    assert sandboxes.tags(BASES) == {base}
    # Nobody uses the first now, and it is what one would go back to.
    again = sandboxes.built()
    assert (again["changed"], again["removed"]) == (False, [])
    sandboxes.write(sandboxes.source)
    back = sandboxes.built(keep=0)
    assert (back["image"], back["removed"]) == (image, [known[3]])


def test_a_base_is_renewed_when_it_is_asked_for(sandboxes: Sandboxes, image: str) -> None:
    (base,) = sandboxes.tags(BASES)
    renewed = {"base": {"renewed": "2026-12"}}
    assert sandboxes.play("--check", **renewed).result("localhost", TASK)["differs"] == ["base"]
    built, steps = sandboxes.building(**renewed)
    assert built["differs"] == ["base"] and steps == ["1 of 3", "2 of 3", "3 of 3"]
    assert sandboxes.tags(BASES) and base not in sandboxes.tags(BASES)
    assert sandboxes.built(**renewed)["changed"] is False
    assert sandboxes.built()["image"] == image


def test_an_image_that_was_removed_by_hand_is_built_again(sandboxes: Sandboxes, image: str) -> None:
    docker("image", "rm", "--force", image)
    assert sandboxes.built()["changed"] is True
    assert image in sandboxes.tags()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of a registry of this machine's own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": address}}))
    command = [program("docker-registry", "docker-registry"), "serve", str(config)]
    serving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return httpx.get(f"http://{address}/v2/", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        until("the registry", answers)
        yield address
    finally:
        serving.terminate()
        serving.wait()


def test_a_base_of_a_registry_is_known_by_its_digest(sandboxes: Sandboxes, image: str, registry: str) -> None:
    (made,) = sandboxes.tags(BASES)
    there = f"{registry}/base:1"
    docker("tag", made, there)
    docker("push", "--quiet", there)
    base = docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", there).strip()
    docker("image", "rm", there)
    built = sandboxes.built(base={"image": base})
    assert (built["changed"], built["differs"]) == (True, ["base"])
    assert sandboxes.run(built["image"], "journeyloop", "--help").returncode == 0
    assert sandboxes.built(base={"image": base})["changed"] is False
    tags, wrong = sandboxes.tags(), f"{base[:-8]}00000000"
    play = sandboxes.play(base={"image": wrong})
    assert play.rc != 0 and "the build failed: " in " ".join(play.output.split()), play.output
    assert sandboxes.tags() == tags
    # And a step of the build itself that fails.
    play = sandboxes.play(base={"image": base, "packages": ["no-such-package"]})
    said = " ".join(play.output.split())
    assert play.rc != 0 and "the build failed: " in said and "no-such-package" in said, play.output
    assert sandboxes.tags() == tags
    assert sandboxes.built()["image"] == image


PYTHON = ("python3-attr", "python3-click", "python3-dateutil", "python3-httpx", "python3-tabulate")
NOBODYS = f"127.0.0.1:9/debian@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"docker_host": "unix:///run/nobody.sock"},
            "no container engine answers at unix:///run/nobody.sock",
        ),
        ({"base": {"image": "debian:12"}}, "name it by its digest (NAME@sha256:...)"),
        ({"base": {"image": NOBODYS}}, "the build failed: "),
        pytest.param(
            {"base": {"packages": ["no-such-package"]}},
            "Debian's packages make no base, ",
        ),
        ({"base": {"suite": "no-such-suite"}}, "Debian's packages make no base, "),
        ({"command": "../sh"}, "command is '../sh'; it must be a plain name"),
        ({"keep": -1}, "keep is -1; it must be 0 or more"),
        (
            {"openapi": "/nonexistent/openapi.json"},
            "the OpenAPI document /nonexistent/openapi.json cannot be read",
        ),
        ({"openapi": "http://127.0.0.1:9/schema/"}, "http://127.0.0.1:9/schema/ cannot be read"),
        ({"openapi": "/dev/null"}, "openapi /dev/null: it is empty. No image was built."),
        # Only what runs is proven: this base has Python, but nothing that the command line needs.
        pytest.param(
            {"base": {"packages": ["busybox-static", "python3"]}},
            "the image was built, but `journeyloop --help` ends with status 1 in it where 0 is right",
        ),
        pytest.param(
            {"base": {"packages": ["busybox", *PYTHON]}},
            "/nonexistent.so",
        ),
        (
            {"proxy": "http://user:word@proxy.example:3128"},
            "proxy has a user or a password in its URL",
        ),
        (
            {"openapi": "https://user:word@app.example/"},
            "openapi has a user or a password in its URL",
        ),
        ({"name": "docker.io/a/b"}, "name is 'docker.io/a/b'; it must be a plain name"),
        ({"command": "python3"}, "command is 'python3'; it must be a plain name"),
    ],
)
def test_what_cannot_be_built_leaves_everything_as_it_was(
    sandboxes: Sandboxes, image: str, options: dict[str, Any], words: str
) -> None:
    before = sandboxes.tags()
    dangling = docker("image", "ls", "--quiet", "--filter", "label=claw.fleet.inputs")
    play = sandboxes.play("--diff", **options)
    assert play.rc != 0
    assert words in " ".join(play.output.split()), play.output
    assert "user:word" not in play.output
    assert sandboxes.tags() == before
    assert docker("image", "ls", "--quiet", "--filter", "label=claw.fleet.inputs") == dangling
    assert sandboxes.built()["changed"] is False


def operation(operation_id: str) -> dict[str, Any]:
    return {"get": {"operationId": operation_id, "tags": ["clients"], "responses": {}}}


def of(version: str, **paths: Any) -> str:
    """A document of this version."""
    information = {"title": "An app", "version": "1"}
    named = {f"/{name}/": found for name, found in paths.items()}
    return json.dumps({**json.loads(version), "info": information, "paths": named})


VERSION = '{"openapi": "3.0.3"}'


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"openapi": ', "it is neither JSON nor YAML"),
        (of('{"swagger": "2.0"}', one=operation("clients_list")), "it is of OpenAPI version 2.0; 3.0 and 3.1 can be used"),
        (of('{"openapi": "4.0.0"}', one=operation("clients_list")), "it is of OpenAPI version 4.0.0; 3.0 and 3.1 can be used"),
        (of(VERSION), "it has no operation"),
        (of(VERSION, one={"get": {"tags": ["clients"], "responses": {}}}), "has no operationId; give it one"),
        (of(VERSION, one=operation("!?")), "no command can be named"),
        (
            of(VERSION, one=operation("clients_list"), two=operation("clients-list")),
            "the operation ids 'clients_list' and 'clients-list' both make the command `clients list`",
        ),
    ],
)  # fmt: skip
def test_a_document_of_which_no_command_can_be_made_builds_nothing(
    sandboxes: Sandboxes, image: str, tmp_path: Path, document: str, words: str
) -> None:
    before = sandboxes.tags()
    file = tmp_path / "openapi.json"
    file.write_text(document)
    play = sandboxes.play("--diff", openapi=str(file))
    said = " ".join(play.output.split())
    assert play.rc != 0 and words in said and "No image was built." in said, play.output
    assert sandboxes.tags() == before
    assert sandboxes.built()["changed"] is False
