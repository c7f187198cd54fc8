"""Chromium without a window, which reaches no server but the one on this machine."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: launch/setup_venv.sh browser"
)

NARROW, WIDE = 400, 1400  # pixels: a telephone, a laptop
_COMMANDS = ("chromium", "chromium-browser", "google-chrome")
_DIAGRAMS = """() => [...document.querySelectorAll('.diagram')].filter(diagram => {
    const texts = [...diagram.querySelectorAll('svg text')]
    return texts.length && texts.every(text => text.getBoundingClientRect().width > 0)
}).length"""
_BROKEN = (
    """() => [...document.images].filter(image => !image.naturalWidth).map(image => image.src)"""
)
_BEYOND = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def command() -> str | None:
    """Returns the path of a browser, or None."""
    return next((path for name in _COMMANDS if (path := shutil.which(name))), None)


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """Yields the address at which the files of a folder are served."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextlib.contextmanager
def started(path: str) -> Iterator[sync_api.Browser]:
    """Yields the browser. Names of servers are unknown to it."""
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to start as root with its sandbox
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


class Visitor:
    """Visits pages of one server, and notes what goes wrong.

    Args:
      browser: The browser.
      base: The address of the server.
      colours: What the visitor's system prefers: "light" or "dark".
    """

    def __init__(self, browser: sync_api.Browser, base: str, colours: str = "light") -> None:
        self._base = base
        self._problems: list[str] = []
        self._context = browser.new_context(color_scheme=colours)
        self._context.route("**/*", self._pass)
        self.page: sync_api.Page = self._context.new_page()
        self.page.on("console", self._read)
        self.page.on("pageerror", lambda error: self._problems.append(f"error: {error}"))

    def close(self) -> None:
        """Closes the page."""
        self._context.close()

    def visit(self, path: str, diagrams: int = 0) -> list[str]:
        """Opens a page, and returns what is wrong with it.

        Args:
          path: The page, from the root of the server.
          diagrams: How many diagrams it must show.
        """
        self._problems.clear()
        self.page.set_viewport_size({"width": NARROW, "height": 800})
        self.page.goto(self._base + path)
        self.page.wait_for_timeout(100)  # for what scripts do after everything has been loaded
        self._look_for_overflow(NARROW)
        self.page.set_viewport_size({"width": WIDE, "height": 900})
        self._look_for_overflow(WIDE)
        shown = self.page.evaluate(_DIAGRAMS)
        if shown != diagrams:
            self._problems.append(f"diagrams: {shown} of {diagrams} are drawn")
        self._problems += [f"image: {source}" for source in self.page.evaluate(_BROKEN)]
        return list(self._problems)

    def _pass(self, route: sync_api.Route) -> None:
        if route.request.url.startswith(self._base):
            route.continue_()
        else:
            self._problems.append(f"request: {route.request.url}")
            route.abort()

    def _read(self, message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._problems.append(f"console: {message.text}")

    def _look_for_overflow(self, width: int) -> None:
        with contextlib.suppress(sync_api.TimeoutError):  # the theme moves its header for a moment
            self.page.wait_for_function(f"({_BEYOND})() === 0", timeout=1000)
            return
        beyond = self.page.evaluate(_BEYOND)
        self._problems.append(f"overflow: {beyond} pixels beyond a width of {width}")
