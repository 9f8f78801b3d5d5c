"""Those parts of the bench that decide something, without an engine."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from clawbench import asking, demo, hosts, image, inventory, progress, shell
from clawbench.shell import BenchError
from rich.console import Console


def test_image_name_follows_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "Dockerfile").write_text("FROM a\n")
    monkeypatch.setattr(image, "RECIPE", tmp_path / "recipe")
    monkeypatch.setattr(image, "EXTRA_CAS", tmp_path / "cas")
    names = [image.tag("12"), image.tag("12"), image.tag("13")]
    (tmp_path / "recipe" / "Dockerfile").write_text("FROM b\n")
    names.append(image.tag("12"))
    (tmp_path / "cas").mkdir()
    (tmp_path / "cas" / "ours.crt").write_text("certificate")
    names.append(image.tag("12"))
    assert names[0] == names[1]
    assert len(set(names)) == 4
    with pytest.raises(BenchError, match="Debian 11"):
        image.tag("11")


@pytest.mark.parametrize(
    ("cgroups", "driver", "parent"),
    [(1, "cgroupfs", "/clawbench"), (2, "cgroupfs", "/clawbench"), (2, "systemd", "clawbench.slice")],
)
def test_hosts_have_a_parent_that_the_engine_accepts(cgroups: int, driver: str, parent: str) -> None:
    options = hosts.host_options(cgroups, driver)
    assert f"--cgroup-parent={parent}" in options
    assert "--privileged" not in options


def test_hosts_get_what_an_engine_needs_only_where_they_run_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fuse").touch()
    monkeypatch.setattr(hosts, "ROOTLESS_DEVICES", [tmp_path / "fuse", tmp_path / "tun"])
    plain, engine = (hosts.host_options(2, "systemd", engine=engine) for engine in (False, True))
    assert engine[: len(plain)] == plain
    more = engine[len(plain) :]
    assert {"--security-opt=systempaths=unconfined", "--volume=/var/lib/docker"} < set(more)
    # A device that the machine itself lacks cannot be given.
    assert [option for option in more if "--device" in option] == [f"--device={tmp_path / 'fuse'}"]
    # Who may write to the kernel's settings must not do so by itself when the host starts.
    assert any("systemd-sysctl.service" in option for option in more)


@pytest.mark.parametrize("name", ["", "Upper", "a b", "-a", "a;b"])
def test_a_bad_name_is_refused_before_anything_happens(tmp_path: Path, name: str) -> None:
    with pytest.raises(BenchError, match="cannot name"):
        hosts.create(hosts.Bench("ok", tmp_path / "state"), [name])
    assert not (tmp_path / "state").exists()


def test_a_real_provider_is_taken_kept_and_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in inventory.REAL:
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "providers.json"
    assert inventory.choose_provider(tmp_path) == inventory.STAND_IN
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert inventory.choose_provider(tmp_path) == "openai"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert inventory.choose_provider(tmp_path) == "openai"
    values = json.loads(path.read_text())
    provider = values["gateway_providers"]["openai"]
    assert provider["api_key"] == "sk-secret"
    assert values["gateway_model"] == f"openai/{provider['models'][0]}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_private_files_are_private_and_left_alone_when_equal(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    shell.write_private(path, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.stat()
    shell.write_private(path, "a")
    assert path.stat().st_ino == before.st_ino
    shell.write_private(path, "b")
    assert path.read_text() == "b"
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_pid_file_is_believed_only_of_our_own_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert shell.is_ours(pid_file, "python") is None
    pid_file.write_text(f"{os.getpid()}\n")
    assert shell.is_ours(pid_file, "no such program") is None
    with subprocess.Popen([sys.executable, "-c", "input()", "our-needle"], stdin=subprocess.PIPE) as process:
        pid_file.write_text(f"{process.pid}\n")
        shell.until(
            lambda: shell.is_ours(pid_file, "our-needle") == process.pid, seconds=10, what="the process"
        )
        shell.end_process(process.pid, signal.SIGTERM, seconds=10, what="the process")
    assert shell.is_ours(pid_file, "our-needle") is None


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(BenchError, match=r"for the moon\. Look up\."):
        shell.until(lambda: False, seconds=0, what="the moon", hint="Look up.")


def test_a_failing_command_is_told_with_its_words() -> None:
    with pytest.raises(BenchError, match=r"Could not try it: exit status 3\.\noh"):
        shell.run([sys.executable, "-c", "import sys; sys.exit(print('oh') or 3)"], why="try it")
    with pytest.raises(BenchError, match="no program `claw-no-such-program`"):
        shell.run(["claw-no-such-program"])


def test_a_failing_playbook_shows_its_end_and_where_the_rest_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ansible-playbook"
    program.write_text("#!/bin/sh\nfor n in $(seq 100); do echo line-$n; done\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    steps = progress.Steps(Console(quiet=True), total=1)
    log = tmp_path / "log" / "play.log"
    with pytest.raises(BenchError, match="ended with 2") as caught, steps.step("A play") as step:
        step.playbook(tmp_path / "play.yml", tmp_path / "hosts", log, env={})
    said = str(caught.value)
    assert str(log) in said
    assert "line-100" in said
    assert "line-60\n" not in said
    assert log.read_text().startswith("line-1\n")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_an_interrupted_playbook_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ansible-playbook"
    program.write_text(f"#!/bin/sh\nsleep 300 &\necho $$ $! > {tmp_path}/pids\necho 'TASK [long]'\nwait\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def interrupt(_step: progress.Step, detail: str) -> None:
        assert detail == "long"
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Step, "show", interrupt)
    steps = progress.Steps(Console(quiet=True), total=1)
    with pytest.raises(KeyboardInterrupt), steps.step("A play") as step:
        step.playbook(tmp_path / "play.yml", tmp_path / "hosts", tmp_path / "play.log", env={})
    for pid in (tmp_path / "pids").read_text().split():
        shell.until(partial(_is_gone, int(pid)), seconds=10, what=f"the end of process {pid}")


def _is_gone(pid: int) -> bool:
    return not shell.lives(pid)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ('data: {"type": "x"}', {"type": "x"}),
        ("data: [DONE]", {}),
        ("data: [1]", {}),
        ("event: response.created", {}),
        (": keep-alive", {}),
        ("", {}),
    ],
)
def test_events_of_a_stream(line: str, event: dict[str, str]) -> None:
    assert asking.event_of(line) == event


def test_down_of_nothing_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAW_DEMO_STATE", str(tmp_path / "nothing"))
    assert demo.main(["down"]) == 0
    assert "Nothing of the demo is here" in capsys.readouterr().out


def test_ask_of_nothing_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAW_DEMO_STATE", str(tmp_path / "nothing"))
    assert demo.main(["ask"]) == 1
    assert "make up" in capsys.readouterr().out
