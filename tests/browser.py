"""Controls a headless Chromium through a pipe with the DevTools protocol.

Chromium reads commands from file descriptor 3 and writes answers to 4 (`--remote-debugging-pipe`),
as JSON objects terminated by a zero byte. Only Python's standard library is needed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HANG = 60  # seconds
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIRED = "TAPELINE_TEST_BROWSER"  # "required": tests fail if there is no browser


def find() -> str:
    """Returns the path of Chromium or Chrome.

    If there is none, skips the test; fails it if `TAPELINE_TEST_BROWSER` is "required".
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        words = "no Chromium: install Debian's package chromium"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(words)
        pytest.skip(f"{words}; {REQUIRED}=required makes this a failure")
    return found


class Page:
    """A browser tab.

    Args:
      browser: the browser.
      session: ID of the tab's protocol session.

    Attributes:
      errors: console errors, resources that failed to load, and uncaught exceptions.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.errors: list[str] = []

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a protocol command to the tab and returns the result."""
        return self._browser.ask(method, params, self)

    def run(self, script: str) -> Any:
        """Returns the value of a JavaScript expression, or of its promise, as decoded JSON.

        Asserts that the expression throws no exception.
        """
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = HANG) -> Any:
        """Waits until a JavaScript expression is truthy; returns its value.

        Asserts that this takes at most `seconds`.
        """
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script} stayed {value!r}; errors: {self.errors}"
            time.sleep(0.2)
        return value

    def screenshot(self, path: Path, whole: bool = False) -> Path:
        """Writes a PNG of the window, or of the `whole` page, and returns its path."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def told(self, message: dict[str, Any]) -> None:
        """Records the error that a protocol event reports, if any, in `errors`."""
        params, method = message.get("params", {}), message["method"]
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(str(details.get("exception", details).get("description", details)))
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(" ".join(_said(each) for each in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    @property
    def session(self) -> str:
        """ID of the tab's protocol session."""
        return self._session


class Browser:
    """A running Chromium process, as seen through its DevTools pipe.

    Args:
      to: file descriptor that commands are written to.
      of: file descriptor that answers are read from.
    """

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of = to, of
        self._rest, self._number = b"", 0
        self._pages: dict[str, Page] = {}

    def open(self, url: str, width: int = 1400, height: int = 1000) -> Page:
        """Opens a URL in a new tab with the given size in pixels; returns the loaded tab."""
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        answer = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, answer["sessionId"])
        self._pages[page.session] = page
        for domain in ("Page", "Runtime", "Log"):
            page.ask(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.ask("Emulation.setDeviceMetricsOverride", **size)
        page.ask("Page.navigate", url=url)
        page.until("document.readyState === 'complete'")
        return page

    def ask(self, method: str, params: dict[str, Any], page: Page | None = None) -> dict[str, Any]:
        """Sends a protocol command, to a tab if `page` is given, and returns the result.

        Events that arrive before the answer are passed to their tabs. Raises AssertionError if the
        answer is an error or takes longer than `HANG` seconds.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if page is not None:
            message["sessionId"] = page.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + HANG
        while time.monotonic() < end:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if "method" in answer and answer.get("sessionId") in self._pages:
                self._pages[answer["sessionId"]].told(answer)
        raise AssertionError(f"no answer to {method} in {HANG} s")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            some = os.read(self._of, 1 << 16)
            assert some, "the browser has gone"
            self._rest += some
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


def _said(argument: dict[str, Any]) -> str:
    """Returns a JavaScript console argument as text."""
    return str(argument.get("value", argument.get("description", argument)))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Yields a browser started with a profile directory; kills the browser at the end of the block.

    Without Chromium, skips or fails the test, as `find` does.
    """
    path = find()
    commands, to = os.pipe()
    of, answers = os.pipe()

    def connect() -> None:  # runs in the child; its pipe ends must be 3 and 4
        ours = os.dup(commands), os.dup(answers)
        os.dup2(ours[0], 3)
        os.dup2(ours[1], 4)

    line = [
        path,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    process = subprocess.Popen(
        line,
        close_fds=False,
        preexec_fn=connect,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    try:
        yield Browser(to, of)
    finally:
        process.kill()
        process.wait()
        os.close(to)
        os.close(of)
