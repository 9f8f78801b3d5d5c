"""Measuring: several ways of the same work take turns, so that a noisy machine harms all alike.

A figure is a ratio: how long (or how much) one way took beside another of the same round, and the median of these
over the rounds. Its spread is the lowest and the highest of them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"


class BenchmarkError(Exception):
    """Something that was to be measured did not do its work; str() says what."""


@dataclass(frozen=True)
class Taken:
    """What a piece of work took, in seconds, and what it printed, each line with the seconds at which it came."""

    seconds: float
    lines: list[tuple[float, str]]

    @property
    def output(self) -> str:
        """All that it printed."""
        return "".join(line for _at, line in self.lines)


@dataclass(frozen=True)
class Row:
    """A figure.

    ``ratio``: of ``name`` beside ``beside``, the median over ``rounds`` of those within a round; ``spread``: the
    lowest and the highest of them; ``median``, ``beside_median`` in ``unit``; ``target``: what the ratio must be
    at most (or ``sense`` "at least"), None where nothing was promised; ``met``: whether it is.
    """

    family: str
    name: str
    beside: str
    unit: str
    median: float
    beside_median: float
    ratio: float
    spread: tuple[float, float]
    rounds: int
    sense: str
    target: float | None
    met: bool | None
    note: str
    date: str


Work = Callable[[], float]


class Rounds:
    """The figures of one family, as they were taken: by name, one for each round."""

    def __init__(self, family: str, say: Callable[[str], None]) -> None:
        self.family = family
        self.taken: dict[str, list[float]] = {}
        self._say = say

    def run(self, works: Mapping[str, Work], rounds: int) -> None:
        """Let the works take turns; each round begins with another one."""
        names = list(works)
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                self.take(name, works[name]())

    def take(self, name: str, figure: float) -> None:
        """Take down a figure of one more round."""
        self.taken.setdefault(name, []).append(figure)
        self._say(f"{self.family}, {len(self.taken[name])}: {name}: {figure:.3f}")

    def row(
        self,
        name: str,
        beside: str,
        *,
        unit: str = "s",
        at_most: float | None = None,
        at_least: float | None = None,
        note: str = "",
    ) -> Row:
        """The figure of one work beside another one of the same rounds."""
        ours, theirs = self.taken[name], self.taken[beside]
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        ratio = round(statistics.median(ratios), 3)
        met = None
        if at_most is not None:
            met = ratio <= at_most
        elif at_least is not None:
            met = ratio >= at_least
        return Row(
            family=self.family,
            name=name,
            beside=beside,
            unit=unit,
            median=round(statistics.median(ours), 3),
            beside_median=round(statistics.median(theirs), 3),
            ratio=ratio,
            spread=(round(min(ratios), 3), round(max(ratios), 3)),
            rounds=len(ratios),
            sense="at least" if at_least is not None else "at most",
            target=at_most if at_most is not None else at_least,
            met=met,
            note=note,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
        )


def command(
    words: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
) -> Taken:
    """Run a command to its end and say what it took; one that fails is not measured."""
    lines: list[tuple[float, str]] = []
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        began = time.monotonic()
        with subprocess.Popen(
            [str(word) for word in words],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                lines.append((time.monotonic() - began, line))
        taken = Taken(time.monotonic() - began, lines)
    if process.returncode != 0:
        raise BenchmarkError(
            f"`{' '.join(map(str, words))}` ended with {process.returncode}:\n{taken.output}"
        )
    return taken


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": _release(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1024**3),
        "python": platform.python_version(),
        "load_at_end": round(os.getloadavg()[1], 1),
    }


def keep(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Write the figures down; those of families that were not run stay as they are."""
    families = {row.family for row in rows}
    try:
        before = json.loads(path.read_text())["rows"]
    except FileNotFoundError:
        before = []
    kept = [row for row in before if row["family"] not in families] + [asdict(row) for row in rows]
    kept.sort(key=lambda row: str(row["family"]))
    data = {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"), "machine": machine(), "rows": kept}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _release() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
