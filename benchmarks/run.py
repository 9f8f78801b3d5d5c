"""Runs the benchmarks and writes their figures down: `make bench`, or with a choice

    python -m benchmarks.run [--only NAME ...] [--rounds N] [--quick] [--keep]

--quick proves that everything still runs, on fleets too small to say anything, and writes nothing down. --keep leaves
the hosts up for the next time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import (
    clients,
    fifty_gateways,
    hundred_files,
    inventories,
    measure,
    memory,
    one_gateway,
    report,
    sandboxes,
)
from benchmarks.ground import Settings
from benchmarks.measure import Row

FAMILIES: dict[str, Callable[[Settings], list[Row]]] = {
    family.FAMILY: family.run
    for family in (inventories, memory, hundred_files, fifty_gateways, one_gateway, clients, sandboxes)
}


def main() -> int:
    """Run what was chosen."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="What the fleet costs.")
    parser.add_argument("--only", action="append", choices=FAMILIES, help="this family; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="how often each work is measured")
    parser.add_argument("--quick", action="store_true", help="small fleets, one round, nothing written down")
    parser.add_argument("--keep", action="store_true", help="leave the hosts up")
    options = parser.parse_args()
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.0f} s  {line}\n")
        sys.stdout.flush()

    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claw-benchmark-")))
        rounds = 1 if options.quick else options.rounds
        settings = Settings(place, rounds, options.quick, options.keep, say, stack)
        for name in options.only or FAMILIES:
            rows = FAMILIES[name](settings)
            for row in rows:
                say(report.line(row))
            if not options.quick:
                measure.keep(rows)
                report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
