"""Tests of the bench itself: what needs no engine."""

from __future__ import annotations

import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "molecule" / "bench"
# The bench is run from its directory, not installed.
for place in (BENCH, BENCH / "provider"):
    sys.path.insert(0, str(place))
