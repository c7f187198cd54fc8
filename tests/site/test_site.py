"""The built site in a browser: every page, narrow and wide, light and dark, and the search.

Needs the extras `docs` and `browser`, and Chromium: see install.sh.
"""

from __future__ import annotations

import io
import os
import pathlib
import re
import subprocess
import sys

import pytest
from PIL import Image, ImageStat

from . import browser

pytest.importorskip("mkdocs", reason="needs MkDocs: launch/setup_venv.sh docs")

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md"))
PICTURE = re.compile(r"^!\[.*\]\(|^```mermaid$", re.MULTILINE)
FAULTS = """<!doctype html><link rel="icon" href="data:,"><title>x</title>
<p style="width: 2000px">wide</p><img src="nothing.png">
<div class="diagram"><pre>sequenceDiagram</pre></div>
<script>
setTimeout(() => fetch("http://192.0.2.1/later"), 50)
console.error("a message")
missing()
</script>"""

pytestmark = pytest.mark.xdist_group("site")  # it is built once, by one process


def source(page):
    return (DOCS / f"{page}.md").read_text()


def address(page):
    return "" if page == "index" else f"{page}/"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, which has a page with faults, too."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
        timeout=400,
    )
    (folder / "faults").mkdir()
    (folder / "faults" / "index.html").write_text(FAULTS)
    with browser.served(folder) as base:
        yield base


@pytest.fixture(scope="module")
def chromium():
    path = browser.command()
    if path is None:
        pytest.skip("there is no Chromium: tests/site/install.sh installs it")
    with browser.started(path) as running:
        yield running


@pytest.fixture(scope="module")
def visitor(chromium, site):
    visitor = browser.Visitor(chromium, site)
    yield visitor
    visitor.close()


@pytest.fixture(scope="module")
def dark(chromium, site):
    visitor = browser.Visitor(chromium, site, "dark")
    yield visitor
    visitor.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_by_itself(page, visitor):
    """No errors, no other server, no diagram that is missing, no width beyond the screen."""
    assert visitor.visit(address(page), source(page).count("```mermaid\n")) == []


def test_what_is_wrong_with_a_page_is_found(visitor):
    found = visitor.visit("faults/", diagrams=1)
    kinds = [problem.partition(":")[0] for problem in found]
    assert set(kinds) == {"overflow", "diagrams", "image", "request", "console", "error"}
    assert kinds.count("overflow") == 2  # narrow and wide


def brightness(element):
    picture = Image.open(io.BytesIO(element.screenshot(animations="disabled")))
    return ImageStat.Stat(picture.convert("L")).mean[0]


@pytest.mark.parametrize("page", [page for page in PAGES if PICTURE.search(source(page))])
def test_pictures_are_dark_for_a_reader_who_prefers_dark(page, dark):
    dark.visit(address(page))
    pictures = dark.page.locator(".md-content img, .md-content .diagram").all()
    assert pictures
    for picture in pictures:
        assert brightness(picture) < 100, picture.get_attribute("src")


def test_the_reader_can_choose_the_colours(dark):
    dark.visit("performance/")
    plot = dark.page.locator(".md-content img").first
    assert brightness(plot) < 100
    dark.page.get_by_title("Use light colours").click()
    assert brightness(plot) > 150


def test_the_search_finds_an_option_and_leads_to_its_page(visitor):
    visitor.visit("")
    box = visitor.page.get_by_role("textbox", name="Search")
    box.click()
    box.press_sequentially("slow_factor")
    found = visitor.page.locator(".md-search-result__link").filter(has_text="slow_factor")
    found.first.click(timeout=20_000)
    visitor.page.wait_for_url(re.compile("h=slow_factor"))
    assert "slow_factor" in visitor.page.locator(".md-content").inner_text()
