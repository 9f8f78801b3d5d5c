"""A real browser for tests: Debian's Chromium without a window, driven through its driver's HTTP interface (WebDriver)."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

T = TypeVar("T")

PROGRAMS = ("chromium", "chromedriver")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
ENTER = "\ue007"
SHIFT = "\ue008"
# The key under which WebDriver names elements.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_PATIENCE = 60


class Browser:
    """One window. What is looked for is waited for."""

    def __init__(self, profile: Path) -> None:
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0", "--log-level=WARNING"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._http = httpx.Client(timeout=_PATIENCE, trust_env=False)
        try:
            self._session = f"{self._started()}/session"
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            arguments += ["--no-first-run", "--no-proxy-server", f"--user-data-dir={profile}"]
            wanted = {
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            made = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
            self._session += f"/{made['sessionId']}"
        except BaseException:
            self._stop()
            raise

    def _started(self) -> str:
        assert self._driver.stdout is not None
        heard = []
        for line in self._driver.stdout:
            heard.append(line)
            if (port := re.search(r"started successfully on port (\d+)", line)) is not None:
                return f"http://127.0.0.1:{port[1]}"
        raise AssertionError("".join(heard))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ask("DELETE", "")
        self._stop()

    def _stop(self) -> None:
        self._http.close()
        self._driver.terminate()
        self._driver.communicate(timeout=_PATIENCE)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        json = (body or {}) if method == "POST" else None
        answer = self._http.request(method, self._session + path, json=json)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, url: str) -> None:
        """Go to a page."""
        self._ask("POST", "/url", {"url": url})

    def size(self, width: int, height: int) -> None:
        """Make the window so large."""
        self._ask("POST", "/window/rect", {"width": width, "height": height})

    def type(self, selector: str, keys: str) -> None:
        """Press keys in an element."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{found[_ELEMENT]}/value", {"text": keys})

    def click(self, selector: str) -> None:
        """Click on an element, as a person does: where it can be seen."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{found[_ELEMENT]}/click")

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str) -> str:
        """What can be read in an element; "" where there is none."""
        text: str = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return text.strip()

    def value(self, selector: str) -> str:
        """What stands in a field."""
        value: str = self.run("return document.querySelector(arguments[0]).value", selector)
        return value

    def complaints(self) -> list[str]:
        """What the browser's console has said since it was last asked."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def colours(self, scheme: str) -> None:
        """Have the reader prefer light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": [feature]}}
        self._ask("POST", "/goog/cdp/execute", command)


def until(look: Callable[[], T], good: Callable[[T], bool]) -> T:
    """What is seen, once it is good; what was seen last, if it does not become so."""
    end = time.monotonic() + _PATIENCE
    while not good(seen := look()):
        assert time.monotonic() < end, seen
    return seen
