"""The bench's commands: `python molecule/bench --help`."""

from __future__ import annotations

import sys

from clawbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
