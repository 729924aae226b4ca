"""The report in a real browser, opened from disk: it works without a network, for everyone, and quickly."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from synthetic_exhibits import EXHIBITS, Synthetic, empty_chart

from earshot.report.build import write_report
from earshot.report.revisions import folder_source

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HOW = "no Chromium on PATH, which these tests drive: apt-get install chromium, or any Chrome"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=HOW)
PHONE, NARROW, DESK = 390, 360, 1440
WIDTHS = (360, 768, 1280, 1920)
# Elements that reach beyond the page, but for those in a box that scrolls by itself.
TOO_WIDE = """() => {
  const scrolls = (one) =>
    one && (/(auto|scroll|hidden|clip)/.test(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
  const wide = document.documentElement.clientWidth;
  return [...document.body.querySelectorAll("*")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width && (box.right > wide + 1 || box.left < -1) && !scrolls(one.parentElement);
  }).map((one) => `${one.tagName}.${one.className}`).slice(0, 5);
}"""
FIRST_VIEW_MS = 1000
HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "' onmouseover='window.hacked = 1' x='",
    "</script><script>window.hacked = 1</script><!--",
    "two\nlines\tand {{ 7 * 7 }} {% raw %} ${7*7} $x^{$ \\frac",
    "\u202e from right to left \u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627",
    "\x01\x0b control \ufffe \U0001f514 \u97f3",
    "long" * 700,
)
# Plays every sound and video of the page, a few at once, to see whether time goes on; tells those of which it does not.
PLAY_ALL = """async () => {
  const silent = [];
  const play = async (media) => {
    media.muted = true;
    try {
      const moved = new Promise((resolve, reject) => {
        media.addEventListener("timeupdate", () => media.currentTime > 0 && resolve());
        media.addEventListener("error", () => reject(media.error.message));
        setTimeout(() => reject("time stands still"), 10000);
      });
      await media.play();
      await moved;
    } catch (error) { silent.push(`${media.src}: ${error}`); }
  };
  const all = [...document.querySelectorAll("video, audio")];
  document.querySelectorAll(".sound").forEach((box) => box.replaceWith(box.querySelector("audio") ?? ""));
  while (all.length) await Promise.all(all.splice(0, 10).map(play));
  return silent;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--disable-background-networking", "--mute-audio"]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


def report_of(root: Path, **what) -> Path:
    """The report of a made-up run below `root`."""
    annotations = what.pop("annotations", None)
    synthetic = Synthetic(root, **({"annotations": annotations, "clip": annotations[1]} if annotations else {}))
    write_report([folder_source(synthetic.write(**what), "made up")], root / "report")
    return root / "report"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return report_of(tmp_path_factory.mktemp("run"), clusters=3, units=8, points=40)


def pages_of(report: Path) -> list[Path]:
    """All pages, of the clusters' only the first."""
    return [*sorted(report.glob("*.html")), report / "clusters" / "0.html"]


class Visitor:
    """A browser's page that keeps what went wrong: messages, errors, dialogs, and requests that leave the folder."""

    def __init__(self, browser: Browser, report: Path, width: int = DESK, scheme: str = "light") -> None:
        self.report, self.troubles = report, []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.check(request.url))
        self.page.on("requestfailed", lambda request: self.troubles.append(f"failed: {request.url} {request.failure}"))

    def check(self, address: str) -> None:
        if not address.startswith((self.report.as_uri(), "data:")):
            self.troubles.append(f"leaves the folder: {address}")

    def open(self, file: Path) -> Page:
        self.page.goto(file.as_uri())
        return self.page

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def visit(browser, report) -> Iterator[Visitor]:
    visitor = Visitor(browser, report)
    yield visitor
    visitor.close()


# Where the first playhead is whenever it moves, and what its button says: on a busy machine a sound is soon over.
NOTE_PLAYHEAD = """() => {
    const box = document.querySelector('audio').closest('.sound');
    const head = box.querySelector('.playhead'), verb = box.querySelector('.verb');
    window.noted = [];
    const note = () => window.noted.push([parseFloat(head.style.left), verb.textContent]);
    new MutationObserver(note).observe(head, { attributes: true, attributeFilter: ['style'] });
}"""


def until(page: Page, expression: str, seconds: float = 20) -> None:
    """Wait until an expression is true (Playwright's own way to wait needs eval, which the pages forbid)."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        time.sleep(0.02)


def load_all_images(page: Page) -> list[str]:
    """Load what would be loaded when it comes into view; the addresses of pictures that cannot be shown."""
    return page.evaluate(
        """async () => {
        const images = [...document.images];
        images.forEach((image) => { image.loading = "eager"; });
        await Promise.all(images.map((image) => image.decode().catch(() => {})));
        return images.filter((image) => !image.naturalWidth).map((image) => image.src);
        }"""
    )


def dead_links(page: Page, report: Path) -> list[str]:
    """Links and addresses of media that lead to no file of the report."""
    script = """() => [...document.querySelectorAll("[href], [src], [srcset], [poster]")].flatMap((one) =>
        [one.href, one.src, one.srcset && new URL(one.srcset, document.baseURI).href, one.poster].filter(Boolean))"""
    files = {address: Path(unquote(urlsplit(address).path)) for address in page.evaluate(script)}
    return [address for address, file in files.items() if not (file.is_file() and file.is_relative_to(report))]


def grave(page: Page) -> list[str]:
    """What axe finds serious or critical."""
    violations = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    return [
        f"{page.url[-40:]}: {rule['id']} at {rule['nodes'][0]['target']}"
        for rule in violations
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.slow
def test_every_page_opens_from_disk_with_all_links_images_sounds_and_videos(visit):
    for file in pages_of(visit.report):
        page = visit.open(file)
        assert dead_links(page, visit.report) == []
        assert load_all_images(page) == []
        assert grave(page) == []
        assert (
            page.evaluate(PLAY_ALL) == []
        )  # the last: it takes the sounds out of their boxes, where one plays at a time
    assert visit.troubles == []


def test_a_playhead_goes_over_the_cochleagram_while_the_sound_plays(visit):
    page = visit.open(visit.report / "clusters" / "0.html")
    page.evaluate(NOTE_PLAYHEAD)
    button = page.locator(".sound").filter(has=page.locator("audio")).first.get_by_role("button")
    button.click()
    until(page, "document.querySelector('audio').ended")
    noted = page.evaluate("window.noted")
    places = [place for place, verb in noted if verb == "Pause"]
    assert places == sorted(places) and len(set(places)) >= 3 and places[0] < 100
    assert button.inner_text().startswith("Play") and visit.troubles == []


def test_one_sound_plays_at_a_time_and_a_click_on_the_cochleagram_goes_there(visit):
    page = visit.open(visit.report / "clusters" / "0.html")
    boxes = page.locator(".sound").filter(has=page.locator("audio"))
    boxes.nth(0).get_by_role("button").click()
    until(page, "document.querySelectorAll('audio')[0].currentTime > 0")
    graph = boxes.nth(1).locator(".graph")
    width = graph.bounding_box()["width"]
    graph.click(position={"x": 0.5 * width, "y": 5})
    until(page, "document.querySelectorAll('audio')[1].currentTime > 0.4")
    assert page.evaluate("document.querySelectorAll('audio')[0].paused")


def test_the_keyboard_reaches_the_content_and_starts_a_sound(visit):
    page = visit.open(visit.report / "clusters" / "0.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.play')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Space")
    until(page, "document.querySelector('audio').currentTime > 0")
    page.keyboard.press("Space")
    until(page, "document.querySelector('audio').paused")


def test_units_are_sifted_and_ordered(visit):
    page = visit.open(visit.report / "units.html")
    assert page.locator(".units > li").count() == 16
    page.locator("[name=network]").select_option("random")
    page.locator("[name=order]").select_option("unit")
    displayed = page.locator(".units > li")
    assert displayed.evaluate_all("rows => rows.map((row) => row.dataset.network + row.dataset.unit)") == [
        f"random{number}" for number in range(8)
    ]
    page.locator("[name=network]").select_option("")
    page.get_by_label("selective only").check()
    selective = page.locator(".units > li[data-selective]").count()
    assert page.locator(".units > li").count() == selective and selective > 0
    assert page.locator("output").inner_text() == f"{selective} of 16 units"
    page.locator("[name=frames]").select_option("5")
    box = page.locator(".units img").first.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(5, rel=0.05)


def test_a_map_tells_its_points_by_mouse_and_by_keys(visit):
    page = visit.open(visit.report / "embeddings.html")
    canvas = page.locator(".plot canvas").first
    canvas.focus()
    canvas.press("ArrowRight")
    tip = page.locator(".tip:visible")
    first = tip.inner_text()
    assert (
        "clip000" in first
        and tip.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    )
    canvas.press("ArrowRight")
    assert tip.inner_text() != first
    canvas.press("Escape")
    assert page.locator(".tip:visible").count() == 0
    place = page.evaluate("""() => {
        const data = JSON.parse(document.querySelector("script.points").textContent);
        return data.maps['image-trained'][0];
    }""")
    side = canvas.bounding_box()["width"]
    canvas.hover(position={"x": side * (0.03 + 0.94 * place[0]), "y": side * (0.03 + 0.94 * (1 - place[1]))})
    assert "clip000" in page.locator(".tip:visible").inner_text() and visit.troubles == []


def too_wide(browser: Browser, report: Path, width: int, scheme: str = "light") -> list[tuple[str, list[str]]]:
    """The elements of each page that are wider than the page, all details open."""
    visitor = Visitor(browser, report, width, scheme)
    wide = []
    for file in pages_of(report):
        page = visitor.open(file)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        wide.append((file.name, page.evaluate(TOO_WIDE)))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, file
    visitor.close()
    return [(name, elements) for name, elements in wide if elements]


def test_nothing_is_wider_than_a_narrow_phone(browser, report):
    assert too_wide(browser, report, NARROW) == []


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_its_page(browser, report, width):
    assert too_wide(browser, report, width, "light" if width < DESK else "dark") == []


def test_an_image_opens_large_and_the_arrow_keys_lead_on(visit):
    page = visit.open(visit.report / "units.html")
    first = page.locator("a.zoom").first
    first.focus()
    first.press("Enter")
    large = page.locator("dialog.large")
    assert large.is_visible()
    before = large.locator("img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert large.locator("img").get_attribute("src") != before
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert not large.is_visible() and first.evaluate("one => one === document.activeElement")
    assert visit.troubles == []


def test_a_word_is_explained_while_the_focus_is_on_it(visit):
    page = visit.open(visit.report / "index.html")
    word = page.locator(".term", has_text="wrong sound").first
    word.focus()
    assert "sound of another video" in page.locator("[role=tooltip]").inner_text()
    word.press("Escape")
    assert page.locator("[role=tooltip]").count() == 0
    page.locator(".term", has_text="cIoU").first.hover()
    assert "intersection over union" in page.locator("[role=tooltip]").inner_text()
    assert word.get_attribute("href").startswith("glossary.html#")


def test_clusters_are_sifted_and_ordered(visit):
    page = visit.open(visit.report / "clusters.html")
    page.locator("[name=order]").select_option("moments")
    sizes = page.locator(".clusters > li").evaluate_all("rows => rows.map((row) => Number(row.dataset.moments))")
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 3
    name = page.locator("[name=annotation] option").nth(1).get_attribute("value")
    page.locator("[name=annotation]").select_option(name)
    kept = page.locator(".clusters > li").evaluate_all("rows => rows.map((row) => row.dataset.annotation)")
    assert {*kept} == {name}


def test_a_strangers_text_runs_nothing_and_breaks_nothing(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("earshot.report.site.save_chart", empty_chart)  # tests/test_report.py has hostile charts
    monkeypatch.setattr("earshot.report.site.save_paper_chart", empty_chart)
    folder = report_of(tmp_path, clusters=1, units=8, points=20, annotations=HOSTILE)
    visitor = Visitor(browser, folder, NARROW)
    for file in pages_of(folder):
        page = visitor.open(file)
        assert load_all_images(page) == [] and dead_links(page, folder) == []
        assert page.evaluate("window.hacked") is None and page.locator("[onerror], [onmouseover]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, file
    page = visitor.open(folder / "embeddings.html")
    page.locator(".plot canvas").first.press("ArrowRight")
    assert page.locator(".tip:visible").count() == 1
    assert visitor.troubles == []
    visitor.close()
    names = {file.name for file in folder.rglob("*")}
    assert not any("script" in name or "long" in name for name in names)


def test_exhibits_with_nothing_to_show_have_pages_that_say_why(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("earshot.report.site.save_chart", empty_chart)
    monkeypatch.setattr("earshot.report.site.save_paper_chart", empty_chart)
    folder = report_of(tmp_path, clusters=1, units=1, points=10, without=EXHIBITS)
    shutil.rmtree(tmp_path / "data" / "scenes")
    visitor = Visitor(browser, folder)
    for name in EXHIBITS:
        page = visitor.open(folder / f"{name}.html")
        assert "no map of where a sound comes from" in page.locator(".lead").inner_text()
        assert dead_links(page, folder) == [] and grave(page) == []
    assert visitor.troubles == []
    visitor.close()


@pytest.mark.slow
def test_runs_side_by_side_have_pages_as_good_as_those_of_one(browser, report, tmp_path):
    Synthetic(tmp_path / "other", seed=1).write(clusters=2, units=4, points=20)
    sources = [folder_source(report.parent, "main"), folder_source(tmp_path / "other", HOSTILE[0])]
    write_report(sources, tmp_path / "report")
    visitor = Visitor(browser, tmp_path / "report", NARROW)
    for file in [*sorted((tmp_path / "report").glob("*.html")), tmp_path / "report/clusters/2-1.html"]:
        page = visitor.open(file)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, file
        assert dead_links(page, tmp_path / "report") == [] and load_all_images(page) == [] and grave(page) == []
    assert page.evaluate("window.hacked") is None and visitor.troubles == []
    visitor.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_axe_finds_nothing_serious(browser, report, width, scheme):
    visitor = Visitor(browser, report, width, scheme)
    for file in pages_of(report):
        page = visitor.open(file)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert grave(page) == []
    visitor.close()


@pytest.mark.slow
def test_the_first_view_of_the_largest_pages_comes_within_a_second(browser, tmp_path):
    folder = report_of(tmp_path, clusters=500, units=2000, points=1000, texture=False)
    assert len([*(folder / "clusters").glob("*.html")]) == 500
    for name in ("units.html", "clusters.html", "embeddings.html", "clusters/499.html"):
        times = []
        for _ in range(3):  # the best of three: other work on the machine is no fault of the page
            visitor = Visitor(browser, folder)
            page = visitor.open(folder / name)
            until(page, "performance.getEntriesByName('first-contentful-paint').length > 0")
            times.append(
                page.evaluate("""() => ({
                painted: performance.getEntriesByName("first-contentful-paint")[0].startTime,
                usable: performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
            })""")
            )
            visitor.close()
        print(name, times)
        assert min(max(each.values()) for each in times) < FIRST_VIEW_MS, (name, times)
