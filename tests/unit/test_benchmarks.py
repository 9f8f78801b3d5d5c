"""The figures, as far as they can be judged without measuring: they are complete, and the page says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.measure import RESULTS, Rounds, keep
from benchmarks.run import FAMILIES

PROMISED = {
    "inventory": {("at most", 3), ("at most", 1.5)},
    "memory": set(),
    "hundred-files": {("at least", 50)},
    "fifty-gateways": {("at most", 3)},
    "one-gateway": {("at most", 3), ("at most", 1.5), ("at least", 100)},
    "clients": {("at most", 1.2), ("at most", 0)},
    "sandboxes": set(),
}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What is written down."""
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


def test_the_page_says_what_the_figures_say(results: dict[str, Any]) -> None:
    assert report.PAGE.read_text() == report.page(results)


def test_what_was_measured_has_a_figure_for_each_promise(results: dict[str, Any]) -> None:
    found: dict[str, set[tuple[str, float]]] = {}
    for row in results["rows"]:
        family = found.setdefault(row["family"], set())
        if row["target"] is not None:
            family.add((row["sense"], row["target"]))
    # The page says of a family that it is not measured yet; but what was promised is.
    assert {family for family, promises in PROMISED.items() if promises} <= found.keys()
    assert found == {family: PROMISED[family] for family in found}
    assert set(report.FAMILIES) == set(FAMILIES) == set(PROMISED)


def test_every_figure_is_whole(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        low, high = row["spread"]
        assert low <= row["ratio"] <= high
        if row["target"] is None:
            assert row["met"] is None
        else:
            kept = (
                row["ratio"] <= row["target"] if row["sense"] == "at most" else row["ratio"] >= row["target"]
            )
            assert row["met"] is kept
        assert row["rounds"] >= 1 and row["unit"] and row["name"] != row["beside"]


def test_works_take_turns_and_ratios_are_of_the_same_round(tmp_path: Path) -> None:
    order: list[str] = []
    figures = {"ours": iter([2.0, 30.0, 4.0]), "theirs": iter([1.0, 10.0, 1.0])}

    def work(name: str) -> float:
        order.append(name)
        return next(figures[name])

    rounds = Rounds("inventory", lambda line: None)
    rounds.run({"ours": lambda: work("ours"), "theirs": lambda: work("theirs")}, 3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    row = rounds.row("ours", "theirs", at_most=3)
    assert (row.ratio, row.spread, row.median, row.beside_median, row.met) == (
        3.0,
        (2.0, 4.0),
        4.0,
        1.0,
        True,
    )
    assert rounds.row("ours", "theirs", at_least=3.5).met is False

    # What was not run again stays.
    kept = tmp_path / "latest.json"
    keep([row], kept)
    other = Rounds("memory", lambda line: None)
    other.taken = {"ours": [1.0], "theirs": [2.0]}
    keep([other.row("ours", "theirs")], kept)
    assert [found["family"] for found in json.loads(kept.read_text())["rows"]] == ["inventory", "memory"]
