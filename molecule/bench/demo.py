"""The embedded demo, as `make up`, `make ask` and `make down` call it."""

from __future__ import annotations

import sys

from clawbench.demo import main

if __name__ == "__main__":
    sys.exit(main())
