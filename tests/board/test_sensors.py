"""Every documented tree gives the state that was written down for it; every sensor may fail."""

import json
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.board.command_sensors import SINCE_BOOT, THROTTLE_BITS, vcgencmd_throttled
from edgenet.board.detect import detect
from edgenet.board.doctor import examine
from edgenet.board.machine import Machine, Unreadable
from edgenet.board.sensors import ABSENT, KINDS, Sensors, read_state
from edgenet.board.state import READINGS
from edgenet.board.target import Sensor, load_target
from edgenet.board.tree import documented, open_tree
from edgenet.report.doctor import state_document

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=documented())
def tree(request):
    with open_tree(request.param) as machine:
        yield request.param, machine


def state_of(machine):
    return read_state(machine, detect(machine).target)


def one(machine, **sensor):
    """The share of one sensor, unknown values included."""
    return Sensors(machine, [Sensor(**sensor)]).read()


def reason(machine, field, **sensor):
    state = one(machine, **sensor)
    assert getattr(state, field) is None
    return state.unknown[field]


def test_golden_states(tree):
    """Run with EDGENET_UPDATE_GOLDEN=1 to accept a change, and read the diff."""
    name, machine = tree
    found = json.dumps(state_document(state_of(machine)), indent=2) + "\n"
    golden = GOLDEN / f"{name}.json"
    if os.environ.get("EDGENET_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert found == golden.read_text()


def test_trees_are_of_a_target_and_hold_no_more_than_is_read(tree):
    name, machine = tree
    folder = documented()[name]
    assert folder.parent.parent.name == detect(machine).target.name
    read = set()

    class Watched(Machine):
        def read(self, path):
            read.add(path)
            return machine.read(path)

        def glob(self, pattern):
            return machine.glob(pattern)

        def run(self, *argv, timeout_s=5.0):
            return machine.run(*argv, timeout_s=timeout_s)

    examine(Watched())
    stored = {
        "/" + path.relative_to(folder / "root").as_posix().replace("%3A", ":")
        for path in (folder / "root").rglob("*")
        if path.is_file()
    }
    # Read only where the energy counter itself may be.
    later = {"/sys/class/powercap/intel-rapl:0/max_energy_range_uj"}
    assert stored - read <= later


@pytest.mark.parametrize("name", ["this machine", *documented()])
def test_every_none_has_its_reason(name):
    with open_tree(name) if name in documented() else nullcontext(Machine()) as machine:
        state = state_of(machine)
    for field in READINGS:
        assert (getattr(state, field) is None) == bool(state.unknown.get(field)), field


def test_kinds_tell_fields_of_the_state():
    assert all(set(kind.tells) <= set(READINGS) for kind in KINDS.values())


def test_files_that_vanish_one_by_one(tree, copy_of):
    """Whatever is missing: no exception, a reason for every None."""
    name, _ = tree
    machine, root = copy_of(name)
    target = detect(machine).target
    for folder in sorted(path for path in (root / "sys").glob("*/*") if path.is_dir()):
        shutil.rmtree(folder)
        state = read_state(machine, target)
        for field in READINGS:
            assert (getattr(state, field) is None) == bool(state.unknown.get(field)), field


def test_a_folder_in_place_of_every_file(tree, copy_of):
    name, _ = tree
    machine, root = copy_of(name)
    target = detect(machine).target
    for path in [path for path in (root / "sys").rglob("*") if path.is_file()]:
        path.unlink()
        path.mkdir()
    state = read_state(machine, target)
    assert state.cpu_clock_mhz is None
    assert "is a directory" in state.unknown["cpu_clock_mhz"]


# Raspberry Pi


@given(st.integers(0, 2**20 - 1))
def test_throttle_bits(bits):
    class Answering(Machine):
        def run(self, *argv, timeout_s=5.0):
            return f"throttled={bits:#x}\n"

    state = vcgencmd_throttled(Answering(), Sensor(kind="vcgencmd_throttled"))
    now = [word for bit, word in THROTTLE_BITS.items() if bits & 1 << bit]
    before = [word for bit, word in THROTTLE_BITS.items() if bits & 1 << bit + SINCE_BOOT]
    assert state.throttled is bool(now)
    assert state.throttled_since_boot is bool(now or before)
    assert len(state.throttle_reasons) == len(now) + len(before)
    assert all(f"{word} now" in state.throttle_reasons for word in now)
    assert all(f"{word} since boot" in state.throttle_reasons for word in before)


def test_every_combination_of_throttle_bits_has_other_words(make_machine):
    seen = set()
    for low in range(16):
        for high in range(16):
            machine = make_machine(
                commands={"vcgencmd get_throttled": f"throttled={low | high << 16:#x}\n"}
            )
            seen.add(one(machine, kind="vcgencmd_throttled").throttle_reasons)
    assert len(seen) == 256


@pytest.mark.parametrize(
    ("answers", "failed", "expected"),
    [
        ({}, {"vcgencmd get_throttled": "vcgencmd is not installed"}, "is not installed$"),
        ({"vcgencmd get_throttled": "VCHI initialization failed\n"}, {}, "usermod -aG video"),
        ({}, {"vcgencmd get_throttled": "VCHI initialization failed"}, "usermod -aG video"),
        (
            {},
            {"vcgencmd get_throttled": "Can't open device file: /dev/vcio"},
            "usermod -aG video",
        ),
        ({"vcgencmd get_throttled": 'error=1 error_msg="x"'}, {}, "error_msg"),
        ({"vcgencmd get_throttled": ""}, {}, "says ''"),
        ({"vcgencmd get_throttled": "throttled=0x"}, {}, "says 'throttled=0x'"),
    ],
)
def test_vcgencmd_that_does_not_tell(make_machine, answers, failed, expected):
    machine = make_machine(commands=answers, failed_commands=failed)
    said = reason(machine, "throttled", kind="vcgencmd_throttled")
    assert said.startswith("vcgencmd get_throttled: ")
    assert re.search(expected, said)


def test_undervoltage_without_vcgencmd(copy_of):
    machine, root = copy_of("pi_4")
    machine.description.commands.pop("vcgencmd get_throttled")
    assert "rpi_volt tells under-voltage only" in state_of(machine).unknown["throttled"]
    (root / "sys/class/hwmon/hwmon1/in0_lcrit_alarm").write_text("1\n")
    state = state_of(machine)
    assert state.throttled is True
    assert state.throttle_reasons == ("under-voltage now",)


def test_pmic_pairs_by_name_and_drops_nan(make_machine):
    output = """
       A_A current(0)=2.0A
       B_A current(1)=0.5A
    ALONE_A current(2)=9.0A
       NO_A current(3)=nanA
       B_V volt(9)=4.0V
       A_V volt(8)=0.75V
      NO_V volt(7)=1.0V
   EXT5V_V volt(24)=5.1V
    BATT_V volt(25)=nanV
    """
    state = one(make_machine(commands={"vcgencmd pmic_read_adc": output}), kind="pmic_rails")
    assert state.power_w == pytest.approx(2 * 0.75 + 0.5 * 4)
    assert state.power_source and "2 PMIC rails, less than the input power" in state.power_source


def test_pmic_of_an_older_board(make_machine):
    answer = {"vcgencmd pmic_read_adc": 'error=1 error_msg="Command not registered"'}
    said = reason(make_machine(commands=answer), "power_w", kind="pmic_rails")
    assert "Command not registered" in said


def test_temperature_by_the_firmware(copy_of):
    machine, root = copy_of("pi_5")
    shutil.rmtree(root / "sys/class/thermal")
    assert state_of(machine).soc_temperature_c == 51.6


# Jetson


def ina3221(folder, *rails):
    base = f"/sys/bus/i2c/drivers/ina3221/{folder}/hwmon/hwmon1"
    return {
        f"{base}/{name}": value
        for channel, (label, millivolts, milliamperes) in enumerate(rails, 1)
        for name, value in (
            (f"in{channel}_label", label),
            (f"in{channel}_input", str(millivolts)),
            (f"curr{channel}_input", str(milliamperes)),
        )
    }


TOTALS = next(it.totals for it in load_target("jetson").sensors if it.kind == "ina3221")


def test_rails_without_a_total_are_added_up(make_machine):
    files = {
        **ina3221("1-0040", ("VDD_GPU_SOC", 5000, 400), ("VDD_CPU_CV", 5000, 200)),
        **ina3221(
            "1-0041", ("VIN_SYS_5V0", 5000, 600), ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 90)
        ),
    }
    state = one(make_machine(files), kind="ina3221", totals=TOTALS)
    assert state.power_w == pytest.approx(6.0)
    assert state.power_source == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    everything = one(make_machine(files), kind="ina3221", totals=())
    assert everything.power_w == pytest.approx(6.45)
    assert everything.power_source and "NC" not in everything.power_source


def test_the_sum_of_shunts_is_no_rail(copy_of):
    machine, root = copy_of("orin_nano")
    folder = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    (folder / "in7_label").write_text("sum of shunt voltages")
    (folder / "in7_input").write_text("5000")
    for channel in (1, 2, 3):
        (folder / f"in{channel}_label").write_text(f"RAIL_{channel}")
    state = state_of(machine)
    assert state.power_w == pytest.approx((5040 * 912 + 5032 * (136 + 272)) / 1e6)


def test_rails_of_jetpack_4(make_machine):
    base = "/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {f"{base}/rail_name_0": "POM_5V_IN", f"{base}/in_power0_input": "2410"}
    state = one(make_machine(files), kind="ina3221", totals=TOTALS)
    assert (state.power_w, state.power_source) == (2.41, "POM_5V_IN")


def test_rails_that_may_not_be_read(make_machine):
    files = ina3221("1-0040", ("VDD_IN", 5000, 400))
    path = next(path for path in files if path.endswith("curr1_input"))
    del files[path]
    machine = make_machine(files, refused={path: "EACCES"})
    assert f"sudo chmod +r {path}" in reason(machine, "power_w", kind="ina3221", totals=TOTALS)


def test_zones_without_power_are_dropped(copy_of):
    machine, root = copy_of("orin_nano")
    (root / "sys/class/thermal/thermal_zone1/temp").write_text("-256000\n")
    (root / "sys/class/thermal/thermal_zone5/temp").write_text("nan\n")
    state = state_of(machine)
    assert set(state.temperatures_c) == {
        *("cpu-thermal", "soc1-thermal", "soc2-thermal", "tj-thermal")
    }
    for zone in (0, 6, 7, 8):
        (root / f"sys/class/thermal/thermal_zone{zone}/temp").write_text("-256000\n")
    state = state_of(machine)
    assert state.soc_temperature_c is None
    assert "its part of the chip is off" in state.unknown["soc_temperature_c"]
    assert "EAGAIN" in state.unknown["soc_temperature_c"]


def test_an_alert_is_throttling(copy_of):
    machine, root = copy_of("orin_nano")
    assert (root / "sys/class/thermal/cooling_device0/type").read_text() == "pwm-fan\n"
    (root / "sys/class/thermal/cooling_device2/cur_state").write_text("1\n")
    state = state_of(machine)
    assert state.throttled is True
    assert state.throttle_reasons == ("gpu-throttle-alert now",)


@pytest.mark.parametrize("output", ["", "NVPM ERROR: no such file", "NV Power Mode:"])
def test_nvpmodel_that_does_not_tell(make_machine, output):
    machine = make_machine(commands={"nvpmodel -q": output})
    assert "nvpmodel -q: says" in reason(machine, "power_mode", kind="nvpmodel")


# x86


def rapl(**counters):
    files = {}
    for number, (name, energy_uj) in enumerate(counters.items()):
        base = f"/sys/class/powercap/intel-rapl:{number}"
        files |= {f"{base}/name": name, f"{base}/energy_uj": str(energy_uj)}
        files |= {f"{base}/max_energy_range_uj": "1000000"}
    return files


class Clock:
    """Moved by hand."""

    now_ns = 0

    def __call__(self):
        return self.now_ns


def test_energy_becomes_power_and_wraps(make_machine, tmp_path):
    machine, clock = make_machine(rapl(**{"package-0": 900_000})), Clock()
    counter = tmp_path / "machine/root/sys/class/powercap/intel-rapl%3A0/energy_uj"
    sensors = Sensors(machine, [Sensor(kind="rapl")], clock)
    first = sensors.read()
    assert first.power_w is None
    assert "takes two readings" in first.unknown["power_w"]
    clock.now_ns += 100_000_000
    counter.write_text("950000")
    assert sensors.read().power_w == pytest.approx(0.5)
    clock.now_ns += 100_000_000
    counter.write_text("100000")  # 150,000 uJ on, over the range's end
    assert sensors.read().power_w == pytest.approx(1.5)
    assert sensors.read().power_w is None  # no time has passed


@given(
    start=st.integers(0, 999_999),
    used=st.lists(st.integers(0, 999_999), min_size=1, max_size=8),
)
def test_whatever_the_counter_does(start, used):
    """The energy that goes in comes out, whenever the counter wraps."""
    clock, counter = Clock(), [start]

    class Counting(Machine):
        def read(self, path):
            if path.endswith("energy_uj"):
                return str(counter[0])
            return "1000000" if path.endswith("range_uj") else "package-0"

        def glob(self, pattern):
            return ("/sys/class/powercap/intel-rapl:0/name",)

    sensors = Sensors(Counting(), [Sensor(kind="rapl")], clock)
    sensors.read()
    for amount in used:
        clock.now_ns += 1_000_000_000
        counter[0] = (counter[0] + amount) % 1_000_000
        assert sensors.read().power_w == pytest.approx(amount / 1e6)


def test_two_packages_without_the_platform(make_machine):
    machine, clock = make_machine(rapl(**{"package-0": 0, "package-1": 0, "psys": 0})), Clock()
    sensors = Sensors(machine, [Sensor(kind="rapl")], clock)
    sensors.read()
    clock.now_ns += 1
    state = sensors.read()
    assert state.power_w == 0
    assert state.power_source == "RAPL package-0 + package-1: the processor alone"


def test_energy_for_root_alone_says_how_to_get_it():
    with open_tree("laptop") as machine:
        said = state_of(machine).unknown["power_w"]
    assert "permission denied" in said
    assert "CVE-2020-8694" in said
    assert 'SUBSYSTEM=="powercap"' in said


def test_throttling_is_a_rise_of_the_count(copy_of):
    machine, root = copy_of("laptop")
    sensors = Sensors(machine, load_target("x86").sensors)
    first = sensors.read()
    assert (first.throttled, first.throttled_since_boot, first.throttle_count) == (None, True, 11)
    assert sensors.read().throttled is False
    count = root / "sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count"
    count.write_text("4\n")
    second = sensors.read()
    assert (second.throttled, second.throttle_count) == (True, 15)
    assert "a core too hot now" in second.throttle_reasons
    assert "the package too hot now" not in second.throttle_reasons


def test_governors_that_differ(copy_of):
    machine, root = copy_of("pi_5")
    governor = root / "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor"
    governor.write_text("performance\n")
    assert state_of(machine).governor == "ondemand, performance"


def test_a_governor_without_clocks(copy_of):
    machine, root = copy_of("laptop")
    for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"):
        path.unlink()
    state = state_of(machine)
    assert state.governor == "powersave"
    assert state.cpu_clock_mhz is None
    assert state.cpu_max_clock_mhz
    assert "scaling_cur_freq: is not there" in state.unknown["cpu_clock_mhz"]


def test_a_sensor_that_no_target_names():
    with open_tree("pi_4") as machine:
        assert state_of(machine).unknown["power_mode"] == ABSENT


@pytest.mark.parametrize("text", ["", "nan", "inf", "warm"])
def test_what_is_no_number_is_unknown(make_machine, text):
    machine = make_machine({"/proc/loadavg": text})
    assert "which is no number" in reason(machine, "load_1min", kind="load")


def test_sensors_never_raise_unreadable(tree):
    _, machine = tree

    class Broken(Machine):
        def read(self, path):
            raise Unreadable(path, "is broken")

        def glob(self, pattern):
            return machine.glob(pattern)

        def run(self, *argv, timeout_s=5.0):
            raise Unreadable(argv[0], "is broken")

    state = read_state(Broken(), detect(machine).target)
    assert all("is broken" in why or why == ABSENT for why in state.unknown.values())
    assert set(state.unknown) == set(READINGS)
