"""The pages of `report` and `compare` in a real browser: headless Chromium, without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from orchestrator.report.compare import compare
from orchestrator.report.compare_page import compare_page
from orchestrator.report.document import document
from orchestrator.report.page import page
from tests.eventful_run import eventful_run
from tests.testbed.fixtures import require

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")
PROBE = """
<script>
const box = document.querySelector(".box"), edges = box.getBoundingClientRect();
const at = { clientX: edges.left + edges.width / 2, clientY: edges.top };
box.dispatchEvent(new PointerEvent("pointermove", at));
const table = document.querySelector("table.sortable");
const heads = table ? [...table.tHead.rows[0].cells] : [];
const hosts = () => table ? [...table.tBodies[0].rows].map((row) => row.cells[0].textContent) : [];
const sorted = (name) => { heads.find((head) => head.textContent === name)?.click(); return hosts(); };
const page = document.documentElement;
const seen = {
  said: box.querySelector(".said").textContent,
  plain: hosts(), power: sorted("GPU power"), again: sorted("GPU power"), byName: sorted("host"),
  plots: document.querySelectorAll(".plot").length,
  wide: page.scrollWidth - page.clientWidth,
  heights: [...document.querySelectorAll("section")].map((section) => section.offsetHeight),
};
document.body.dataset.seen = JSON.stringify(seen);
</script>
"""


@pytest.fixture(scope="module")
def browser():
    """Return a headless Chromium's path."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    require("browser", None if found else f"none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture
def look(browser, tmp_path):
    """Return a function that opens a page, works it, and returns what was seen; a complaint is a failure."""

    def look(text: str, width: int) -> dict[str, object]:
        (tmp_path / "page.html").write_text(text.replace("</body>", f"{PROBE}</body>"))
        words = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom"),
        ]
        url = (tmp_path / "page.html").as_uri()
        done = subprocess.run([*words, url], capture_output=True, text=True, check=False, timeout=300)
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert done.returncode == 0, done.stderr
        assert complaints == []
        seen = re.search('data-seen="([^"]*)"', done.stdout)
        assert seen is not None, done.stdout[-2000:]
        return json.loads(html.unescape(seen[1]))

    return look


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return document(eventful_run(tmp_path_factory.mktemp("runs")))


@pytest.mark.parametrize("width", [1280, 500])  # a window of the shell is not narrower
def test_a_report_works_in_a_browser(look, told, width):
    seen = look(page(told), width)
    assert re.fullmatch(r"step \d+ {3}[\d.]+", seen["said"])
    assert seen["plain"] == seen["byName"] == [f"node-{i:03}" for i in range(4)]
    assert seen["power"][-1] == seen["again"][0] == "node-003"  # the slow host draws least
    assert seen["plots"] >= 8
    assert seen["wide"] <= 0  # nothing sticks out at the side
    assert all(seen["heights"])


def test_a_comparison_works_in_a_browser(look, told):
    other = told | {"run_id": "other-run"}
    seen = look(compare_page(compare([told, other])), 1280)
    assert seen["said"].splitlines()[1].startswith("eventful-7k2p  ")
    assert seen["said"].splitlines()[2].startswith("other-run  ")
    assert seen["wide"] <= 0


def test_a_broken_page_would_be_noticed(look, told):
    broken = page(told).replace("const sizes", "undefinedFunction(); const sizes")
    with pytest.raises(AssertionError, match="undefinedFunction"):
        look(broken, 1280)
