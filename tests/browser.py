"""A real browser for tests: headless Chromium, driven by selenium.

    require_browser()
    with open_page("file:///tmp/report.html", tmp_path) as driver:
        assert "accuracy" in page_text(driver)

Debian's packages `chromium` and `chromium-driver` are what it needs. Nothing is
downloaded, and the profile of the browser stands in the folder of the test.
"""

import contextlib
import os
import shutil
import time

import pytest

# Chromium asks the network for nothing but the page.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
# All text that is on the page, also within shadow roots and frames.
TEXT = """
const pieces = [];
function walk(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    const text = node.textContent.trim();
    if (text) pieces.push(text);
    return;
  }
  if (["SCRIPT", "STYLE", "TEMPLATE"].includes(node.nodeName)) return;
  if (node.shadowRoot) walk(node.shadowRoot);
  if (node.nodeName === "IFRAME" && node.contentDocument) walk(node.contentDocument);
  node.childNodes.forEach(walk);
}
walk(document);
return pieces.join("\\n");
"""
# All elements that a CSS selector finds, also within shadow roots.
FIND = """
const selector = arguments[0];
const found = [];
function search(root) {
  found.push(...root.querySelectorAll(selector));
  for (const element of root.querySelectorAll("*")) {
    if (element.shadowRoot) search(element.shadowRoot);
  }
}
search(document);
return found;
"""


def require_browser():
    """Skips the test where Chromium is missing; on CI that is a failure."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if not missing:
        return
    message = f"needs {' and '.join(missing)} of Debian's chromium, chromium-driver"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def open_page(url, folder, size=(1400, 1000)):
    """Opens a page; gives the driver, and ends the browser afterwards.

    `folder` is an existing one for the profile of the browser, `size` that of the
    window in pixels.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    width, height = size
    profile = folder / "browser-profile"
    for flag in (
        *FLAGS,
        f"--window-size={width},{height}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With a path of its own selenium looks for no driver elsewhere.
    service = Service(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(60)
        driver.get(url)
        yield driver
    finally:
        driver.quit()


def page_text(driver):
    """Returns the text of the page, one piece a line, shadow roots included."""
    return driver.execute_script(TEXT)


def find_all(driver, selector):
    """Returns the elements that a CSS selector finds, shadow roots included."""
    return driver.execute_script(FIND, selector)


def wait_for_text(driver, *texts, seconds=60):
    """Returns the page's text once it holds all of `texts`; fails when it does not."""
    end = time.monotonic() + seconds
    while True:
        shown = page_text(driver)
        missing = [text for text in texts if text not in shown]
        if not missing:
            return shown
        if time.monotonic() > end:
            pytest.fail(f"the page does not show {missing}, but:\n{shown[:3000]}")
        time.sleep(0.3)


def console_errors(driver):
    """Returns what the page complained of in the console, such as a missing file."""
    return [
        entry["message"]
        for entry in driver.get_log("browser")
        if entry["level"] == "SEVERE"
    ]
