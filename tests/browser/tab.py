# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allocator's page in a tab of a real browser: what a user does there, sees there, and what can be measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

SECONDS = 15  # until what must come has to be there

# Runs before the page does: what was against its policy, what failed, what moved by itself, what was announced.
WATCHER = """
window.seen = {violations: [], errors: [], shift: 0, shifts: [], announced: []};
addEventListener("securitypolicyviolation", (event) => {
  seen.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
new PerformanceObserver((list) => {
  for (const {value, hadRecentInput, sources} of list.getEntries()) {
    if (hadRecentInput) continue;
    seen.shift += value;
    for (const {node, previousRect: was, currentRect: is} of sources) {
      seen.shifts.push(`${node?.outerHTML?.slice(0, 90)}: ${was.x}, ${was.y} to ${is.x}, ${is.y}`);
    }
  }
}).observe({type: "layout-shift", buffered: true});
addEventListener("DOMContentLoaded", () => {
  const announcer = document.getElementById("announcer");
  const heard = () => { if (announcer.textContent) seen.announced.push(announcer.textContent.trim()); };
  if (announcer) new MutationObserver(heard).observe(announcer, {childList: true});
});
"""

# The colours of each text that is seen, and of what is behind it, as a contrast (WCAG 2.2): those below 4.5.
CONTRASTS = """
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const pixel = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
const canvas = pixel.getContext("2d", {willReadFrequently: true});
const parse = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    if (colour[3] === 255) return colour;
    if (colour[3] !== 0) throw new Error(`half transparent: ${each.outerHTML.slice(0, 80)}`);
  }
  throw new Error("the page has no background");
};
const low = [];
let checked = 0;
const root = document.querySelector("dialog[open]") ?? document.body;
for (const element of root.querySelectorAll("*")) {
  const isControl = element.matches("input:not([type=checkbox], [type=radio]), select, textarea");
  const hasText = isControl || [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!hasText || !element.checkVisibility() || element.closest(".unseen, .skip")) continue;
  const [one, two] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
  const contrast = (one + 0.05) / (two + 0.05);
  checked += 1;
  if (contrast < 4.5) low.push(`${contrast.toFixed(2)}: ${element.outerHTML.slice(0, 100)}`);
}
return [checked, low];
"""

# What an audit of accessibility finds without a person: names, labels, references, ids, headings, sizes.
AUDIT = """
const wrong = [];
const root = document.querySelector("dialog[open]") ?? document.body;
const tell = (what, element) => wrong.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
const seen = (element) => element.checkVisibility();
const at = (id) => document.getElementById(id)?.textContent ?? "";
const textOf = (ids) => (ids ?? "").split(" ").map(at).join(" ").trim();
const CONTROLS = "button, input, select, textarea, summary";
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) wrong.push(`two elements have the id ${id}`);
for (const element of document.querySelectorAll("[aria-labelledby], [aria-describedby], [aria-controls]")) {
  for (const name of ["aria-labelledby", "aria-describedby", "aria-controls"]) {
    for (const id of (element.getAttribute(name) ?? "").split(" ").filter(Boolean)) {
      if (!document.getElementById(id)) tell(`${name} names ${id}, which is not there`, element);
    }
  }
}
for (const element of root.querySelectorAll(`${CONTROLS}, [role=meter], dialog, section, aside, a`)) {
  if (!seen(element)) continue;
  const labels = [...(element.labels ?? [])].map((label) => label.textContent.trim()).join(" ");
  const own = element.matches("button, summary, a") ? element.textContent.trim() : "";
  const isPart = element.matches("section, aside") && element.closest(".open");
  if (!isPart && !(labels || own || textOf(element.getAttribute("aria-labelledby")))) tell("no name", element);
  if (!element.matches(CONTROLS)) continue;
  const target = element.matches("[type=checkbox], [type=radio]") ? element.closest("label") : element;
  const box = target.getBoundingClientRect();
  if (box.width < 24 || box.height < 24) tell(`smaller than 24 px (${box.width} x ${box.height})`, element);
  if (element.tabIndex < 0) tell("not in the order of the focus", element);
}
for (const element of root.querySelectorAll("[tabindex]")) {
  if (element.tabIndex > 0) tell("an order of its own", element);
}
let level = root === document.body ? 0 : 1;
for (const heading of root.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
  if (!seen(heading)) continue;
  const own = Number(heading.tagName[1]);
  if (own > level + 1) tell(`a heading of level ${own} after one of ${level}`, heading);
  level = own;
}
for (const list of root.querySelectorAll("ul, ol")) {
  if ([...list.children].some((child) => child.tagName !== "LI")) tell("a list with something else in it", list);
}
if (!document.documentElement.lang) wrong.push("no language");
if (!document.title) wrong.push("no title");
if (document.querySelectorAll("main, [role=main]").length !== 1) wrong.push("not one main");
return wrong;
"""

# How far what is seen goes beyond the window, in pixels, and what does.
OVERFLOW = """
const width = document.documentElement.clientWidth;
const root = document.querySelector("dialog[open] form") ?? document.body;
const out = [...root.querySelectorAll("*")].filter((element) =>
  element.checkVisibility() && !element.closest(".unseen, .skip") && element.getBoundingClientRect().right > width + 1);
const scrolls = Math.max(document.scrollingElement.scrollWidth - width, root.scrollWidth - root.clientWidth);
return [Math.max(scrolls, 0), out.map((element) => element.outerHTML.slice(0, 120))];
"""


class Tab:
    """A tab with the page. What is asked for by words is found as a user finds it: by what is written there."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url, self.seconds = driver, url, SECONDS
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.media()
        driver.get_log("browser")  # those of a page before
        driver.get(url)

    def check(self) -> None:
        """That nothing was against the page's policy, and nothing failed but what the test has provoked."""
        seen = self.run("return window.seen")
        assert seen["violations"] == []
        assert seen["errors"] == [], seen["errors"]
        # a browser logs each answer that is a refusal: those are the test's own
        logged = [each for each in self.driver.get_log("browser") if each["source"] != "network"]
        assert [each for each in logged if each["level"] in ("WARNING", "SEVERE")] == []

    @contextmanager
    def before(self, script: str) -> Iterator[None]:
        """Have a script run in each document before the page's own."""
        added = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    # -- looking ------------------------------------------------------------------------------------------------------

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, what: str, true: Callable[[], Any]) -> Any:
        """Wait for something; what it was in the end."""
        deadline = time.monotonic() + self.seconds
        while not (found := true()):
            assert time.monotonic() < deadline, f"waited {self.seconds} s until {what}; the page is:\n{self.text}"
            time.sleep(0.05)
        return found

    @property
    def text(self) -> str:
        """All that is seen, but not what is for screen readers only."""
        return str(self.run("return (document.querySelector('dialog[open]') ?? document.body).innerText"))

    def says(self, text: str) -> None:
        self.until(f"it says {text!r}", lambda: text in self.text)

    def announces(self, text: str) -> None:
        self.until(f"it announces {text!r}", lambda: any(text in each for each in self.announced))

    @property
    def announced(self) -> list[str]:
        found: list[str] = self.run("return window.seen.announced")
        return found

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def is_seen(self, selector: str) -> bool:
        return bool(
            self.run("return [...document.querySelectorAll(arguments[0])].some((e) => e.checkVisibility())", selector)
        )

    def text_of(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    @property
    def focused(self) -> str:
        """The name of what has the focus: its id, else its text."""
        return str(self.run("const e = document.activeElement; return e.id || e.textContent.trim()"))

    @property
    def names(self) -> list[str]:
        """Of the instances that are shown, in order."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll('#instances > li')].filter((e) => e.checkVisibility())"
            ".map((e) => e.querySelector('h3').textContent)"
        )
        return found

    def row(self, name: str) -> str:
        return self.text_of(f"li:has(#instance-{name})")

    # -- doing --------------------------------------------------------------------------------------------------------

    def sign_in(self, token: str = "alices-token") -> None:
        self.until("there is a form", lambda: self.is_seen("#token"))
        self.fill("#token", token)
        self.click("#sign-in-go")
        self.until("all is shown", lambda: self.is_seen("#view-content") and self.text_of("#link-text") == "Live")

    def click(self, selector: str) -> None:
        script = "const e = document.querySelector(arguments[0]); e?.scrollIntoView({block: 'center'}); return e;"
        element = self.run(script, selector)
        assert element, f"no {selector}: {self.text}"
        element.click()

    def press(self, text: str) -> None:
        """Click the button, in what is open, that begins so."""
        found = self.run(
            "const root = document.querySelector('dialog[open]') ?? document.body;"
            "const found = [...root.querySelectorAll('button')].find((each) => each.checkVisibility()"
            " && each.textContent.trim().startsWith(arguments[0]));"
            "found?.scrollIntoView({block: 'center'}); return found;",
            text,
        )
        assert found, f"no button {text}: {self.text}"
        found.click()

    def fill(self, selector: str, text: str) -> None:
        element = self.find(selector)
        element.clear()
        if text:
            element.send_keys(text)

    def choose(self, selector: str, text: str) -> None:
        Select(self.find(selector)).select_by_visible_text(text)

    def keys(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def tab_to(self, name: str) -> None:
        """Press Tab until something has the focus."""
        for _step in range(60):
            if self.focused == name or self.focused.startswith(name):
                return
            self.keys(Keys.TAB)
        raise AssertionError(f"{name} is not reached by Tab; the focus is at {self.focused}")

    def open(self, name: str) -> None:
        self.click(f"#instance-{name}")
        self.until("it is open", lambda: self.is_seen(f"#details-{name}"))

    def parameter(self, name: str) -> str:
        """Selector of a parameter's control."""
        return f"[data-parameter='{name}']"

    def fault_of(self, selector: str) -> str:
        """What is said to be wrong at a control, as a screen reader is told: by its description."""
        return str(
            self.run(
                "const e = document.querySelector(arguments[0]);"
                "if (e.getAttribute('aria-invalid') !== 'true') return '';"
                "return e.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id))"
                ".filter((p) => p.className === 'error').map((p) => p.innerText).join()",
                selector,
            )
        )

    # -- how it is looked at ------------------------------------------------------------------------------------------

    def media(self, **features: str) -> None:
        """prefers_color_scheme="dark", …"""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})

    def window(self, width: int, height: int = 900, scale: float = 1.0) -> None:
        """A window so many CSS pixels wide; `scale`: device pixels to one."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def audit(self) -> list[str]:
        checked, low = self.run(CONTRASTS)
        assert checked > 3
        return [*self.run(AUDIT), *low]

    def overflow(self) -> tuple[int, list[str]]:
        scrolls, out = self.run(OVERFLOW)
        return scrolls, out

    def picture(self, path: str) -> None:
        self.driver.save_screenshot(path)
