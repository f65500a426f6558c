"""The page in a real Chromium: what is drawn, what is said, what happens when pictures stop."""

import shutil
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from playwright.sync_api import sync_playwright
from runs import STATUS, Run

from edgenet.stream.status import LiveAccuracy, LiveAgreement
from edgenet.stream.viewer import Viewer

DESKTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}

UNKNOWN = "\N{EN DASH}"

WATCH = """
async (count) => {
  const seen = [];
  const canvas = document.getElementById("picture");
  while (seen.length < count) {
    await new Promise(requestAnimationFrame);
    const pixel = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 4, 1, 1);
    seen.push({
      colour: [...pixel.data.slice(0, 3)],
      sequence: edgenet.shown.sequence,
      label: edgenet.shown.guesses[0].label,
      listed: document.querySelector("#guesses .name").textContent,
      spoken: canvas.getAttribute("aria-label"),
      age: document.getElementById("age").textContent,
    });
  }
  return seen;
}
"""
LETTERS = """
() => {
  const canvas = document.getElementById("picture");
  const strip = Math.round(canvas.height / 8);
  const data = canvas.getContext("2d")
    .getImageData(0, canvas.height - strip, canvas.width * 0.7, strip).data;
  let white = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] > 240 && data[i + 1] > 240 && data[i + 2] > 240) white += 1;
  }
  return white;
}
"""


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium")
    assert program, "tools/install_system_packages.sh tests"
    with sync_playwright() as playwright:
        # The sandbox wants rights that a container's root does not have; the page is our own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def viewer():
    with Viewer("127.0.0.1:0") as found:
        yield found


@contextmanager
def opened(chromium, url, **settings):
    """Open a page that must not complain, about the content security policy included."""
    context = chromium.new_context(**settings or DESKTOP)
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if _is_complaint(message) else None,
    )
    page.complaints = complaints
    page.goto(url)
    yield page
    context.close()


def _is_complaint(message):
    """Leave out the advice that Chromium gives about these tests' own reading of the canvas."""
    return message.type != "log" and "willReadFrequently" not in message.text


def wait_for(page, condition, seconds=10):
    """Playwright's own waiting evaluates text within the page, which the page's policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"{condition}: never within {seconds} s"
        page.wait_for_timeout(50)


def state(page):
    return page.evaluate("document.body.dataset.state")


def nearest(colour):
    red, green, blue = colour
    return max((red, "red"), (green, "green"), (blue, "blue"))[1]


def test_the_label_is_always_that_of_the_picture_on_show(chromium, viewer):
    with Run(viewer), opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "edgenet.pictures > 3")
        seen = page.evaluate(WATCH, 120)
        assert page.complaints == []
    for moment in seen:
        assert nearest(moment["colour"]) == moment["label"] == moment["listed"]
        assert moment["spoken"] == f"live picture: {moment['label']}, 90 %"
        assert int(moment["age"].removesuffix(" ms")) < 500
    sequences = [moment["sequence"] for moment in seen]
    assert sequences == sorted(sequences)
    assert len(set(sequences)) > 20
    assert {moment["label"] for moment in seen} == {"red", "green", "blue"}


def test_the_label_is_written_into_the_picture(chromium, viewer):
    with Run(viewer, label="i") as run, opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "edgenet.pictures > 3")
        little = page.evaluate(LETTERS)
        run.results["label"] = "a wide label with many letters"
        wait_for(page, "edgenet.shown.guesses[0].label.length > 5")
        much = page.evaluate(LETTERS)
        assert 20 < little < much / 5
        run.results["label"] = "endless " * 24
        wait_for(page, "edgenet.shown.guesses[0].label.length > 100")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.complaints == []


def test_a_label_is_text_and_nothing_else(chromium, viewer):
    evil = "<img src=x onerror=\"document.title='owned'\"><script>1</script> ünïcödé 🐱"
    with Run(viewer, label=evil), opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "edgenet.pictures > 3")
        assert page.locator("#guesses .name").first.text_content() == evil
        assert page.title() != "owned"
        assert page.locator("#guesses img").count() == 0
        assert page.complaints == []


def test_what_stands_beside_the_picture(chromium, viewer, tmp_path):
    run = Run(viewer)
    run.status = replace(
        STATUS,
        temperature_c=61.3,
        clock_mhz=2400.0,
        throttled=True,
        throttle_reasons=("under-voltage now",),
        accuracy=LiveAccuracy(
            top1=0.684, top5=0.884, low=0.641, high=0.724, pictures=452, window_top1=0.72,
            window_pictures=50,
        ),
        agreement=LiveAgreement(
            top1=0.968, low=0.949, high=0.98, frames=1500, alarms=("brightness", "sharpness")
        ),
    )  # fmt: skip
    with run, opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "edgenet.status !== null && edgenet.pictures > 60")
        time.sleep(1)

        def text(name):
            return page.locator(f"#{name}").text_content().replace("\u202f", " ")

        assert text("artifact") == "colours int8, null"
        assert text("source") == "rtsp://camera.example/stream"
        assert text("delivered") == "640 \N{MULTIPLICATION SIGN} 480 · 30 fps · MJPG"
        assert text("delivered-count") == "1 234"
        assert text("dropped-count") == "34"
        assert (text("latency-p50"), text("latency-p95"), text("latency-p99")) == (
            "5.00",
            "10.0",
            UNKNOWN,
        )
        assert text("clock") == "driver's clock"
        assert text("temperature") == "61.3 °C"
        assert text("mhz") == "2.40 GHz"
        assert text("throttled") == "yes"
        assert text("throttle-reasons") == "under-voltage now"
        assert text("accuracy-top1") == "68.4"
        assert text("accuracy-interval") == "95 % interval 64.1 to 72.4 %"
        assert text("agreement-top1") == "96.8"
        assert text("agreement-frames") == "over 1 500 frames, not accuracy"
        assert page.locator("#agreement-alarms").is_visible()
        assert text("agreement-alarms").endswith("brightness, sharpness")
        assert text("state") == "LIVE"
        assert "preprocess" in text("stages") and "draw, here" in text("stages")
        bar = page.evaluate(
            "(() => { const box = (id) => document.getElementById(id).getBoundingClientRect();"
            " const whole = box('accuracy-range').width"
            " / document.querySelector('.range').getBoundingClientRect().width;"
            " return whole })()"
        )
        assert bar == pytest.approx(0.724 - 0.641, abs=0.01)
        drawn = page.evaluate(
            "(() => { const c = document.getElementById('spark'); return c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v > 128)"
            ".length })()"
        )
        assert drawn > 300, "the latencies are a line"
        page.screenshot(path=tmp_path / "desktop.png", full_page=True)


def test_what_is_not_known_is_a_dash(chromium, viewer):
    run = Run(viewer)
    run.status = replace(
        STATUS, delivered=None, tally=None, frame_to_label=None, labels_per_second=None, stages=()
    )
    with run, opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "edgenet.status !== null && edgenet.pictures > 3")
        page.wait_for_timeout(700)
        for name in ("temperature", "mhz", "throttled", "latency-p50", "dropped-count", "rate"):
            assert page.locator(f"#{name}").text_content() == UNKNOWN, name
        assert not page.locator("#accuracy").is_visible()
        assert not page.locator("#agreement").is_visible()
        assert page.complaints == []


def test_a_stalled_source(chromium, viewer):
    with Run(viewer) as run, opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "document.body.dataset.state === 'live'")
        assert not page.locator("#banner").is_visible()
        run.stalled = True
        wait_for(page, "document.body.dataset.state === 'fault'")
        assert page.locator("#banner").text_content() == "no frame for 2 s: stalled"
        assert page.locator("#banner").get_attribute("role") == "alert"
        run.stalled = False
        wait_for(page, "document.body.dataset.state === 'live'")
        assert not page.locator("#banner").is_visible()


def test_pictures_that_stop_and_a_run_that_ends(chromium):
    with Viewer("127.0.0.1:0") as viewer:
        url = viewer.urls[0]
        with opened(chromium, url) as page:
            wait_for(page, "document.body.dataset.state === 'waiting'")
            with Run(viewer):
                wait_for(page, "document.body.dataset.state === 'live'")
            wait_for(page, "document.body.dataset.state === 'stale'")
            assert "No new picture for" in page.locator("#banner").text_content()
            wait_for(page, "document.getElementById('age').textContent.endsWith(' s')", 15)
            viewer.close()
            wait_for(page, "document.body.dataset.state === 'away'")
            assert "the run has ended" in page.locator("#banner").text_content()
            # The next run on the same port, which counts from 0 again.
            with Viewer(url.removeprefix("http://").rstrip("/")) as again, Run(again):
                wait_for(page, "document.body.dataset.state === 'live'")
                assert page.evaluate("edgenet.shown.sequence") < 200


def test_a_source_of_one_picture_in_two_seconds_is_not_stale(chromium, viewer):
    with Run(viewer, frames_per_second=0.5), opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "edgenet.pictures > 2", 15)
        for _ in range(30):
            assert state(page) == "live"
            page.wait_for_timeout(100)


def test_a_token_opens_the_page_and_leaves_the_address_bar(chromium):
    with Viewer("0.0.0.0:0", token="a-token-for-the-test") as viewer, Run(viewer):
        url = viewer.urls[-1]  # the loopback address of all that it listens on
        assert url.endswith("?token=a-token-for-the-test")
        with opened(chromium, url) as page:
            wait_for(page, "document.body.dataset.state === 'live'")
            assert page.url == url.partition("?")[0]
            page.reload()
            wait_for(page, "document.body.dataset.state === 'live'")
            assert "a-token" not in page.evaluate("document.cookie"), "HttpOnly"
            assert page.complaints == []
        with opened(chromium, url.partition("?")[0]) as page:
            assert "no token" in page.locator("body").text_content()


def test_a_page_that_is_let_in_no_more(chromium):
    """Another run with another token took over the port."""
    with Viewer("127.0.0.1:0", token="the-first-token-of-two") as viewer, Run(viewer):
        url = viewer.urls[0]
        address = url.removeprefix("http://").partition("/")[0]
        with opened(chromium, url) as page:
            wait_for(page, "document.body.dataset.state === 'live'")
            viewer.close()
            wait_for(page, "document.body.dataset.state === 'away'")
            with Viewer(address, token="the-second-token-of-two"):
                wait_for(
                    page,
                    "document.getElementById('banner').textContent.startsWith('Not allowed in')",
                )


def test_a_phone_in_both_hands_and_in_one(chromium, viewer, tmp_path):
    with Run(viewer, label="an ordinary label"), opened(chromium, viewer.urls[0], **PHONE) as page:
        wait_for(page, "edgenet.status !== null && edgenet.pictures > 10")
        for width, height in ((390, 844), (844, 390), (320, 568)):
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            shown = page.locator("#picture").bounding_box()
            assert shown["width"] >= 0.55 * width
        assert page.evaluate("edgenet.shown.guesses[0].label") == "an ordinary label"
        assert page.evaluate(LETTERS) > 200
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(300)
        page.screenshot(path=tmp_path / "phone.png", full_page=True)
        assert page.complaints == []


def test_two_windows_at_the_same_time(chromium, viewer):
    with Run(viewer), opened(chromium, viewer.urls[0]) as one:
        other = one.context.new_page()
        other.goto(viewer.urls[0])
        wait_for(other, "edgenet.pictures > 10")
        for page in (one, other, one):
            wait_for(page, f"edgenet.pictures > {page.evaluate('edgenet.pictures') + 10}")
            assert state(page) == "live"


def test_a_hidden_tab_asks_for_nothing(chromium, viewer):
    hide = (
        "(hidden) => {{ Object.defineProperty(document, 'hidden', {{ value: {0}, "
        "configurable: true }}); document.dispatchEvent(new Event('visibilitychange')); }}"
    )
    with Run(viewer), opened(chromium, viewer.urls[0]) as page:
        wait_for(page, "edgenet.pictures > 3")
        page.evaluate(hide.format("true"))
        page.wait_for_timeout(700)
        before = page.evaluate("edgenet.pictures")
        encoded = len(viewer.times.encode_ns)
        page.wait_for_timeout(1000)
        assert page.evaluate("edgenet.pictures") == before
        assert len(viewer.times.encode_ns) == encoded
        page.evaluate(hide.format("false"))
        wait_for(page, f"edgenet.pictures > {before + 3}")
        assert state(page) == "live"
