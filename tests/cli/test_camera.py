"""`edgenet camera` end to end: real streams, real signals, real processes."""

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenet.cli import run
from edgenet.report.reading import read_document
from tests.cli.test_profile import nulls_without_a_reason
from tests.processes import children_of

SYNTHETIC = "synthetic://?fps=60"
NOT_ASKED_FOR = ("crop", "variant")


def start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "edgenet", "camera", *map(str, arguments)],
        stdout=stdout,
        stderr=stderr,
        text=True,
        **options,
    )


def finish(child, timeout_s=20):
    out, err = child.communicate(timeout=timeout_s)
    return child.returncode, out, err


@pytest.fixture(scope="module")
def short(small_bundle, tmp_path_factory):
    """A whole run that ends by itself: its text, its record, and what stood on stderr."""
    record = tmp_path_factory.mktemp("camera") / "record.json"
    line = ["--source", "synthetic://?fps=60&frames=240", "--runtime", "litert", "-o", record]
    code, out, err = finish(start(small_bundle.root, *line))
    assert code == 0, err
    return out, record, err


def test_the_summary(short):
    out, _, err = short
    rows = [line.split("  ")[0].strip() for line in out.split("\n\n")[0].splitlines()[2:]]
    assert rows == ["in the slot", "preprocess", "infer", "frame to label"]
    assert "frame to label begins at: the camera's sensor" in out
    assert "240 delivered" in out
    assert "quick: too few frames" in out
    assert "again: edgenet camera" in out
    assert "litert int8 on CPU (XNNPACK)" in err
    assert "640 x 480, 60/s" in err


def test_the_record_is_of_the_published_schema(short):
    _, path, _ = short
    document = json.loads(path.read_text())
    assert document["kind"] == "camera"
    assert document["command"][:2] == ["edgenet", "camera"]
    (record,) = document["records"]
    for stage in ("wait", "preprocess", "inference", "frame_to_label"):
        assert record["latency"][f"{stage}_ms"]["n"] == len(record["samples_ns"][stage])
        assert record["latency"][f"{stage}_ms"]["min"] >= 0
    assert record["latency"]["frame_to_label_ms"]["clock"] == "sensor"
    assert record["latency"]["decode_ms"] is None
    assert record["camera"]["counts"]["delivered"] == 240
    assert record["state"]["before"] is not None
    assert record["state"]["after"] is not None
    assert list(nulls_without_a_reason(document)) == []
    (read,) = read_document(path).records
    assert read.camera.frames_per_second == 60
    assert read.camera.clock == "sensor"


def test_compare_reads_it_and_knows_what_is_alike(short, small_bundle, tmp_path, capsys):
    _, path, _ = short
    assert run(["compare", str(path), str(path)]) == 0
    assert "frame to label p50, ms" in capsys.readouterr().out
    document = json.loads(path.read_text())
    for change, told in (
        ({"clock": "arrival"}, "clock of the frames sensor against arrival"),
        (
            {"delivered": {**document["records"][0]["camera"]["delivered"], "height": 720}},
            "source size 640 x 480 against 640 x 720",
        ),
        (
            {
                "delivered": {
                    **document["records"][0]["camera"]["delivered"],
                    "frames_per_second": 30.0,
                }
            },
            "source rate 60 fps against 30 fps",
        ),
        ({"live": False}, "load frames of a camera against frames as fast as they are taken"),
    ):
        changed = json.loads(path.read_text())
        changed["records"][0]["camera"] |= change
        other = tmp_path / "other.json"
        other.write_text(json.dumps(changed))
        assert run(["compare", str(path), str(other)]) == 1
        assert told in capsys.readouterr().err
    line = ["profile", str(small_bundle.root), "--runtime", "litert", "--precision", "int8"]
    profiled = tmp_path / "profile.json"
    quick = ["--quick", "--duration", "0.3", "--layers", "off"]
    assert run([*line, *quick, "-o", str(profiled)]) == 0
    capsys.readouterr()
    assert run(["compare", str(profiled), str(path)]) == 1
    assert "load back to back against frames of a camera" in capsys.readouterr().err


def test_json_is_one_document_and_events_go_to_a_file(small_bundle, tmp_path):
    lines = tmp_path / "events.jsonl"
    code, out, err = finish(
        start(
            *(small_bundle.root, "--source", f"{SYNTHETIC}&frames=60", "--runtime", "litert"),
            *("--json", "--events", lines, "--smooth", "1/1", "--unknown", "0"),
            *("-o", tmp_path / "record.json"),
        )
    )
    assert code == 0, err
    document = json.loads(out)
    assert document == json.loads((tmp_path / "record.json").read_text())
    events = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(events) == document["records"][0]["camera"]["events"] > 0
    assert events[0]["previous"] is None
    assert all(event["age_ms"] > 0 for event in events)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_stdout_that_takes_nothing_does_not_lose_the_record(small_bundle, tmp_path, form):
    """A closed pipe, a full disk: the run cannot be had again."""
    record = tmp_path / "record.json"
    with Path("/dev/full").open("w") as full:
        code, _, err = finish(
            start(
                *(small_bundle.root, "--source", f"{SYNTHETIC}&frames=30", "--runtime", "null"),
                *("--view", "off", "-o", record, *form),
                stdout=full,
            )
        )
    assert code == 1
    assert err.splitlines()[-1] == "edgenet: No space left on device"
    assert read_document(record).records[0].latency["inference_ms"].n > 0


def test_events_alone_on_stdout(small_bundle, tmp_path):
    code, out, err = finish(
        start(
            *(small_bundle.root, "--source", f"{SYNTHETIC}&frames=30", "--runtime", "litert"),
            *("--events", "-", "--smooth", "1/1", "-o", tmp_path / "record.json"),
        )
    )
    assert code == 0
    assert [json.loads(line)["clock"] for line in out.splitlines()]
    assert "frame to label" in err


def test_whoever_stops_reading_events_ends_the_run(small_bundle, tmp_path):
    """`edgenet camera --events - | head -1` ends, as other programs in a pipe do."""
    ours, theirs = os.pipe()
    child = start(
        *(small_bundle.root, "--source", SYNTHETIC, "--runtime", "null", "--unknown", "0.5"),
        *("--events", "-", "-o", tmp_path / "record.json"),
        stdout=theirs,
    )
    os.close(theirs)
    os.close(ours)
    code, _, err = finish(child)
    assert code == 0, err
    (record,) = json.loads((tmp_path / "record.json").read_text())["records"]
    assert record["camera"]["ending"] == "nobody reads the events any more"


def wait_for_frames(child):
    """Wait until it says that frames come, and half a second of them."""
    for line in child.stderr:
        if "Ctrl-C ends it" in line:
            break
    time.sleep(0.5)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_good_end(small_bundle, tmp_path, sent):
    ready = tmp_path / "ready"
    child = start(
        *(small_bundle.root, "--source", SYNTHETIC, "--runtime", "litert", "--json"),
        *("--record", tmp_path / "run.tar", "--events", tmp_path / "events", "--unknown", "0"),
        *("--on", f"*=sh -c 'touch {ready}; sleep 99'", "-o", tmp_path / "record.json"),
    )
    wait_for_frames(child)
    while not ready.exists():
        time.sleep(0.02)
    family = children_of(child.pid)
    assert family
    child.send_signal(sent)
    started = time.monotonic()
    code, out, err = finish(child)
    assert time.monotonic() - started < 5
    assert code == 0, err
    document = json.loads(out)
    assert document["complete"]
    assert document["records"][0]["camera"]["ending"] == "it was asked to end"
    assert document["records"][0]["camera"]["recording"]["frames"] > 5
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("events", "ready", "record.json", "run.tar"),
    ]


def test_a_second_ctrl_c_ends_at_once(small_bundle, tmp_path):
    """The first waits a second for a command that does not obey; the second not, and kills it."""
    ready = tmp_path / "ready"
    child = start(
        *(small_bundle.root, "--source", SYNTHETIC, "--runtime", "null", "--unknown", "0.5"),
        *("--on", f"*=sh -c 'trap \"\" TERM; touch {ready}; while :; do sleep 1; done'"),
        *("-o", tmp_path / "record.json"),
    )
    wait_for_frames(child)
    while not ready.exists():
        time.sleep(0.02)
    family = children_of(child.pid)
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    code, out, err = finish(child)
    assert time.monotonic() - started < 0.6
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "edgenet: interrupted"
    assert family
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)


def test_signals_at_any_moment(small_bundle, tmp_path):
    """From its first moment on: code 0 or, before it could listen, the usual one; never a trace."""
    codes = set()
    for tenths in (1, 3, 5, 7, 9, 12, 16):
        child = start(
            *(small_bundle.root, "--source", SYNTHETIC, "--runtime", "litert"),
            *("-o", tmp_path / "record.json"),
        )
        time.sleep(tenths / 10)
        child.send_signal(signal.SIGINT)
        code, _, err = finish(child)
        assert "Traceback" not in err or code == -signal.SIGINT, err
        assert "bug in edgenet" not in err
        codes.add(code)
    assert codes <= {0, 130, -signal.SIGINT}
    assert 0 in codes


def test_a_line_on_a_terminal(small_bundle, tmp_path):
    ours, theirs = pty.openpty()
    child = start(
        *(small_bundle.root, "--source", SYNTHETIC, "--runtime", "litert", "--duration", "1"),
        *("-o", tmp_path / "record.json"),
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert child.wait() == 0
    child.stdout.close()
    assert b"\r\x1b[K" in shown
    assert b"ms (sensor)" in shown


def page(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_page_shows_the_run_and_ends_with_it(small_bundle, tmp_path):
    port = free_port()
    child = start(
        *(small_bundle.root, "--source", SYNTHETIC, "--runtime", "litert"),
        *("--view", f"127.0.0.1:{port}", "-o", tmp_path / "record.json"),
    )
    url = next(line for line in child.stderr if line.startswith("page: ")).split()[1]
    assert url == f"http://127.0.0.1:{port}/"
    wait_for_frames(child)
    assert "<canvas" in page(url)
    until = time.monotonic() + 10
    while "edgenet_" not in (metrics := page(f"{url}metrics")) or 'stage="infer"' not in metrics:
        assert time.monotonic() < until, metrics
        time.sleep(0.2)
    family = children_of(child.pid)
    child.send_signal(signal.SIGTERM)
    code, out, err = finish(child)
    assert code == 0, err
    assert family
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    with pytest.raises(OSError, match="refused"):
        page(url)
    (record,) = json.loads((tmp_path / "record.json").read_text())["records"]
    assert record["latency"]["encode_ms_reason"] == "nobody looked"
    assert "again: edgenet camera" in out


def test_a_port_that_is_taken(small_bundle, tmp_path):
    """An error for the page that was asked for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = ["--source", "synthetic://?frames=3", "--runtime", "null"]
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = finish(start(small_bundle.root, *line, "--view", where))
        assert (code, out) == (1, "")
        assert f"port {where.rpartition(':')[2]} on 127.0.0.1 is in use" in err.splitlines()[-1]


def test_the_page_that_nobody_asked_for_may_lack_its_port(small_bundle, tmp_path):
    with socket.socket() as taken:
        with suppress(OSError):  # then somebody else has it
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        line = ["--source", "synthetic://?frames=3", "--runtime", "null"]
        code, _, err = finish(start(small_bundle.root, *line, "-o", tmp_path / "record.json"))
        assert code == 0
        assert "warning: no page: port 8080 on 127.0.0.1 is in use" in err


def test_no_window_without_a_display(small_bundle, tmp_path):
    hidden = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    code, _, err = finish(
        start(
            *(small_bundle.root, "--source", "synthetic://?frames=30", "--runtime", "null"),
            *("--window", "--view", "off", "-o", tmp_path / "record.json"),
            env=hidden,
        )
    )
    assert code == 0
    assert "warning: no window: there is no display here" in err


def test_which_cameras_there_are(capsys):
    assert run(["camera", "--list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "cameras"
    assert document["cameras"] or document["advice"]
    assert run(["camera", "--list"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_device_that_is_not_there_is_told_before_there_is_a_page(capsys):
    assert run(["camera", "--source", "/dev/video77"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "/dev/video77: no such device" in line


def test_what_is_right_is_counted(small_bundle, tmp_path):
    """A playlist of labelled pictures as a stream: live and direct, and the camera's share."""
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    for number, label in enumerate(small_bundle.labels[:4]):
        (data / label.replace("/", "_")).mkdir(parents=True)
        picture = rng.integers(0, 256, (96, 96, 3), np.uint8)
        name = data / label.replace("/", "_") / f"{number}.png"
        cv2.imwrite(str(name), cv2.resize(picture[:8, :8], (96, 96)))
    labels = tmp_path / "set.csv"
    rows = [
        f"{path.relative_to(tmp_path)},{number}"
        for number, path in enumerate(sorted(data.rglob("*.png"), key=lambda path: path.name))
    ]
    labels.write_text("\n".join(["file,label", *rows]) + "\n")
    port = free_port()
    playlist = subprocess.Popen(
        [
            *(sys.executable, "-m", "edgenet", "playlist", labels, "--seconds", "0.5"),
            *("--serve", "mjpeg", "--listen", f"127.0.0.1:{port}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = playlist.stdout.readline().strip() or playlist.stderr.readline().split()[0]
    record_path = tmp_path / "record.json"
    code, out, err = finish(
        start(
            *(small_bundle.root, "--source", url, "--runtime", "litert", "--view", "off"),
            *("--truth", labels, "--duration", "60", "-o", record_path),
        ),
        timeout_s=60,
    )
    playlist.terminate()
    playlist.communicate()
    assert code == 0, err
    document = json.loads(record_path.read_text())
    (record,) = document["records"]
    assert document["complete"]
    assert record["camera"]["ending"] == "the playlist is over"
    assert record["accuracy"]["n"] == len(record["predictions"]) == document["data"]["n"] == 4
    truth = record["truth"]
    assert truth["live"]["n"] == truth["direct"]["n"] == 4
    assert truth["losses"]["quantisation"] is not None
    assert truth["draw_to_label_ms"]["n"] > 20
    assert "camera (live - direct)" in out
    assert read_document(record_path).records[0].top1.n == 4


def test_a_shadow_is_in_the_summary_and_the_record(small_bundle, short, tmp_path, capsys):
    path = tmp_path / "record.json"
    # Seven seconds: a busy machine leaves the shadow time for two frames of them.
    line = ["--source", "synthetic://?fps=60&frames=420", "--runtime", "litert", "--shadow"]
    code, out, err = finish(start(small_bundle.root, *line, "--view", "off", "-o", path), 60)
    assert code == 0, err
    assert "shadow, onnxruntime float32: the same label on" in out
    assert "agreement with float, not accuracy" in out
    document = json.loads(path.read_text())
    (record,) = document["records"]
    shadow, frames = record["shadow"], record["shadow"]["frames"]
    assert shadow["agreement"]["n"] == frames["sampled"] >= 2
    assert sum(frames.values()) == record["camera"]["labelled"]
    beside = shadow["beside"].get("inference_ms", {"n": 0})["n"]
    assert record["latency"]["inference_ms"]["n"] + beside == record["camera"]["labelled"]
    assert shadow["reference"]["runtime"] == "onnxruntime"
    assert list(nulls_without_a_reason(document)) == []
    (read,) = read_document(path).records
    assert read.camera.shadowed
    _, other, _ = short
    assert json.loads(other.read_text())["records"][0]["shadow"] is None
    assert run(["compare", str(other), str(path)]) == 1
    assert "float reference on the side no against yes" in capsys.readouterr().err


def test_the_bundle_inside_has_no_float_to_hold_a_stream_against(capsys):
    assert run(["camera", "--source", "synthetic://", "--shadow"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "has no float artefact, which --shadow holds the stream against" in line
    assert "edgenet convert mobilenet_v1" in line


@pytest.fixture
def place(small_bundle, tmp_path, monkeypatch):
    shutil.copytree(small_bundle.root, tmp_path / "bundle")
    (tmp_path / "text.tar").write_text("no recording")
    monkeypatch.chdir(tmp_path)
    return tmp_path


S = "--view off --source synthetic://?frames=3"
CASES = [
    ("camera nowhere", 2, "no such folder"),
    ("camera bundle --view off --source nowhere.mp4", 2, "no such file or folder"),
    ("camera bundle --view off --source ftp://x", 2, "unknown source"),
    ("camera bundle --view off --source synthetic://?fps=0", 2, "fps=0 is not"),
    (f"camera bundle {S} --runtime tensorflow", 2, "unknown runtime"),
    (f"camera bundle {S} --precision int4", 2, "unknown precision"),
    (f"camera bundle {S} --threads 0", 2, "--threads"),
    (f"camera bundle {S} --threads 1,2", 2, "--threads"),
    (f"camera bundle {S} --duration 0", 2, "--duration"),
    (f"camera bundle {S} --crop 1,2,3", 2, "--crop 1,2,3: give x,y,width,height"),
    (f"camera bundle {S} --crop 0,0,0,9", 2, "--crop 0,0,0,9"),
    (f"camera bundle {S} --crop 0,0,999,9 --runtime null", 1, "does not fit into 640 x 480"),
    (f"camera bundle {S} --smooth 1/4", 2, "--smooth 1/4"),
    (f"camera bundle {S} --unknown 2", 2, "--unknown 2"),
    (f"camera bundle {S} --on boot", 2, "give LABEL=COMMAND"),
    (f"camera bundle {S} --on Zeppelin=true", 2, "the bundle has no such label"),
    (f"camera bundle {S} --mqtt broker", 2, "give mqtt://"),
    (f"camera bundle {S} --mqtt mqtt://u:pw@127.0.0.1:9 --runtime null", 1, "no MQTT broker"),
    (f"camera bundle {S} --events - --json", 2, "both want stdout"),
    (f"camera bundle {S} --events bundle --runtime null", 2, "is a folder"),
    (f"camera bundle {S} --record bundle --runtime null", 2, "is a folder"),
    (f"camera bundle {S} --record no/run.tar --runtime null", 1, "choose another --record"),
    ("camera bundle --replay text.tar", 1, "is no recording"),
    ("camera bundle --replay none.tar", 2, "no such file"),
    (f"camera bundle --replay text.tar {S}", 2, "leave out --source"),
    ("camera bundle --source synthetic:// --view nowhere", 2, "HOST:PORT"),
    (f"camera bundle {S} --truth nowhere", 2, "no data at 'nowhere'"),
    (f"camera bundle {S} --truth fashion-mnist --crop 0,0,9,9", 2, "leave out one"),
    (f"camera bundle {S} --clock-offset 3", 2, "give --truth too"),
    (f"camera bundle {S} --truth fashion-mnist --clock-offset nan", 2, "--clock-offset"),
    (f"camera bundle {S} --truth fashion-mnist --clock-offset inf", 2, "--clock-offset"),
    (f"camera bundle {S} --duration nan", 2, "--duration"),
    (f"camera bundle {S} --duration inf", 2, "--duration"),
    (f"camera bundle {S} -o bundle", 2, "is a folder"),
    (f"camera bundle {S} --shadow --runtime null", 1, "null runtime computes nothing"),
    # Wrong words are told whether there is a camera or not.
    ("camera bundle --view off --crop 1,2,3", 2, "--crop 1,2,3"),
    ("camera bundle --view off --threads 0", 2, "--threads"),
    ("camera bundle --view off --token-file t", 2, "--token-file is for the page"),
    ("camera bundle --source synthetic:// --token-file nowhere/t", 1, "cannot be written"),
    ("camera bundle --view 127.0.0.1:70000", 2, "a port is 0 to"),
]


@pytest.mark.parametrize(("line", "code", "message"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_the_right_code(place, capsys, line, code, message):
    before = sorted(path.name for path in place.rglob("*"))
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    complaints = [row for row in err.splitlines() if row.startswith("edgenet: ")]
    assert out == ""
    assert len(complaints) == 1, err
    assert message in complaints[0]
    assert "bug in edgenet" not in err
    assert "pw" not in err
    assert sorted(path.name for path in place.rglob("*")) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_no_password_in_the_record(place, capsys, monkeypatch):
    """Neither in the command that reproduces it, nor anywhere else."""
    line = f"camera bundle {S} --runtime null -o record.json --json".split()
    secret = ["--mqtt=mqtt://u:s3cret@127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", ["edgenet", *line, *secret])
    assert run(line) == 0
    shown = capsys.readouterr()
    assert "s3cret" not in shown.out + shown.err + Path("record.json").read_text()
    assert "--mqtt=mqtt://127.0.0.1:9" in json.loads(shown.out)["command"]


def test_as_a_service(small_bundle, tmp_path):
    """The manager hears of the first label and of the end; the page's token stays, unlogged."""
    told, token = tmp_path / "told", tmp_path / "page-token"
    write_environment = f"sh -c 'env >>{told}'"
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(30)
            child = start(
                *(small_bundle.root, "--source", SYNTHETIC, "--runtime", "null"),
                *("--view", "127.0.0.1:0", "--token-file", token, "-o", tmp_path / "record.json"),
                *("--smooth", "1/1", "--on", f"*={write_environment}"),
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": str(tmp_path / "notify"),
                    "WATCHDOG_USEC": "2000000",
                },
            )
            address = (
                next(line for line in child.stderr if line.startswith("page: "))
                .split()[1]
                .rstrip(",")
            )
            ready = manager.recv(4096).decode().split("\n")
            assert ready[:2] == ["READY=1", "WATCHDOG=1"]
            assert ready[2].startswith("STATUS=")
            assert "WATCHDOG=1" in manager.recv(4096).decode().split("\n")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                page(address)
            assert "<canvas" in page(f"{address}?token={token.read_text().strip()}")
            child.send_signal(signal.SIGTERM)
            code, out, err = finish(child)
            assert code == 0, err
            while "STOPPING=1" not in (last := manager.recv(4096).decode().split("\n")):
                pass
            assert last[-1] == "STATUS=it was asked to end"
            assert token.read_text().strip() not in err + out
        (tmp_path / "notify").unlink()
    assert "EDGENET_LABEL=" in told.read_text()
    assert "NOTIFY_SOCKET" not in told.read_text(), "it is no command that the manager waits for"
