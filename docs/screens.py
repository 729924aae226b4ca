"""Take the README's screenshots of the report: its start page on a desktop, a cluster with its sound on a phone.

python -m docs.screens            # after `make repro`, with a Chromium on PATH; writes docs/report*.png
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

REPORT = Path("report")
CLUSTER = "clusters/4.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def main() -> None:
    """Take both screenshots."""
    if CHROMIUM is None or not (REPORT / CLUSTER).exists():
        sys.exit(
            f"screens: requires a Chromium on PATH (found {CHROMIUM}) and {REPORT / CLUSTER}; run make repro first"
        )
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        take(browser, "index.html", Path("docs/report.png"), (1280, 1010), 1)
        take(browser, CLUSTER, Path("docs/report-phone.png"), (390, 844), 1.5)
        browser.close()


def take(browser: Browser, page: str, file: Path, size: tuple[int, int], scale: float) -> None:
    """One screenshot without scrolling, while the first sound of the page plays."""
    width, height = size
    view = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
    view.goto((REPORT / page).resolve().as_uri())
    view.wait_for_load_state("networkidle")
    play(view)
    image = Image.open(io.BytesIO(view.screenshot())).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
    image.save(file, optimize=True)
    view.close()


def play(page: Page) -> None:
    """Let the first sound of a page play for a while, if it has one."""
    if page.locator(".play").count():
        page.locator(".play").first.click()
        page.wait_for_timeout(1500)


if __name__ == "__main__":
    main()
