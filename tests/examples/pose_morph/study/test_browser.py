"""The page in a real browser: a whole study by keyboard, and one by touch on a phone."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.pose_morph.study.answer_file import read_ledger

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver are installed")

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1100,800",
)  # fmt: skip
WARNING, VISIBLE = 0.5, 1.0
SLACK = 0.8
"""How late a browser on a busy machine may be."""

RECORD = """
window.record = [];
const picture = document.getElementById("picture");
const look = (name) => window.record.push([name, performance.now() / 1000]);
document.getElementById("reveal").addEventListener("click", () => look("reveal"), true);
let shown = false;
new MutationObserver(() => {
  const now = !picture.hidden && picture.naturalWidth > 0;
  if (now !== shown) look((shown = now) ? "shown" : "gone");
}).observe(picture, { attributes: true });
"""


class Browser:
    """A browser with the study's page in it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url
        self.open()

    def open(self) -> None:
        self.driver.get(self.url)
        self.until(lambda: self.page() is not None)
        self.driver.execute_script(RECORD)

    def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.driver.find_element("tag name", "body").text
            time.sleep(0.02)

    def page(self) -> str | None:
        return self.driver.execute_script("return document.querySelector('main:not([hidden])')?.id ?? null")

    def phase(self) -> str:
        return self.driver.execute_script("return phase")

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tap(self, name: str) -> None:
        """Touch the middle of a button, as a finger does: there are no mouse events but those a touch makes."""
        box = self.driver.execute_script(
            "const b = document.getElementById(arguments[0]); b.scrollIntoView({block: 'center'});"
            "const r = b.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width, r.height]",
            name,
        )
        assert min(box[2:]) >= 48, f"{name} is too small for a finger: {box}"
        point = {"x": box[0], "y": box[1]}
        for kind, points in (("touchStart", [point]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def ready(self) -> bool:
        """Wait for the next question; False at the end."""
        self.until(lambda: self.phase() in ("ready", "over"))
        return self.phase() == "ready"

    def times(self) -> list[tuple[str, float]]:
        return [tuple(entry) for entry in self.driver.execute_script("return window.record.splice(0)")]

    def focused(self) -> str:
        return self.driver.execute_script("return document.activeElement.id")


def check_times(times: list[tuple[str, float]], *, seen_to_the_end: bool = True) -> None:
    """Compare a question's moments with what the server asks for."""
    (reveal, pressed), (shown, there), (gone, away) = times
    assert (reveal, shown, gone) == ("reveal", "shown", "gone")
    assert WARNING <= there - pressed <= WARNING + SLACK
    assert away - there <= VISIBLE + SLACK
    if seen_to_the_end:
        assert away - there >= VISIBLE - 0.05  # the clock of the page starts one frame after the picture is there


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """Open the page in a browser of its own."""
    drivers = []

    def start(port: int, *, phone: bool = False) -> Browser:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={tmp_path / f'browser{len(drivers)}'}"):
            options.add_argument(flag)
        if phone:
            metrics = {"width": 390, "height": 780, "pixelRatio": 2, "touch": True, "mobile": True}
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER)
        drivers.append(webdriver.Chrome(options=options, service=service))
        return Browser(drivers[-1], f"http://127.0.0.1:{port}/")

    yield start
    for driver in drivers:
        complaints = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        driver.quit()
        assert not complaints


def test_a_whole_study_by_keyboard_alone(serve, open_page, tmp_path):
    keys = webdriver.Keys
    client = serve(count=2, golden=2, warning=WARNING, visible=VISIBLE, answers=1)
    browser = open_page(client.port)
    assert browser.page() == "instructions"
    for _ in range(20):  # Start is reached by Tab
        browser.press(keys.TAB)
        if browser.focused() == "start":
            break
    browser.press(keys.ENTER)
    ways = [("r", "real"), (keys.ARROW_LEFT, "real"), ("G", "generated"), (keys.ARROW_RIGHT, "generated")]
    ways += [((keys.TAB, keys.SPACE), "real"), ((keys.TAB, keys.TAB, keys.ENTER), "generated")]
    expected = []
    while browser.ready():
        number = len(expected)
        assert browser.driver.find_element("id", "progress").text == f"Picture {number + 1} of 6"
        assert browser.focused() == "reveal"
        browser.press("r", keys.ARROW_RIGHT)  # nothing to answer yet
        assert browser.phase() == "ready"
        browser.press(keys.SPACE if number % 2 else keys.ENTER)
        assert browser.phase() == "warning"
        browser.press("r", "g")
        assert not browser.driver.find_element("id", "real").is_enabled()
        browser.until(lambda: browser.phase() == "visible")
        assert browser.driver.find_element("id", "real").is_enabled()
        early = number % 3 == 2
        if not early:
            browser.until(lambda: browser.phase() == "hidden")
            assert not browser.driver.find_element("id", "picture").is_displayed()
            assert browser.driver.find_element("id", "picture").get_attribute("src") is None
        way, answer = ways[number % len(ways)]
        browser.press(*way)
        expected.append(answer)
        browser.until(lambda: browser.phase() not in ("visible", "hidden", "saving"))
        check_times(browser.times(), seen_to_the_end=not early)
    assert browser.page() == "thanks"
    assert f"You judged {len(expected)} pictures" in browser.driver.find_element("id", "thanks").text
    (person,) = read_ledger(tmp_path / "results.jsonl")[0].participants.values()
    assert person.finished
    assert [question.answer for question in person.questions.values()] == expected
    assert len(expected) >= 4
    for number, question in enumerate(person.questions.values()):
        assert question.seconds < VISIBLE + 5
        assert (question.seconds >= VISIBLE) == (number % 3 != 2)


def test_a_whole_study_by_touch_on_a_phone(serve, open_page, tmp_path):
    client = serve(count=1, golden=2, warning=WARNING, visible=VISIBLE, answers=1)
    browser = open_page(client.port, phone=True)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.driver.execute_script(overflow) == 0
    browser.tap("start")
    expected = []
    while browser.ready():
        fits = "return document.documentElement.scrollHeight <= innerHeight"
        assert browser.driver.execute_script(fits)  # nobody scrolls while the seconds run
        assert browser.driver.execute_script(overflow) == 0
        browser.tap("real")
        assert browser.phase() == "ready"
        browser.tap("reveal")
        browser.until(lambda: browser.phase() == "visible")
        box = browser.driver.find_element("id", "picture").rect
        assert box["width"] > 300
        assert box["height"] > 300
        if len(expected) % 2:
            browser.until(lambda: browser.phase() == "hidden")
        expected.append(("real", "generated")[len(expected) // 2 % 2])
        browser.tap(expected[-1])
        browser.until(lambda: browser.phase() not in ("visible", "hidden", "saving"))
        check_times(browser.times(), seen_to_the_end=len(expected) % 2 == 0)
    assert browser.page() == "thanks"
    (person,) = read_ledger(tmp_path / "results.jsonl")[0].participants.values()
    assert [question.answer for question in person.questions.values()] == expected


def test_loading_again_goes_on_and_shows_no_picture_twice(serve, open_page, tmp_path):
    client = serve(count=3, golden=0, warning=WARNING, visible=VISIBLE)
    browser = open_page(client.port)
    browser.driver.find_element("id", "start").click()
    browser.ready()
    browser.press(webdriver.Keys.ENTER)
    browser.open()  # during the warning: nothing was seen
    assert browser.ready()
    assert browser.driver.find_element("id", "progress").text == "Picture 1 of 6"
    browser.press(webdriver.Keys.ENTER)
    browser.until(lambda: browser.phase() == "visible")
    browser.open()  # while the picture is there
    browser.until(lambda: browser.phase() == "hidden")
    assert "You have seen this picture" in browser.driver.find_element("id", "stage").text
    assert not browser.driver.find_element("id", "reveal").is_displayed()
    browser.press("g")
    assert browser.ready()
    assert browser.driver.find_element("id", "progress").text == "Picture 2 of 6"
    browser.open()  # between two questions
    assert browser.ready()
    assert browser.driver.find_element("id", "progress").text == "Picture 2 of 6"
    (person,) = read_ledger(tmp_path / "results.jsonl")[0].participants.values()
    first = next(iter(person.questions.values()))
    assert (first.answer, first.seconds) == ("generated", None)


def test_the_page_waits_for_a_server_that_is_away_and_loses_no_answer(serve, open_page, tmp_path):
    client = serve(count=3, golden=0, warning=WARNING, visible=VISIBLE)
    browser = open_page(client.port)
    browser.driver.find_element("id", "start").click()
    browser.ready()
    browser.press(webdriver.Keys.ENTER)
    browser.until(lambda: browser.phase() == "hidden")
    serve.stop()
    browser.press("g")
    trouble = browser.driver.find_element("id", "trouble")
    browser.until(trouble.is_displayed)
    assert "does not answer" in trouble.text
    serve(count=3, golden=0, warning=WARNING, visible=VISIBLE, port=client.port)
    assert browser.ready()
    assert not trouble.is_displayed()
    browser.driver.get_log("browser")  # the failed requests are complained about, rightly
    (person,) = read_ledger(tmp_path / "results.jsonl")[0].participants.values()
    assert next(iter(person.questions.values())).answer == "generated"


def test_two_people_at_once_get_each_picture_once_each(serve, open_page, tmp_path):
    client = serve(count=1, golden=0, warning=0.0, visible=VISIBLE, answers=2)
    browsers = [open_page(client.port), open_page(client.port, phone=True)]
    for browser in browsers:
        browser.driver.find_element("id", "start").click()
    for _ in range(2):
        for browser in browsers:
            assert browser.ready()
            browser.driver.find_element("id", "reveal").click()
        for browser in browsers:
            browser.until(lambda browser=browser: browser.phase() in ("visible", "hidden"))
            browser.press("r")
    for browser in browsers:
        assert not browser.ready()
        assert browser.page() == "thanks"
    people = read_ledger(tmp_path / "results.jsonl")[0].participants
    assert [sorted(person.seen()) for person in people.values()] == [[0, 1], [0, 1]]
    browsers[0].driver.find_element("id", "other").click()
    browsers[0].until(lambda: browsers[0].page() == "instructions")
    browsers[0].driver.find_element("id", "start").click()
    browsers[0].until(lambda: browsers[0].page() == "full")


def test_the_page_takes_the_papers_seconds_from_the_server(serve, open_page):
    client = serve()
    served = json.loads(client.get("/api/study").body)
    assert (served["warning"], served["visible"]) == (2.0, 4.0)
    browser = open_page(client.port)
    assert browser.driver.execute_script("return [study.warning, study.visible]") == [2, 4]
    text = browser.driver.find_element("id", "instructions").text
    assert "After 2 seconds a picture is shown, for 4 seconds" in text
    browser.driver.find_element("id", "start").click()
    browser.ready()
    browser.press(webdriver.Keys.ENTER)
    browser.until(lambda: browser.phase() == "hidden")
    (_, pressed), (_, there), (_, away) = browser.times()
    assert 2.0 <= there - pressed <= 2.0 + SLACK
    assert 3.95 <= away - there <= 4.0 + SLACK
    browser.driver.get(browser.url + "results")
    assert "R2G" in browser.driver.find_element("tag name", "table").text
