"""The roster and its agents against a real OpenClaw gateway: what is written is what is served."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _durable, _removal, _tree
from ansible_collections.claw.fleet.plugins.module_utils._activation import Activation
from ansible_collections.claw.fleet.plugins.module_utils._agent_plan import Outcome
from ansible_collections.claw.fleet.plugins.module_utils._agents import Agents
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayRefused
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest
from ansible_collections.claw.fleet.plugins.module_utils._roster import Entries, Roster, RosterError
from ansible_collections.claw.fleet.plugins.module_utils._workspace import OwnedFile

from .gateway_process import ROOT, GatewayProcess, wait_for

COLLECTION = ROOT / "collections" / "ansible_collections" / "claw" / "fleet"


@pytest.fixture(scope="module")
def tree() -> Path:
    """An OpenClaw tree as claw.fleet.openclaw_tree builds it, kept in the cache."""
    files = COLLECTION / "roles" / "gateway" / "files" / "openclaw"
    lock = _tree.read_lock((files / "package.json").read_bytes(), (files / "package-lock.json").read_bytes())
    arch = _tree.ARCHITECTURES[platform.machine()]
    cache = Path(os.environ.get("CLAW_CACHE_DIR") or ROOT / ".cache")
    tree = _tree.Tree(cache / "openclaw" / lock.name, arch)
    npm = str(Path(sys.executable).with_name("npm"))
    _tree.build(tree, lock, [npm], {}, foreign=False, private_cache=False)
    return tree.path


@pytest.fixture(scope="module")
def process(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway that is ready, with a roster that the tests share and leave empty."""
    process = GatewayProcess(tree, tmp_path_factory.mktemp("gateway"))
    try:
        assert Roster(process.gateway).create() is True
        process.start_ready()
        yield process
    finally:
        process.close()


@pytest.fixture
def agents(process: GatewayProcess) -> Iterator[Agents]:
    """The agents of the gateway; all are gone afterwards."""
    if not process.state().running:
        process.start_ready()
    agents = Agents(process.gateway)
    yield agents
    Roster(process.gateway).apply({})


def row(agent_id: str, wanted: str = "running", **more: Any) -> dict[str, Any]:
    """A coach as the inventory gives her."""
    number = sum(agent_id.encode())
    fields = {"pk": number, "agent_id": agent_id, "name": agent_id.title(), "wanted": wanted}
    return fields | {"generation": 1, "status": "pending"} | more


def soul(agent_id: str) -> list[OwnedFile]:
    """A workspace with a soul that the provider can tell."""
    return [OwnedFile("SOUL.md", f"# Soul\n\nSOULMARK-{agent_id}\n".encode(), "agent")]


def run(agents: Agents, *rows: dict[str, Any], **options: Any) -> Outcome:
    """One run; no row may be in error."""
    outcome = agents.reconcile(
        list(rows), {row["agent_id"]: soul(row["agent_id"]) for row in rows}, **options
    )
    assert [row["error"] for row in outcome.results if row.get("error")] == []
    return outcome


def say(gateway: Gateway, agent_id: str, text: str) -> str:
    """A turn in the session "test"."""
    return gateway.turn(agent_id, text, "test", 60)


def entry(process: GatewayProcess, agent_id: str) -> dict[str, str]:
    """A roster entry as it should be."""
    state = process.state_dir
    return {
        "name": agent_id.title(),
        "workspace": str(state / "workspaces" / agent_id),
        "agentDir": str(state / "agents" / agent_id / "agent"),
    }


def test_added_agents_answer_and_a_second_run_changes_nothing(
    process: GatewayProcess, agents: Agents
) -> None:
    rows = [row("anna"), row("bert")]
    predicted = run(agents, *rows, check=True)
    assert agents.roster.entries() == {}
    assert not (process.state_dir / "workspaces" / "anna").exists()

    done = run(agents, *rows)
    assert done == predicted
    assert (done.changed, done.reloads) == (True, 1)
    assert process.gateway.served().agents == {name: entry(process, name) for name in ("anna", "bert")}
    assert "SOULMARK-anna" in say(process.gateway, "anna", "who are you")
    assert "SOULMARK-bert" in say(process.gateway, "bert", "who are you")

    for check in (False, True):
        again = run(agents, *rows, check=check)
        assert (again.changed, again.reloads, again.diff) == (False, 0, [])


def test_a_first_turn_is_taken_once_and_apart(process: GatewayProcess, agents: Agents) -> None:
    rows = [row("olga"), row("paul")]
    run(agents, *rows)
    activation = Activation(
        process.gateway, text="the word is sesame", expect="SOULMARK-", timeout=60, parallel=2
    )
    assert activation.run(rows, check=True).changed is True
    done = activation.run(rows)
    assert [row["actions"] for row in done.results] == [["took its first turn"]] * 2
    assert activation.run(rows).changed is False
    assert "sesame" not in say(process.gateway, "olga", "recall")


def test_a_paused_agent_is_unknown_and_a_resumed_one_remembers(
    process: GatewayProcess, agents: Agents
) -> None:
    run(agents, row("carl"))
    say(process.gateway, "carl", "the word is sesame")

    paused = run(agents, row("carl", "paused"))
    assert [row["actions"] for row in paused.results] == [["paused"]]
    with pytest.raises(GatewayRefused, match="Unknown agent 'carl'"):
        say(process.gateway, "carl", "recall")
    assert run(agents, row("carl", "paused")).changed is False

    resumed = run(agents, row("carl"))
    assert [row["actions"] for row in resumed.results] == [["resumed"]]
    assert "sesame" in say(process.gateway, "carl", "recall")


def test_a_removed_agent_comes_back_without_memory(process: GatewayProcess, agents: Agents) -> None:
    gateway = process.gateway
    run(agents, row("dora"), row("emil"))
    say(gateway, "dora", "the word is sesame")
    memory = process.state_dir / "workspaces" / "dora" / "MEMORY.md"
    memory.write_text("sesame")
    say(gateway, "emil", "hello")

    removed = run(agents, row("dora", "removed"), row("emil"))
    assert [row.get("actions") for row in removed.results] == [["removed"], None]
    (aside,) = (process.state_dir / "removed").glob("dora-*")
    assert (aside / "workspace" / "MEMORY.md").read_text() == "sesame"
    assert (aside / "agent" / "agent" / "openclaw-agent.sqlite").is_file()
    assert not memory.parent.exists()
    assert run(agents, row("dora", "removed"), row("emil")).changed is False

    # The gateway has her former database open, and must let go of it for her to answer at all.
    pid = process.state().pid
    predicted = run(agents, row("dora"), row("emil"), check=True)
    back = run(agents, row("dora"), row("emil"))
    assert back == predicted
    assert back.results[0]["actions"] == ["added", "seeded SOUL.md", "let go of its former database"]
    assert "SOULMARK-dora" in say(gateway, "dora", "who are you")
    assert "sesame" not in say(gateway, "dora", "recall")
    assert "2 earlier" in say(gateway, "dora", "recall")
    assert not memory.exists()
    assert "hello" in say(gateway, "emil", "recall")
    assert process.state().pid == pid
    assert run(agents, row("dora"), row("emil")).changed is False


def test_a_run_killed_before_the_gateway_let_go_is_made_good(
    process: GatewayProcess, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = process.gateway
    run(agents, row("lena"))
    say(gateway, "lena", "the word is sesame")
    run(agents, row("lena", "removed"))
    with monkeypatch.context() as killed:
        killed.setattr(_removal, "let_go", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(agents, row("lena"))
    with pytest.raises(GatewayRefused, match="internal error"):
        say(gateway, "lena", "recall")

    again = run(agents, row("lena"))
    assert [row["actions"] for row in again.results] == [["let go of its former database"]]
    assert "sesame" not in say(gateway, "lena", "recall")


def test_a_former_database_that_stays_open_is_that_agents_error(
    process: GatewayProcess, agents: Agents
) -> None:
    run(agents, row("mara"), row("nils"))
    say(process.gateway, "mara", "the word is sesame")
    run(agents, row("mara", "removed"), row("nils"))
    (database,) = (process.state_dir / "removed").glob("mara-*/agent/agent/openclaw-agent.sqlite")
    both = {"mara": soul("mara"), "nils": soul("nils")}
    with database.open():  # by this test, which is of the gateway's user and does not let go
        mara, nils = agents.reconcile([row("mara"), row("nils")], both).results
    assert "still has its former database open" in mara["error"]["reason"]
    assert "error" not in nils
    run(agents, row("mara"), row("nils"))
    assert "sesame" not in say(process.gateway, "mara", "recall")


def test_a_removal_that_was_killed_after_its_commit_point_is_finished(
    process: GatewayProcess, agents: Agents
) -> None:
    run(agents, row("fred"))
    manifest = Manifest(process.gateway)
    manifest.removing["fred"] = "20260101T000000Z"
    manifest.save()
    Roster(process.gateway).apply({})

    predicted = run(agents, check=True)
    done = run(agents)
    assert done == predicted
    assert done.changed is True
    assert (process.state_dir / "removed" / "fred-20260101T000000Z" / "workspace" / "SOUL.md").is_file()
    assert Manifest(process.gateway).removing == {}
    assert run(agents).changed is False


def test_what_openclaw_would_refuse_never_reaches_the_file(process: GatewayProcess, agents: Agents) -> None:
    run(agents, row("gina"))
    roster = Path(process.gateway.roster)
    before = roster.read_bytes(), roster.stat().st_mtime_ns
    bad: Entries = {"gina": entry(process, "gina"), "hans": entry(process, "hans") | {"name": 7}}
    with pytest.raises(RosterError, match=r"OpenClaw would refuse .*agents\.entries\.hans\.name"):
        Roster(process.gateway).apply(bad)
    assert (roster.read_bytes(), roster.stat().st_mtime_ns) == before
    assert process.gateway.served().agents.keys() == {"gina"}


def test_a_roster_that_is_not_served_is_put_back(process: GatewayProcess, agents: Agents) -> None:
    run(agents, row("ida"))
    process.stop()
    process.write_config(
        process.config() | {"gateway": process.config()["gateway"] | {"reload": {"mode": "off"}}}
    )
    process.start_ready()
    try:
        before = Path(process.gateway.roster).read_bytes()
        with pytest.raises(RosterError, match=r"The old roster was put back and is served"):
            Roster(process.gateway, serve_timeout=3).apply(
                {name: entry(process, name) for name in ("ida", "jane")}
            )
        assert Path(process.gateway.roster).read_bytes() == before
        assert process.gateway.served().agents.keys() == {"ida"}
    finally:
        process.stop()
        process.write_config(process.config())
        process.start_ready()


def test_a_write_waits_for_a_gateway_that_starts(process: GatewayProcess, agents: Agents) -> None:
    process.stop()
    process.start()
    pid = process.state().pid
    assert process.gateway.ready() is False
    done = run(agents, row("kurt"))
    assert done.reloads == 1
    assert process.state().pid == pid
    assert process.gateway.served().agents.keys() == {"kurt"}


def test_a_stopped_gateway_gets_the_file_and_is_not_started(process: GatewayProcess, agents: Agents) -> None:
    process.stop()
    done = run(agents, row("lena"))
    assert (done.changed, done.reloads) == (True, 0)
    assert process.state().running is False
    process.start_ready()
    assert "SOULMARK-lena" in say(process.gateway, "lena", "who are you")


def test_a_gateway_that_dies_over_the_change_is_waited_for(process: GatewayProcess, agents: Agents) -> None:
    run(agents, row("mona"))
    process.restarts = True
    roster = Path(process.gateway.roster)
    before = roster.read_bytes()

    def kill_at_once() -> None:
        wait_for("the new roster", lambda: roster.read_bytes() != before)
        process.kill()

    killer = threading.Thread(target=kill_at_once)
    killer.start()
    try:
        pid = process.state().pid
        run(agents, row("mona"), row("nico"))
        assert process.state().pid != pid
        assert process.gateway.served().agents.keys() == {"mona", "nico"}
    finally:
        killer.join()
        process.restarts = False


def test_first_turns_survive_a_gateway_that_dies_among_them(process: GatewayProcess, agents: Agents) -> None:
    wanted = [row(f"first-{number}") for number in range(6)]
    run(agents, *wanted)
    process.restarts = True
    pid = process.state().pid

    def kill_after_one() -> None:
        wait_for(
            "somebody's first turn",
            lambda: any(Path(process.gateway.state_dir).glob("agents/first-*/agent/*.sqlite*")),
        )
        process.kill()

    killer = threading.Thread(target=kill_after_one)
    killer.start()
    try:
        done = Activation(process.gateway, text="hi", expect="SOULMARK-", timeout=60, parallel=2).run(
            [{**each, "status": "provisioning"} for each in wanted]
        )
    finally:
        killer.join()
        process.restarts = False
    assert process.state().pid != pid
    assert [each.get("error") for each in done.results] == [None] * 6


def test_a_gateway_starts_that_was_killed_while_it_began_a_database(
    process: GatewayProcess, agents: Agents
) -> None:
    run(agents, row("nora"))
    process.stop()
    path = Path(entry(process, "nora")["agentDir"]) / "openclaw-agent.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    process.start_ready()
    assert "SOULMARK-nora" in say(process.gateway, "nora", "who are you")


def test_a_gateway_that_dies_of_the_change_gets_its_old_roster_back_and_is_heard(
    process: GatewayProcess, agents: Agents
) -> None:
    run(agents, row("otto"))
    roster = Path(process.gateway.roster)
    before = roster.read_bytes()

    over = threading.Event()

    def kill_whoever_reads_it() -> None:
        while not over.wait(0.05):
            if roster.read_bytes() != before and process.state().running:
                process.kill()

    killer = threading.Thread(target=kill_whoever_reads_it)
    killer.start()
    try:
        wanted = {name: entry(process, name) for name in ("otto", "pia")}
        with pytest.raises(RosterError, match=r"The old roster was put back and is served") as told:
            Roster(process.gateway).apply(wanted)
        assert "It said:" in str(told.value) and "[gateway]" in str(told.value)
        assert roster.read_bytes() == before
        assert process.gateway.served().agents.keys() == {"otto"}
        assert "SOULMARK-otto" in say(process.gateway, "otto", "who are you")
    finally:
        over.set()
        killer.join()


def test_a_gateway_hears_of_changes_after_one_that_was_taken_back(
    process: GatewayProcess, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(agents, row("olga"))
    write = _durable.write

    def write_and_fail(path: Any, data: bytes, **more: Any) -> None:
        write(path, data, **more)
        if str(path) == process.gateway.roster:
            monkeypatch.setattr(_durable, "write", write)
            raise _durable.DurableError("the directory cannot be synced")

    monkeypatch.setattr(_durable, "write", write_and_fail)
    with pytest.raises(RosterError, match=r"The old roster was put back and is served"):
        run(agents, row("olga"), row("petra"))
    run(agents, row("olga"), row("petra"))
    assert process.gateway.served().agents.keys() == {"olga", "petra"}


def test_a_gateway_that_has_lost_sight_of_its_roster_is_made_to_look(
    process: GatewayProcess, agents: Agents
) -> None:
    run(agents, row("rita"))
    roster = Path(process.gateway.roster)
    before = roster.read_bytes()
    # OpenClaw comes to read it only when it is as before, and has no more of the file in view.
    for data in (b"{}", before):
        _durable.write(roster, data, mode=0o640)
    wait_for("the reload that finds no change", lambda: process.gateway.served().converged)
    run(agents, row("rita"), row("sara"))
    assert process.gateway.served().agents.keys() == {"rita", "sara"}
