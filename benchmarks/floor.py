"""The floor: writes the files of its standard input, a JSON object of paths and contents, each durably.

Needs the standard library alone, because it runs on the machines.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Temporary file, fsync, rename, fsync of the directory; for each."""
    for name, content in json.load(sys.stdin).items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        with temporary.open("w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


if __name__ == "__main__":
    main()
