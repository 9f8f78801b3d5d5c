"""The figures as a page: `python -m benchmarks.report` writes docs/benchmarks.md from results/latest.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, Row

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
FAMILIES = {
    "one-gateway": "One gateway of a hundred coaches",
    "hundred-files": "The files of a hundred coaches",
    "fifty-gateways": "5,000 coaches on 50 gateways, nothing to do",
    "inventory": "The inventory",
    "clients": "What clients notice",
    "memory": "Memory",
    "sandboxes": "Sandboxes",
}
HEAD = """# Benchmarks

<!-- Made by `python -m benchmarks.report` from benchmarks/results/latest.json. Do not edit. -->

What the fleet costs, beside what the same work costs otherwise. A figure is a ratio within one run: the works take
turns, the ratio is taken in each round, and the table has the median of the rounds and, in brackets, the lowest and
the highest. Seconds are of that machine on that day; the ratios are what can be compared. `make bench` measures anew;
[benchmarks/README.md](../benchmarks/README.md) says how, and what each stand-in does not prove.
"""


def line(row: Row) -> str:
    """A figure in a line."""
    return (
        f"{row.name} / {row.beside}: {_ratio(asdict(row))}, {row.median:g} / {row.beside_median:g} {row.unit}"
    )


def page(results: dict[str, Any]) -> str:
    """The page of these results."""
    machine = results["machine"]
    where = (
        f"Last written {results['date']}, on {machine['system']}, {machine['cores']} cores "
        f"({machine['architecture']}), {machine['memory_gb']} GB, Python {machine['python']}; "
        f"load at the end {machine['load_at_end']}."
    )
    parts = [HEAD, where + "\n"]
    for family, title in FAMILIES.items():
        rows = [row for row in results["rows"] if row["family"] == family]
        parts.append(f"## {title}\n\n" + (_table(rows) if rows else "Not measured yet.\n"))
    return "\n".join(parts)


def write(source: Path = RESULTS, target: Path = PAGE) -> None:
    """Write the page."""
    target.write_text(page(json.loads(source.read_text())))


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | beside | ratio | target | met | medians |", "|---|---|---|---|---|---|"]
    notes = []
    for row in rows:
        target = f"{row['sense']} {row['target']:g}" if row["target"] is not None else ""
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        mark = ""
        if row["note"]:
            if row["note"] not in notes:
                notes.append(row["note"])
            mark = f" ({notes.index(row['note']) + 1})"
        medians = f"{row['median']:g} / {row['beside_median']:g} {row['unit']}"
        lines.append(
            f"| {row['name']}{mark} | {row['beside']} | {_ratio(row)} | {target} | {met} | {medians} |"
        )
    noted = "".join(f"\n({number}) {note}\n" for number, note in enumerate(notes, start=1))
    return "\n".join(lines) + "\n" + noted


def _ratio(row: dict[str, Any]) -> str:
    low, high = row["spread"]
    return f"{row['ratio']:.3g} ({low:.3g} to {high:.3g})"


if __name__ == "__main__":
    write()
