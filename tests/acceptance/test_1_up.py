"""From nothing to answers, and the second run."""

from __future__ import annotations

import json
import re

from .fleet import Fleet

DEMO = {"coach-anna": "Anna", "coach-ben": "Ben", "coach-clara": "Clara"}


def companion_of(name: str) -> str:
    """The words of SOUL.md that say whose companion it is."""
    return f"You are the companion of {name}, a coach."


def test_up_ends_in_three_answers(first_up: tuple[Fleet, str]) -> None:
    fleet, printed = first_up
    assert "3 of 3 answered" in printed
    assert re.search(r"/admin/", printed)
    for agent_id, row in fleet.rows().items():
        if agent_id in DEMO:
            assert (row["status"], row["observed_generation"]) == ("active", row["generation"])


def test_each_answer_comes_from_its_own_soul(fleet: Fleet) -> None:
    for agent_id, name in DEMO.items():
        before = fleet.heard_until_now()
        reply = fleet.ask(agent_id, f"a question for {name}")
        assert reply.status == 200 and reply.text
        heard = [request["system"] for request in fleet.heard(f"a question for {name}", after=before)]
        assert heard
        for system in heard:
            assert companion_of(name) in system
            assert not [other for other in DEMO.values() if other != name and companion_of(other) in system]


def test_again_nothing_changes(fleet: Fleet) -> None:
    fleet.provision()
    files, heard = fleet.files(), fleet.heard_until_now()
    asked, pids = len(fleet.requests_to_django()), [fleet.pid(name) for name in ("gw-a", "gw-b")]
    reloads = fleet.reloads()
    assert reloads > 0, "the words of a reload are known"
    play = fleet.provision()
    assert play.rc == 0, play.output
    assert play.changed == []
    assert fleet.files() == files
    assert fleet.heard_until_now() == heard
    written = [line for line in fleet.requests_to_django()[asked:] if not line.startswith("GET ")]
    assert written == []
    assert fleet.reloads() == reloads
    assert [fleet.pid(name) for name in ("gw-a", "gw-b")] == pids


def test_site_again_nothing_changes(fleet: Fleet) -> None:
    files = fleet.files()
    play = fleet.play("playbooks/site.yml")
    assert play.rc == 0, play.output
    assert play.changed == []
    assert fleet.files() == files


def test_up_again_is_quick_and_harmless(fleet: Fleet) -> None:
    pids, files = [fleet.pid(name) for name in ("gw-a", "gw-b")], fleet.files()
    done = fleet.make("up")
    assert done.returncode == 0, done.stdout
    assert [fleet.pid(name) for name in ("gw-a", "gw-b")] == pids
    assert fleet.files() == files


def test_no_secret_in_what_was_printed_or_logged(first_up: tuple[Fleet, str]) -> None:
    fleet, printed = first_up
    logs = "".join(path.read_text(errors="replace") for path in (fleet.state / "log").iterdir())
    places = {
        "printed": printed,
        "logs": logs,
        "gunicorn": (fleet.state / "gunicorn.log").read_text(),
        "journal": fleet.sh("journalctl --no-pager"),
        "rows": json.dumps(fleet.rows()),
        "database": (fleet.state / "coachlist.sqlite3").read_bytes().decode("latin-1"),
        "site": fleet.play("playbooks/site.yml", "-vvv", "--diff").output,
        "provision": fleet.provision(None, "-vvv", "--diff").output,
    }
    for place, text in places.items():
        assert text
        assert fleet.seen(text) == [], place
