"""Finding, starting and stopping an engine, with programs of the same names that only note what they were told."""

from __future__ import annotations

import json
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clawbench import engine
from clawbench.shell import BenchError

DOCKERD = """#!{python}
import os, pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
place = pathlib.Path({place!r})
pathlib.Path(sys.argv[sys.argv.index("--pidfile") + 1]).write_text(str(os.getpid()))
(place / "alive").touch()
signal.sigwait([signal.SIGTERM])
(place / "alive").unlink()
"""
DOCKER = """#!/bin/sh
test -e {place}/alive || exit 1
case $1 in ps) cat {place}/containers ;; esac
"""
NOTING = """#!/bin/sh
echo "$0 $*" >> {place}/noted
case "$*" in *start*) touch {place}/alive ;; *stop*) rm -f {place}/alive ;; esac
"""


class Machine:
    """A place with programs, and the state directory of a bench."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = place / "state"
        (place / "containers").touch()
        self.add("docker", DOCKER)

    def add(self, name: str, program: str) -> None:
        """Install a program."""
        path = self.place / name
        path.write_text(program.format(place=str(self.place), python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Root on a machine without systemd, whose engine does not run, and nobody but this test has a bench."""
    monkeypatch.setenv("CLAW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(engine, "SYSTEMD", tmp_path / "no-systemd")
    return Machine(tmp_path)


def test_an_engine_that_runs_is_left_alone(machine: Machine) -> None:
    (machine.place / "alive").touch()
    assert engine.up(machine.state) is False
    assert "was there before" in engine.down(machine.state)
    assert (machine.place / "alive").exists()


def test_one_that_we_started_is_stopped_again(machine: Machine) -> None:
    machine.add("dockerd", DOCKERD)
    assert engine.up(machine.state) is True
    assert engine.up(machine.state) is False
    record = machine.place / "cache" / "engine" / engine.RECORD
    assert json.loads(record.read_text())["started"] == "process"
    assert "is stopped" in engine.down(machine.state)
    assert not (machine.place / "alive").exists()


def test_one_that_we_started_in_an_earlier_life_of_the_machine_is_not_ours(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("dockerd", DOCKERD)
    engine.up(machine.state)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "BOOT", machine.place / "boot")
        (machine.place / "boot").write_text("another")
        assert "was there before" in engine.down(machine.state)
        assert engine.answers()
    assert "is stopped" in engine.down(machine.state)


def test_it_stays_while_others_need_it(machine: Machine) -> None:
    machine.add("dockerd", DOCKERD)
    engine.up(machine.state)
    (machine.place / "containers").write_text("0123456789ab\n")
    assert "other containers" in engine.down(machine.state)
    assert engine.answers()
    (machine.place / "containers").write_text("")
    assert "is stopped" in engine.down(machine.state)


def test_it_stays_for_a_bench_that_has_no_container_yet_and_goes_with_the_last(machine: Machine) -> None:
    machine.add("dockerd", DOCKERD)
    second = machine.place / "second"
    assert engine.up(machine.state) is True
    assert engine.up(second) is False
    assert f"{second} may need it" in engine.down(machine.state)
    assert engine.answers()
    assert "is stopped" in engine.down(second)


def test_two_benches_at_once_start_one_engine(machine: Machine) -> None:
    machine.add("dockerd", DOCKERD)
    states = [machine.place / name for name in ("first", "second")]
    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(engine.up, states)) == [False, True]
    for state in states:
        said = engine.down(state)
    assert "is stopped" in said


def test_systemd_starts_and_stops_its_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SYSTEMD", machine.place)
    machine.add("dockerd", DOCKERD)
    machine.add("systemctl", NOTING)
    assert engine.up(machine.state) is True
    assert "is stopped" in engine.down(machine.state)
    noted = (machine.place / "noted").read_text().splitlines()
    assert [line.rpartition("/")[2] for line in noted] == [
        "systemctl start docker.service",
        "systemctl stop docker.socket docker.service",
    ]


def test_a_foreign_engine_that_is_silent_is_not_replaced(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(BenchError, match="DOCKER_HOST"):
        engine.up(machine.state)


def test_who_is_not_root_is_told_what_to_do(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(BenchError, match="systemctl start docker"):
        engine.up(machine.state)
