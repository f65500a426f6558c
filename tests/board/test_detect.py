"""Boards are recognised by what they say of themselves, and by nothing else."""

import pytest

from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.board.target import load_target
from edgenet.board.tree import documented, open_tree

ARM = "processor\t: {}\nFeatures\t: {}\nCPU implementer\t: 0x41\nCPU part\t: {}\n\n"


def board_of(tree):
    with open_tree(tree) as machine:
        return detect(machine)


@pytest.mark.parametrize(
    ("tree", "target", "processor", "cores"),
    [
        ("pi_4", "raspberry_pi", "Cortex-A72", 4),
        ("pi_5", "raspberry_pi", "Cortex-A76", 4),
        ("orin_nano", "jetson", "Cortex-A78AE", 6),
        ("laptop", "x86", "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", 8),
    ],
)
def test_documented_boards(tree, target, processor, cores):
    board = board_of(tree)
    assert board.target.name == target
    assert board.processors == (processor,) * cores
    assert board.fastest_cpus == tuple(range(cores))
    # The laptop has two threads a core.
    assert board.advised_cpus == tuple(range(4 if tree == "laptop" else cores))
    assert not board.emulated
    assert not board.virtual


def test_each_documented_board_is_covered():
    assert set(documented()) == {"pi_4", "pi_5", "orin_nano", "laptop"}


def test_features_for_int8():
    assert "asimddp" not in board_of("pi_4").features
    assert "asimddp" in board_of("pi_5").features
    assert "avx512_vnni" in board_of("laptop").features


def test_the_board_support_package_is_told():
    assert board_of("orin_nano").systems[1].startswith("R36 (release), REVISION: 4.3")


def test_a_file_is_as_good_as_a_name(make_machine):
    """A carrier board of somebody else's has another model, and the same file."""
    machine = make_machine(
        {"/proc/device-tree/model": "Somebody's carrier", "/etc/nv_tegra_release": "# R36"},
        {"uname -m": "aarch64"},
    )
    assert detect(machine).target.name == "jetson"


def test_any_other_board(make_machine):
    machine = make_machine(
        {"/proc/device-tree/model": "Another Board 5"}, {"uname -m": "aarch64\n"}
    )
    board = detect(machine)
    assert (board.target.name, board.name) == ("linux", "Another Board 5")


def test_nothing_to_go_by(make_machine):
    board = detect(make_machine())
    assert (board.target.name, board.model, board.architecture) == ("linux", None, None)
    assert board.name == "any Linux machine"
    assert board.processors == board.advised_cpus == ()


def test_a_target_that_is_asked_for():
    with open_tree("pi_5") as machine:
        assert detect(machine, load_target("jetson")).target.name == "jetson"


def test_big_and_little(make_machine):
    cores = ["0xd05"] * 4 + ["0xd0b"] * 2
    files = {
        "/proc/cpuinfo": "".join(
            ARM.format(number, "asimd asimddp" if part == "0xd0b" else "asimd", part)
            for number, part in enumerate(cores)
        )
    }
    for number, part in enumerate(cores):
        capacity = "1024" if part == "0xd0b" else "446"
        files[f"/sys/devices/system/cpu/cpu{number}/cpu_capacity"] = capacity
    board = detect(make_machine(files))
    assert board.processors == ("Cortex-A55",) * 4 + ("Cortex-A76",) * 2
    assert board.fastest_cpus == board.advised_cpus == (4, 5)
    assert board.features == {"asimd"}  # a thread may be moved to any core


def test_favoured_cores_are_no_other_kind(copy_of):
    machine, root = copy_of("laptop")
    for cpu, kilohertz in ((0, 4_400_000), (6, 3_300_000), (7, 3_300_000)):
        path = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq"
        path.write_text(str(kilohertz))
    assert detect(machine).fastest_cpus == (0, 1, 2, 3, 4, 5)


def test_cores_that_are_switched_off(make_machine):
    files = {"/proc/cpuinfo": "".join(ARM.format(cpu, "asimd", "0xd42") for cpu in (0, 1, 4, 5))}
    for cpu in (0, 1, 4, 5):
        files[f"/sys/devices/system/cpu/cpu{cpu}/cpu_capacity"] = "1024"
    board = detect(make_machine(files))
    assert board.cpus == board.fastest_cpus == board.advised_cpus == (0, 1, 4, 5)


def test_an_emulated_board_that_calls_itself_real(copy_of):
    machine, root = copy_of("pi_5")
    (root / "proc/device-tree/compatible").write_text("linux,dummy-virt\0")
    board = detect(machine)
    assert board.name.startswith("Raspberry Pi 5")
    assert board.emulated


def test_a_board_has_no_devices_of_an_emulator(copy_of):
    """Whatever its device tree says: the network card of QEMU's machine is on virtio."""
    machine, root = copy_of("pi_5")
    assert not detect(machine).emulated
    (root / "sys/bus/virtio/devices/virtio0").mkdir(parents=True)
    board = detect(machine)
    assert board.emulated
    assert board.virtual


def test_a_pc_is_known_by_its_processor(copy_of):
    machine, root = copy_of("laptop")
    cpuinfo = (root / "proc/cpuinfo").read_text()
    (root / "proc/cpuinfo").write_text(
        cpuinfo.replace("11th Gen Intel(R) Core(TM) i5-1135G7", "Intel(R) Celeron(R) N5105")
    )
    board = detect(machine)
    assert board.facts and board.facts.chip == "Atom family"
    assert {band.high_ms for band in board.latency_bands} == {32.4, 40.5}


def test_an_unknown_processor_keeps_its_numbers(make_machine):
    board = detect(make_machine({"/proc/cpuinfo": ARM.format(0, "asimd", "0xfff")}))
    assert board.processors == ("unknown processor 0x41 0xfff",)


def test_this_machine():
    board = detect(Machine())
    assert board.processors
    assert board.architecture
