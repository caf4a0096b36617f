"""The pages in a real browser: nothing runs, nothing leaves, nothing is cut in print."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import duckdb
import ledger_rows
import pytest
import websocket
from ledger_rows import HOSTILE, MONTH, Cell

from reconcile import render

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PAPER = {"A4": (8.27, 11.69), "Letter": (8.5, 11.0)}
PAGES = ("index.html", "discrepancy.html", "allocation.html", "rollforward.html", "statements/CC-200.html")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: install it, or name its path in the variable CHROMIUM"
)


@dataclass
class Browser:
    """One tab over the DevTools protocol; notes what the page asks for and complains of."""

    tab: websocket.WebSocket
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _last: int = 0

    def call(self, method: str, **parameters: object) -> Any:
        """One command and its result."""
        self._last += 1
        self.tab.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.tab.recv())
            if message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a page and wait until it is there."""
        self.requested.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=page.as_uri() + fragment)
        while json.loads(message := self.tab.recv()).get("method") != "Page.loadEventFired":
            self._note(json.loads(message))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def print(self, paper: str, target: Path) -> str:
        """Print the page to PDF; its text, laid out, pages parted by form feeds."""
        width, height = PAPER[paper]
        printed = self.call("Page.printToPDF", paperWidth=width, paperHeight=height, printBackground=True)
        target.write_bytes(base64.b64decode(printed["data"]))
        return subprocess.run(  # noqa: S603 - poppler on our own file
            ["pdftotext", "-layout", str(target), "-"],  # noqa: S607 - found on the path, as in CI
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Page.javascriptDialogOpening":
                self.complaints.append(str(parameters))


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """A headless Chromium with a profile of its own."""
    profile = tmp_path_factory.mktemp("chromium")
    flags = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
    command = [str(CHROMIUM), *(f"--{flag}" for flag in flags), "--remote-debugging-port=0"]
    with subprocess.Popen(  # noqa: S603 - the browser that was found
        [*command, "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        port = next(found[1] for line in process.stderr if (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            address = next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page")
        tab = websocket.create_connection(address, timeout=30)
        opened = Browser(tab)
        for domain in ("Page", "Network", "Log", "Runtime"):
            opened.call(f"{domain}.enable")
        yield opened
        tab.close()
        process.terminate()


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> Path:
    """The small month, with enough findings and prices for tables that go over several printed pages."""
    many = tuple(
        Cell(1 + n % 31, "wrkspc_search", f"claude-model-{n:02}", "output_tokens", 10_000, 10_010 + n, "25", None)
        for n in range(70)
    )
    out_dir = tmp_path_factory.mktemp("reports") / "2026-10"
    with duckdb.connect() as connection:
        case = ledger_rows.Case(**{**vars(MONTH), "cells": MONTH.cells + many})
        ledger_rows.fill(connection, case)
        render.publish_views(connection)
        render.render(connection, out_dir)
    return out_dir


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_quiet(browser, reports, name, scheme):
    """A page asks for nothing but itself, in the console nothing is said, and no script is in it."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(reports / name)
    assert [url for url in browser.requested if not url.startswith("data:")] == [(reports / name).as_uri()]
    assert browser.complaints == []
    assert browser.evaluate("document.scripts.length") == 0


@pytest.mark.parametrize("name", PAGES)
def test_hostile_names_are_shown_as_text(browser, reports, name):
    """A name that looks like markup is read on the page as it is written."""
    browser.open(reports / name)
    assert HOSTILE in browser.evaluate("document.body.innerText")


def test_dark_pages_are_dark(browser, reports):
    """In dark mode page and chart take the style sheet's dark colors; in light mode its light ones."""
    colors = {}
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(reports / "index.html")
        colors[scheme] = browser.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            "getComputedStyle(document.querySelector('figure svg text')).fill]"
        )
    assert colors["light"] == ["rgb(255, 255, 255)", "rgb(21, 26, 33)"]
    assert colors["dark"] == ["rgb(17, 21, 26)", "rgb(230, 234, 238)"]


def test_link_to_a_finding_opens_it(browser, reports):
    """A finding that the first page names is unfolded where its link leads, without any script."""
    browser.open(reports / "index.html")
    links = browser.evaluate("[...document.querySelectorAll('a[href*=\"#f-\"]')].map(link => link.hash)")
    assert len(links) == 6
    browser.open(reports / "discrepancy.html", links[-1])
    assert browser.evaluate(f"document.querySelector('{links[-1]}').closest('details').open")


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_page_fits_its_window(browser, reports, name, width):
    """No page scrolls sideways as a whole: a wide table scrolls by itself."""
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(reports / name)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("name", PAGES)
def test_a_table_that_goes_on_says_so(browser, reports, name):
    """On a phone a table that does not fit fades out where it goes on, and keeps its first column when it is moved."""
    browser.call("Emulation.setDeviceMetricsOverride", width=400, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(reports / name)
    two_frames = "new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
    browser.call("Runtime.evaluate", expression=two_frames, awaitPromise=True)  # a scroll timeline begins with a frame
    shown = browser.evaluate(
        """[...document.querySelectorAll('.wide')].filter(wide => wide.checkVisibility()).map(wide => {
            const fade = parseFloat(getComputedStyle(wide).getPropertyValue('--fade'));
            const first = wide.querySelector('tbody :first-child:is(th, td):not([colspan])');
            wide.scrollLeft = 50;
            const stays = first.getBoundingClientRect().left >= wide.getBoundingClientRect().left;
            return [wide.scrollWidth > wide.clientWidth, fade > 0, stays];
        })"""
    )
    browser.call("Emulation.clearDeviceMetricsOverride")
    assert shown
    for goes_on, fades, stays in shown:
        assert goes_on == fades
        assert stays


@pytest.mark.parametrize("paper", list(PAPER))
@pytest.mark.parametrize("name", PAGES)
def test_print_cuts_no_table(browser, reports, tmp_path, name, paper):
    """In print every row of every table, also of a folded one, is whole, with every one of its cells on the paper."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(reports / name)
    last_cells = browser.evaluate(
        "[...document.querySelectorAll('tr')].map(row => row.cells[row.cells.length - 1].textContent.trim())"
        ".filter(text => /^[+\\u2212]?[\\d,]+\\.\\d\\d$/.test(text))"
    )
    printed = browser.print(paper, tmp_path / "page.pdf").split()
    assert len(last_cells) >= 5
    for text in set(last_cells):
        assert printed.count(text) >= last_cells.count(text), text


def test_findings_flow_in_print(browser, reports):
    """A finding goes over the edge of a sheet, so that no sheet is left half empty; its rows and paragraphs do not."""
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.open(reports / "discrepancy.html")
    kept = browser.evaluate(
        "['.finding', '.finding table', '.finding tr', '.finding p', '.facts'].map("
        "name => getComputedStyle(document.querySelector(name)).breakInside)"
    )
    browser.call("Emulation.setEmulatedMedia", media="")
    assert kept == ["auto", "avoid", "avoid", "avoid", "avoid"]


@pytest.mark.parametrize("name", PAGES)
def test_a_date_is_on_one_line(browser, reports, name):
    """No date is broken, however narrow its column."""
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(reports / name)
    lines = browser.evaluate("[...document.querySelectorAll('.day')].map(day => day.getClientRects().length)")
    browser.call("Emulation.clearDeviceMetricsOverride")
    assert lines
    assert max(lines) == 1


def test_print_repeats_the_head_of_a_table(browser, reports, tmp_path):
    """A table that goes over several sheets has its head on each, and its total once."""
    browser.open(reports / "discrepancy.html")
    heads = browser.evaluate(
        "[...document.querySelectorAll('thead')].filter(h => h.textContent.includes('Capture')).length"
    )
    printed = browser.print("A4", tmp_path / "page.pdf")
    assert heads == 5
    assert len(re.findall(r"Capture\n", printed)) > heads
    totals = re.findall(r"(?m)^ *Total\b", printed)
    assert len(totals) == heads


def test_print_is_dark_on_white(browser, reports, tmp_path):
    """Who reads in dark mode still prints dark ink on white paper."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(reports / "index.html")
    browser.print("Letter", tmp_path / "page.pdf")
    command = ["pdftoppm", "-gray", "-r", "20", "-f", "1", "-l", "1", str(tmp_path / "page.pdf")]
    picture = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603
    pixels = picture[-170 * 220 :]
    assert sum(pixel > 200 for pixel in pixels) > 0.8 * len(pixels)
