"""What doctor concludes: of machines made up, of this one, of packages that crash."""

import json
import os
import subprocess
import sys

import pytest

from edgenet.board.doctor import ENVIRONMENT, PROBE, Fit, examine
from edgenet.board.machine import Machine
from edgenet.board.tree import open_tree

WORKS = {"installed": True, "failure": None, "version": "litert 2.3.0", "device": "CPU"}
MISSING = {"installed": False, "failure": None, "version": None, "device": None}
PYTHON = {
    "python": "3.11.2",
    "bits": 64,
    "libc": "glibc 2.36",
    "packages": {"numpy": "2.4.6", "opencv-python-headless": "5.0.0.93"},
    "opencv": True,
    "disk_free_bytes": 10**10,
}
RUNTIMES = ("litert", "onnxruntime", "openvino")


@pytest.fixture
def examine_pi(copy_of):
    """Examine a copy of the Pi 5 after some changes: its runtimes, its Python, its files."""

    def run(runtimes=None, python=(), packages=(), files=(), failed=()):
        machine, root = copy_of("pi_5")
        commands, failures = machine.description.commands, machine.description.failed_commands
        for name in RUNTIMES:
            result = {"litert": WORKS, **(runtimes or {})}.get(name, MISSING)
            commands[" ".join((*PROBE, name))] = json.dumps(result)
        described = {**PYTHON, "packages": {**PYTHON["packages"], **dict(packages)}, **dict(python)}
        commands[" ".join(ENVIRONMENT)] = json.dumps(described)
        for name, text in dict(files).items():
            (root / name).write_text(text)
        for name, reason in dict(failed).items():
            commands.pop(name)
            failures[name] = reason
        return examine(machine)

    return run


QUIET = {
    f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor": "performance" for cpu in range(4)
}


def test_fit(examine_pi):
    found = examine_pi(files=QUIET)
    assert found.verdict.fit is Fit.YES
    assert found.verdict.reasons == ()
    assert found.clashes == ()
    assert found.unknown == {}
    assert found.advice == ("another runtime to compare with: pip install 'edgenet[onnxruntime]'",)


@pytest.mark.parametrize(
    ("changes", "fit", "reason"),
    [
        ({}, Fit.WITH_CARE, "governor ondemand: clocks follow the load"),
        ({"files": {"proc/loadavg": "1.00 1 1 1/2 3"}}, Fit.WITH_CARE, "load 1.00 on 4 cores"),
        ({"files": {"proc/loadavg": "4.00 1 1 1/2 3"}}, Fit.NO, "load 4.00 on 4 cores"),
        (
            {"files": {"sys/class/thermal/thermal_zone0/temp": "76000"}},
            Fit.WITH_CARE,
            "76 C before anything has run",
        ),
        (
            {"files": {"proc/device-tree/compatible": "linux,dummy-virt"}},
            Fit.NO,
            "an emulated board: what it times is the emulator",
        ),
        (
            {"files": {"proc/meminfo": "MemTotal: 900000 kB\nMemAvailable: 100000 kB"}},
            Fit.NO,
            "102 MB of memory left: it would swap",
        ),
        ({"python": {"disk_free_bytes": 10**8}}, Fit.WITH_CARE, "100 MB of disk left"),
        ({"python": {"bits": 32}}, Fit.WITH_CARE, "a 32-bit Python"),
        ({"runtimes": {"litert": MISSING}}, Fit.NO, "no runtime works"),
        (
            {"failed": {"vcgencmd get_throttled": "vcgencmd is not installed"}},
            Fit.WITH_CARE,
            "whether it is ever slowed down is unknown: vcgencmd get_throttled: vcgencmd is not",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_not_quite_fit(examine_pi, changes, fit, reason):
    found = examine_pi(**changes)
    assert found.verdict.fit is fit
    assert any(said.startswith(reason) for said in found.verdict.reasons), found.verdict.reasons


@pytest.mark.parametrize(
    ("bits", "fit", "reason"),
    [
        (0x4, Fit.NO, "slowed down now: throttled now"),
        (0x50005, Fit.NO, "slowed down now: under-voltage now, throttled now"),
        (0x10000, Fit.WITH_CARE, "was slowed down: under-voltage since boot"),
    ],
)
def test_slowed_down(copy_of, bits, fit, reason):
    machine, _ = copy_of("pi_5")
    machine.description.commands["vcgencmd get_throttled"] = f"throttled={bits:#x}"
    verdict = examine(machine).verdict
    assert verdict.fit is fit
    assert verdict.reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ({"opencv-python": "5.0.0.93"}, "pip uninstall opencv-python-headless opencv-python, then"),
        (
            {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"},
            "onnxruntime and onnxruntime-gpu share one folder",
        ),
        ({"tflite-runtime": "2.14.0"}, "breaks with numpy 2.4.6: pip install 'numpy<2'"),
    ],
)
def test_clashes(examine_pi, packages, message):
    found = examine_pi(packages=packages)
    (clash,) = found.clashes
    assert message in clash
    assert found.advice[0] == clash


def test_no_clash(examine_pi):
    assert examine_pi(packages={"tflite-runtime": "2.14.0", "numpy": "1.26.4"}).clashes == ()


def test_what_to_install_first(examine_pi):
    found = examine_pi(runtimes={"litert": MISSING}, python={"opencv": False})
    assert found.advice == (
        "no runtime works yet; the first choice here: pip install 'edgenet[litert]'",
        "pictures need OpenCV: pip install 'edgenet[board]'",
    )


def test_what_to_install_on_32_bits(examine_pi):
    found = examine_pi(runtimes={"litert": MISSING}, python={"bits": 32})
    assert found.advice == (
        "the one runtime for a 32-bit Python: pip install 'edgenet[tflite-runtime]'",
    )


def test_a_runtime_that_crashes(examine_pi):
    probe = " ".join((*PROBE, "openvino"))
    found = examine_pi(failed={probe: "crashed with SIGILL (an instruction that ...)"})
    check = next(check for check in found.runtimes if check.name == "openvino")
    assert (check.installed, check.works) == (True, False)
    assert check.failure and "SIGILL" in check.failure
    assert found.advice[0].startswith("openvino is installed and does not work: crashed with")


@pytest.mark.parametrize("said", ["", "hello", "3", '{"other": 1}'])
def test_answers_of_another_edgenet(copy_of, said):
    machine, _ = copy_of("pi_5")
    machine.description.commands[" ".join((*PROBE, "litert"))] = said
    machine.description.commands[" ".join(ENVIRONMENT)] = said
    found = examine(machine)
    assert found.runtimes[0].works is None
    assert found.runtimes[0].failure
    assert found.unknown["python"]


def test_packages_may_chatter_first(examine_pi, copy_of):
    machine, _ = copy_of("pi_4")
    machine.description.commands[" ".join((*PROBE, "litert"))] = f"INFO: hi\n{json.dumps(WORKS)}"
    assert examine(machine).runtimes[0].works


def test_a_documented_tree_has_no_runtimes():
    with open_tree("pi_5") as machine:
        found = examine(machine)
    assert {check.works for check in found.runtimes} == {None}
    assert {check.failure for check in found.runtimes} == {"is not in this documented tree"}
    assert found.python is None
    assert "is not in this documented tree" in found.unknown["python"]
    assert found.advice == ()
    assert found.verdict.fit is Fit.WITH_CARE


@pytest.mark.parametrize(
    ("tree", "int8", "meaning"),
    [
        ("pi_4", (), "no dot products"),
        ("pi_5", ("asimddp",), "8-bit dot products"),
        ("orin_nano", ("asimddp",), "8-bit dot products"),
        ("laptop", ("avx512_vnni",), "8-bit dot products"),
    ],
)
def test_int8(tree, int8, meaning):
    with open_tree(tree) as machine:
        found = examine(machine)
    assert found.int8 == int8
    assert meaning in found.int8_meaning


def test_int8_without_vnni(copy_of):
    machine, root = copy_of("laptop")
    cpuinfo = root / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("avx512_vnni", ""))
    assert "plain 8-bit kernels saturate" in examine(machine).int8_meaning
    cpuinfo.write_text("processor: 0")
    assert "lists no features" in examine(machine).int8_meaning


def test_nothing_at_all(make_machine):
    found = examine(make_machine())
    assert found.verdict.fit is Fit.WITH_CARE
    assert set(found.unknown) == {"python", "memory"}
    assert "unknown architecture" in found.int8_meaning


def test_this_machine():
    found = examine(Machine())
    assert all(check.works for check in found.runtimes)
    assert found.python and found.python.packages["edgenet"]
    assert found.memory and 0 < found.memory.available_bytes < found.memory.total_bytes


CRASHING = {
    "illegal": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
    "broken": "raise ImportError('libsomething.so.1: cannot open shared object file')",
    "lacking": "import a_package_that_is_not_there",
}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("illegal", "crashed with SIGILL"),
        ("broken", "ImportError: libsomething.so.1"),
        ("lacking", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
    ],
)
def test_packages_that_really_crash(tmp_path, case, said):
    """A package of the runtime's name, found first, that fails as broken wheels do."""
    (tmp_path / "onnxruntime.py").write_text(CRASHING[case])
    done = subprocess.run(
        [sys.executable, "-m", "edgenet", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["runtimes"]}
    assert said in checks["onnxruntime"]["failure"]
    assert checks["onnxruntime"]["works"] is False
    assert checks["litert"]["works"] is True
