"""The page in a real browser: no errors, real sizes, phone and desktop, light and dark, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xmodal.reports import comparison_table, read_run, write_page

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
LUMINANCES = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = luminance(getComputedStyle(document.body).backgroundColor);
const seen = [...document.querySelectorAll("h1, h2, p, th, td, figcaption, summary, dt, dd, a, li, footer")];
const drawn = [...document.querySelectorAll("figure svg text")];
const inks = seen.map((e) => getComputedStyle(e).color).concat(drawn.map((e) => getComputedStyle(e).fill));
return [paper, inks.map(luminance)];
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        stop = pytest.fail if os.environ.get("XMODAL_REQUIRE_BROWSER") == "1" else pytest.skip
        stop("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture(scope="module")
def address(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    return write_page([comparison, comparison / "seed-0" / "kd"], out).as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Any:
    """The page opened as a local file without network."""
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    show(browser, address, width=1280)
    return browser


def show(browser: Any, address: str, *, width: int, scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(address)


def open_details(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach((part) => part.open = true)")


def test_the_console_is_silent(opened: Any) -> None:
    open_details(opened)

    assert opened.get_log("browser") == []
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_the_cells_show_the_numbers_of_the_result(opened: Any, comparison: Path) -> None:
    _, rows = comparison_table(read_run(comparison).result)

    shown = opened.execute_script(
        "return [...document.querySelector('article table').tBodies[0].rows].map("
        "(row) => [row.querySelector('.cell'), ...[...row.cells].slice(1)].map((cell) => cell.textContent))"
    )

    assert [[cell.replace("−", "-") for cell in row] for row in shown] == [[row[0], *row[2:]] for row in rows]


def test_every_drawing_has_a_size_and_a_name(opened: Any) -> None:
    open_details(opened)
    drawings = opened.execute_script(
        "return [...document.querySelectorAll('figure svg')].map((svg) => "
        "[svg.getBoundingClientRect().width, svg.getBoundingClientRect().height, svg.getAttribute('aria-label')])"
    )

    assert len(drawings) == 7  # comparison, curves, losses, classes; curves, losses, classes
    assert all(width > 100 and height > 100 and label for width, height, label in drawings)


def test_no_text_of_a_drawing_leaves_the_drawing(opened: Any) -> None:
    outside = opened.execute_script(
        "return [...document.querySelectorAll('figure svg text')].filter((text) => {"
        "const a = text.getBoundingClientRect(), b = text.closest('svg').getBoundingClientRect();"
        "return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2;"
        "}).map((text) => text.textContent)"
    )

    assert outside == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(opened: Any, address: str, width: int) -> None:
    show(opened, address, width=width)
    open_details(opened)

    scroll, inner = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")

    assert inner == width and scroll <= inner


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(opened: Any, address: str, scheme: str) -> None:
    show(opened, address, width=1280, scheme=scheme)
    open_details(opened)

    paper, inks = opened.execute_script(LUMINANCES)

    assert (paper < 0.1) == (scheme == "dark")
    # 4.5 is the contrast that WCAG 2 asks of text
    assert min((max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) for ink in inks) >= 4.5
