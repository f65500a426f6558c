"""The page's server as its clients see it: a real process, real sockets, slow and bad clients."""

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from runs import STATUS, Run, nearest_colour, result

from edgenet.errors import AddressUnavailable, MissingExtra, UsageError
from edgenet.stream.status import LiveAccuracy, LiveAgreement
from edgenet.stream.viewer import Viewer
from edgenet.stream.viewer.clients import GONE_AFTER_S, Clients
from edgenet.stream.viewer.picture import LONGEST_SIDE

FRESH_MS = 700
"""A picture of now, on a machine that does other things too: one out of a buffer is older."""


@pytest.fixture
def viewer():
    with Viewer("127.0.0.1:0") as found:
        yield found


@pytest.fixture
def run(viewer):
    with Run(viewer) as running:
        yield running


def port_of(viewer):
    return int(viewer.urls[0].split(":")[2].split("/")[0])


class Client:
    """One connection that is kept, with a name of its own."""

    def __init__(self, viewer, name="test", **headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", port_of(viewer), timeout=20)
        self.name = name
        self.headers = headers

    def get(self, path, method="GET", **headers):
        self.connection.request(method, path, headers={**self.headers, **headers})
        answer = self.connection.getresponse()
        return answer, answer.read()

    def frame(self, after=-1):
        answer, body = self.get(f"/frame.jpg?after={after}&client={self.name}")
        if answer.status == 204:
            return None
        assert answer.status == 200, (answer.status, body)
        return Shown(
            json.loads(answer.headers["X-Result"]), body, float(answer.headers["X-Age-Ms"])
        )

    def close(self):
        self.connection.close()


class Shown:
    def __init__(self, told, jpeg, age_ms):
        self.told = told
        self.age_ms = age_ms
        self.picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)

    @property
    def sequence(self):
        return self.told["sequence"]

    @property
    def label(self):
        return self.told["guesses"][0]["label"]


@contextmanager
def client(viewer, name="test", **headers):
    found = Client(viewer, name, **headers)
    with closing(found):
        yield found


# Pictures


def test_the_label_is_of_the_very_same_frame(viewer, run):
    with client(viewer) as browser:
        shown, last = [], -1
        for _ in range(30):
            frame = browser.frame(last)
            assert nearest_colour(frame.picture[10, 10]) == frame.label
            assert frame.sequence > last
            last = frame.sequence
            shown.append(frame)
    assert {frame.label for frame in shown} == {"red", "green", "blue"}
    assert max(frame.age_ms for frame in shown) < FRESH_MS
    assert shown[0].told["clock"] == "driver"


def test_a_client_that_comes_back_late_gets_the_newest(viewer, run):
    with client(viewer) as browser:
        frame = browser.frame()
        for _ in range(3):
            time.sleep(1)
            before = run.sequence
            frame = browser.frame(frame.sequence)
            assert frame.sequence >= before
            assert frame.age_ms < FRESH_MS


def test_a_slow_reader_sees_no_old_picture_and_slows_nobody(viewer, run):
    """On raw sockets with the smallest buffers, a picture of noise read in bits over a second."""
    run.results["label"] = "any"
    ages = []

    def read_slowly():
        with socket.create_connection(("127.0.0.1", port_of(viewer))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            for _ in range(4):
                connection.sendall(
                    b"GET /frame.jpg?after=-1&client=slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1)
                fields = dict(
                    line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line
                )
                ages.append(float(fields["x-age-ms"]))
                left = int(fields["content-length"])
                while left:
                    left -= len(connection.recv(min(left, 500)))
                    time.sleep(0.02)
                time.sleep(0.5)

    slow = threading.Thread(target=read_slowly)
    slow.start()
    with client(viewer, "fast") as browser:
        count, frame, began = 0, browser.frame(), time.monotonic()
        while slow.is_alive():
            frame = browser.frame(frame.sequence)
            count += 1
            assert frame.age_ms < FRESH_MS
        rate = count / (time.monotonic() - began)
    assert len(ages) == 4
    assert max(ages) < FRESH_MS
    assert rate > 10


def test_nobody_looks_and_nothing_is_copied(viewer, run):
    time.sleep(0.5)
    assert not viewer.wanted
    assert memory_of(viewer) == 0
    assert median(run.offer_ns) < 100_000
    with client(viewer) as browser:
        browser.frame()
    assert memory_of(viewer) == 640 * 480 * 3
    assert len(viewer.times.encode_ns) >= 1
    assert viewer.times.draw_ns == ()


def memory_of(viewer):
    """Return the bytes of the memory that the page's process shares with the run."""
    for path in Path(f"/proc/{viewer.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # a connection that was closed meanwhile
            if "edgenet-frame" in str(path.readlink()):
                return path.stat().st_size
    return None


def test_a_picture_that_changes_its_size(viewer, run):
    with client(viewer) as browser:
        for size, shown in (((640, 480), (480, 640)), ((2560, 1440), (720, LONGEST_SIDE))):
            run.results["size"] = size
            time.sleep(0.2)
            assert browser.frame().picture.shape[:2] == shown
        run.results["size"] = (33, 17)
        time.sleep(0.2)
        assert browser.frame().picture.shape[:2] == (17, 33)


def test_a_snapshot_has_its_label_in_it(viewer, run):
    with client(viewer) as browser:
        answer, body = browser.get("/snapshot.jpg")
        told = json.loads(answer.headers["X-Result"])
        picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        assert nearest_colour(picture[10, 10]) == told["guesses"][0]["label"]
        strip = picture[-40:].astype(int)
        assert (strip.min(axis=2) > 200).sum() > 200, "white letters"
        assert np.median(strip.sum(axis=2)) < 150, "on a dark ground"
    assert len(viewer.times.draw_ns) >= 1
    assert all(0 < took < 1e9 for took in (*viewer.times.draw_ns, *viewer.times.encode_ns))


def test_the_stream_for_other_players(viewer, run):
    capture = cv2.VideoCapture(viewer.urls[0] + "stream.mjpg", cv2.CAP_FFMPEG)
    try:
        for _ in range(10):
            grabbed, picture = capture.read()
            assert grabbed
            assert picture.shape == (480, 640, 3)
    finally:
        capture.release()


def test_a_stalled_source_is_told_and_a_new_client_sees_the_last_picture(viewer, run):
    with client(viewer) as browser, client(viewer, "late") as late:
        frame = browser.frame()
        run.stalled = True
        time.sleep(0.3)
        assert "stalled" in json.loads(browser.get("/status.json")[1])["status"]["fault"]
        again = late.frame()
        assert again.sequence >= frame.sequence
        assert again.age_ms > 900
        run.stalled = False
        time.sleep(0.3)
        assert json.loads(browser.get("/status.json")[1])["status"]["fault"] is None
        assert late.frame(again.sequence).age_ms < FRESH_MS


def test_no_run_has_spoken_yet(viewer):
    with client(viewer) as browser:
        assert browser.get("/frame.jpg?after=-1")[0].status == 204
        assert json.loads(browser.get("/status.json")[1])["status"] is None
        assert browser.get("/snapshot.jpg")[0].status == 503
        assert b"edgenet_viewer_clients" in browser.get("/metrics")[1]


def test_numbers_that_json_does_not_have(viewer):
    run = Run(viewer, probability=float("nan"))
    run.status = replace(STATUS, temperature_c=float("nan"))
    with run, client(viewer) as browser:
        assert browser.frame().told["guesses"][0]["probability"] is None
        _, body = browser.get("/status.json")
        assert json.loads(body, parse_constant=pytest.fail)["status"]["temperature_c"] is None
        assert browser.get("/snapshot.jpg")[0].status == 200


# Metrics


def samples(body):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_metrics(viewer, run):
    run.status = replace(
        STATUS,
        temperature_c=61.5,
        throttled=True,
        accuracy=LiveAccuracy(top1=0.75, top5=None, low=0.7, high=0.8, pictures=300),
        agreement=LiveAgreement(top1=0.97, low=0.95, high=0.98, frames=900, alarms=("sharpness",)),
    )
    with client(viewer) as browser:
        answer, body = browser.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        found = samples(body)
        assert found["edgenet_frames_total", "dropped"] == 34
        assert found["edgenet_stage_seconds", "0.5", "preprocess"] == pytest.approx(0.0008)
        assert found["edgenet_frame_to_label_seconds", "0.95"] == pytest.approx(0.01)
        assert found["edgenet_temperature_celsius",] == 61.5
        assert found["edgenet_throttled",] == 1
        assert found["edgenet_source_fault",] == 0
        assert found["edgenet_live_accuracy_ratio", "low"] == 0.7
        assert ("edgenet_live_accuracy_ratio", "top5") not in found
        assert found["edgenet_agreement_ratio", "top1"] == 0.97
        assert found["edgenet_agreement_frames",] == 900
        assert found["edgenet_drift_alarms",] == 1
        assert ("edgenet_stage_seconds", "0.99", "preprocess") not in found, "unknown"
        assert ("edgenet_cpu_clock_hertz",) not in found
        open_metrics, _ = browser.get("/metrics", Accept="application/openmetrics-text")
        assert "openmetrics" in open_metrics.headers["Content-Type"]


# Who may ask


def test_only_this_machine_and_its_own_names(viewer, run):
    with client(viewer) as browser:
        for host in ("evil.example", "127.0.0.1.evil.example", "192.168.0.9", "", "a b"):
            assert browser.get("/status.json", Host=host)[0].status == 400, host
        for host in ("localhost", f"127.0.0.1:{port_of(viewer)}", "LOCALHOST:1", "[::1]:80"):
            assert browser.get("/status.json", Host=host)[0].status == 200, host


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_only_get(viewer, method):
    with client(viewer) as browser:
        answer, _ = browser.get("/status.json", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/page/..",
        "/..\\..\\x",
        "/%00",
    ],
)
def test_no_path_leads_out(viewer, path):
    with client(viewer) as browser:
        assert browser.get(path)[0].status == 400
        for other in ("/server.py", "/page/index.html", "//etc/passwd", "/etc/passwd"):
            assert browser.get(other)[0].status == 404


def test_answers_keep_to_themselves(viewer, run):
    with client(viewer) as browser:
        for path in ("/", "/viewer.js", "/frame.jpg", "/status.json", "/metrics", "/nothing"):
            headers = browser.get(path, Origin="https://evil.example")[0].headers
            assert "Access-Control-Allow-Origin" not in headers
            assert headers["Content-Security-Policy"].startswith("default-src 'self'")
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert "Server" not in headers
        fetched = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert browser.get("/snapshot.jpg", **fetched)[0].status == 403


def test_the_network_needs_a_token():
    with Viewer("0.0.0.0:0") as viewer, Run(viewer), client(viewer) as browser:
        assert viewer.on_network
        token = viewer.urls[0].partition("?token=")[2]
        assert len(token) >= 22
        assert all(url.endswith(token) for url in viewer.urls)
        assert token not in Path(f"/proc/{viewer.pid}/cmdline").read_text()
        for path in ("/", "/frame.jpg", "/status.json", "/metrics", "/stream.mjpg", "/viewer.js"):
            assert browser.get(path)[0].status == 401, path
            assert browser.get(f"{path}?token={token[:-1]}x")[0].status == 401
            assert browser.get(f"{path}?token=")[0].status == 401
        assert browser.get("/status.json", Cookie=f"edgenet_{port_of(viewer)}=x")[0].status == 401
        assert browser.get("/metrics", Authorization=f"Bearer {token}")[0].status == 200
        answer, _ = browser.get(f"/?token={token}")
        assert answer.status == 200
        cookie, _, flags = answer.headers["Set-Cookie"].partition(";")
        assert "HttpOnly" in flags and "SameSite=Strict" in flags
        assert token not in cookie
        assert browser.get("/frame.jpg", Cookie=f"other=1; {cookie}")[0].status == 200
        for host in (socket.gethostname(), "192.168.7.9:8080", "[fe80::1]"):
            assert browser.get("/status.json", Cookie=cookie, Host=host)[0].status == 200, host
        for host in ("evil.example", "192.168.7.9.evil.example", "[fe80::1]x", "1.2.3.4:x"):
            assert browser.get("/status.json", Cookie=cookie, Host=host)[0].status == 400, host


def test_a_token_of_ones_own():
    with Viewer("127.0.0.1:0", token="a-token-of-my-own") as viewer, client(viewer) as browser:
        assert viewer.urls[0].endswith("/?token=a-token-of-my-own")
        assert browser.get("/status.json")[0].status == 401
        assert browser.get("/status.json?token=a-token-of-my-own")[0].status == 200
    with pytest.raises(UsageError, match="16 characters"):
        Viewer("127.0.0.1:0", token="short")


# Too many, too slow, too bad


def test_two_requests_of_one_client_and_not_three(viewer):
    waiting = [Client(viewer, "greedy") for _ in range(3)]
    for one in waiting[:2]:
        one.connection.request("GET", "/frame.jpg?after=7&client=greedy")
    time.sleep(0.3)
    assert waiting[2].get("/frame.jpg?after=7&client=greedy")[0].status == 429
    with client(viewer, "other") as other:
        assert other.get("/frame.jpg?client=other")[0].status == 204
    for one in waiting[:2]:
        assert one.connection.getresponse().status == 204
    for one in waiting:
        one.close()


def test_no_more_than_so_many_clients():
    with (
        Viewer("127.0.0.1:0", most_clients=2) as viewer,
        Run(viewer),
        client(viewer, "one") as one,
        client(viewer, "two") as two,
        client(viewer, "three") as three,
    ):
        for _ in range(3):
            one.frame()
            two.frame()
        answer, body = three.get("/frame.jpg?client=three")
        assert answer.status == 503
        assert answer.headers["Retry-After"]
        assert b"2 are looking on" in body
        assert three.get("/stream.mjpg")[0].status == 503
        assert three.get("/status.json")[0].status == 200


def test_a_place_is_free_again():
    now = [0.0]
    clients = Clients(1, now=lambda: now[0])
    with clients.place("one"):
        now[0] = 100.0  # as long as it asks it stays
        assert clients.count == 1
    now[0] += GONE_AFTER_S + 0.1
    assert clients.count == 0
    with clients.place("two"):
        pass


def test_ten_thousand_requests_of_one_client(viewer, run):
    def resident():
        fields = Path(f"/proc/{viewer.pid}/statm").read_text().split()
        return int(fields[1]) * resource.getpagesize()

    with client(viewer) as browser:
        for count in range(10_000):
            path = ("/status.json", "/viewer.css", "/nothing", "/frame.jpg?after=x")[count % 4]
            status = browser.get(path)[0].status
            assert status == (200, 200, 404, 400)[count % 4]
            if count == 1000:
                before = resident()
        assert browser.frame().age_ms < FRESH_MS
    assert resident() - before < 5_000_000
    assert len(list(Path(f"/proc/{viewer.pid}/fd").iterdir())) < 30


def test_a_thousand_connections(viewer, run):
    """More than are served: the others are told so, and nobody is left out for good."""
    for _ in range(10):
        found = [socket.create_connection(("127.0.0.1", port_of(viewer))) for _ in range(100)]
        for one in found:
            one.sendall(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        statuses = {one.recv(1000).split()[1] for one in found}
        assert statuses <= {b"200", b"503"}
        for one in found:
            one.close()
    with client(viewer) as browser:
        assert browser.frame().age_ms < FRESH_MS


def test_clients_that_stop_half_way_are_cut(viewer, run):
    """One sends half a request, one bit by bit, one asks for a stream and never reads it."""
    address = ("127.0.0.1", port_of(viewer))
    half, trickling, deaf = (socket.create_connection(address) for _ in range(3))
    began = time.monotonic()
    half.sendall(b"GET / HTTP/1.1\r\nHost: local")
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    deaf.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    half.settimeout(20)

    def trickle():
        try:
            for letter in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 1000:
                trickling.sendall(bytes([letter]))
                time.sleep(0.5)
        except OSError:
            ended.append(time.monotonic() - began)

    ended = []
    thread = threading.Thread(target=trickle)
    thread.start()
    assert half.recv(1) == b""
    assert 8 < time.monotonic() - began < 14
    thread.join(10)
    assert ended and ended[0] < 16
    with client(viewer) as browser:
        assert browser.frame().age_ms < FRESH_MS
        deadline = began + 40
        while json.loads(browser.get("/status.json")[1])["clients"] > 1:
            assert time.monotonic() < deadline, "the stream that nobody reads is still there"
            time.sleep(0.5)
    for one in (half, trickling, deaf):
        one.close()


@pytest.mark.parametrize(
    "request_", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000]
)
def test_what_is_no_request(viewer, run, request_):
    with socket.create_connection(("127.0.0.1", port_of(viewer))) as connection:
        connection.settimeout(15)
        connection.sendall(request_)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    with client(viewer) as browser:
        assert browser.frame().age_ms < FRESH_MS


# Addresses


def test_a_port_in_use_is_one_line_with_the_port(viewer):
    with pytest.raises(AddressUnavailable) as caught:
        Viewer(f"127.0.0.1:{port_of(viewer)}")
    assert f"port {port_of(viewer)} on 127.0.0.1 is in use" in str(caught.value)
    assert "--view" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ipv6():
    with Viewer("[::1]:0") as viewer:
        host, _, port = viewer.urls[0].removeprefix("http://").rstrip("/").rpartition(":")
        assert host == "[::1]"
        with closing(http.client.HTTPConnection("::1", int(port))) as connection:
            connection.request("GET", "/status.json")
            assert connection.getresponse().status == 200


# Life and death


def test_the_child_is_killed_and_the_run_goes_on(viewer, run):
    with client(viewer) as browser:
        browser.frame()
    os.kill(viewer.pid, signal.SIGKILL)
    time.sleep(0.3)
    before = run.sequence
    time.sleep(0.3)
    assert run.sequence > before
    assert viewer.fault == "its process was ended by SIGKILL"
    assert not viewer.wanted


def test_the_child_does_not_start(monkeypatch, tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise RuntimeError('broken on purpose')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(AddressUnavailable, match="broken on purpose"), Viewer("127.0.0.1:0"):
        pass


def test_a_missing_extra_is_said_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgenet\[viewer\]'"):
        Viewer("127.0.0.1:0")


def test_closes_twice_and_leaves_no_process():
    with Viewer("127.0.0.1:0") as viewer:
        pid, port = viewer.pid, port_of(viewer)
        with client(viewer) as browser:
            browser.connection.request("GET", "/frame.jpg?after=0")
            began = time.monotonic()
            viewer.close()
    assert time.monotonic() - began < 1.0
    assert not Path(f"/proc/{pid}").exists()
    viewer.close()
    viewer.offer(result(0), STATUS)
    with Viewer(f"127.0.0.1:{port}"):
        pass


RUNNING = """
import sys, time
sys.path.insert(0, {tests!r})
from runs import STATUS, result
from edgenet.stream.viewer import Viewer
with Viewer("127.0.0.1:0") as viewer:
    print(viewer.pid, viewer.urls[0], flush=True)
    sequence = 0
    while True:
        viewer.offer(result(sequence), STATUS)
        sequence += 1
        time.sleep(0.03)
"""


def ended(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_however_the_run_ends(by):
    """Signals go to the whole group, as a terminal and a service manager send them."""
    code = RUNNING.format(tests=str(Path(__file__).parent))
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    pid = int(parent.stdout.readline().split()[0])
    assert os.getsid(pid) != os.getsid(parent.pid)
    os.kill(pid, signal.SIGTERM)  # a service manager's, which is for the run to follow
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert not ended(pid)
    os.killpg(parent.pid, by)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while not ended(pid):
        assert time.monotonic() < deadline, "the page outlived the run"
        time.sleep(0.05)


def test_no_orphan_while_something_forked_still_lives():
    """A process that the run forked holds copies of its sockets, which then never close."""
    code = RUNNING.replace(
        "    sequence = 0",
        "    import os\n    forked = os.fork()\n    if forked == 0:\n        time.sleep(60)\n"
        "    print(forked, flush=True)\n    sequence = 0",
    ).format(tests=str(Path(__file__).parent))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline().split()[0])
    forked = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 5
        while not ended(pid):
            assert time.monotonic() < deadline, "the page outlived the run"
            time.sleep(0.05)
        assert not ended(forked)
    finally:
        os.kill(forked, signal.SIGKILL)
        parent.stdout.close()
