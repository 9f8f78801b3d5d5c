"""Downloads a whole list and parses it, and nothing more: what an inventory cannot be faster than.

Called as a program with the list's URL and the token.
"""

from __future__ import annotations

import json
import sys
import urllib.request


def main() -> None:
    """Read page after page."""
    url: str | None = f"{sys.argv[1]}internal/coaches/?page_size=500"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    rows = []
    while url:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {sys.argv[2]}"})
        with opener.open(request) as answer:
            page = json.loads(answer.read())
        rows += page["results"]
        url = page["next"]
    sys.stdout.write(f"{len(rows)}\n")


if __name__ == "__main__":
    main()
