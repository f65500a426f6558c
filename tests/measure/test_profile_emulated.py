"""What a profile measures where the machine is none whose times mean anything."""

from dataclasses import replace

import pytest

from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.bundle import Precision
from edgenet.measure import profile as measure
from edgenet.measure.layer_profile import Layers
from edgenet.measure.roofline import Limits
from edgenet.measure.timing import Rules

SHORT = Rules(runs=5, seconds=0.05, warm_up_runs=2, warm_up_seconds=0.05, give_up_seconds=2)


@pytest.mark.parametrize("emulated", [False, True])
def test_an_emulated_machine_has_no_peak(small_bundle, emulated):
    """To look for it took three minutes on the virtual board."""
    machine = Machine()
    found = measure.profile(
        small_bundle,
        measure.runnable(small_bundle, ("onnxruntime",), (Precision.FLOAT32,)),
        measure.Plan(rules=SHORT, quick=True, frames_per_second=100),
        machine=machine,
        board=replace(detect(machine, None), emulated=emulated),
        step=lambda *_, **__: lambda: None,
    )
    (measured,) = found.measured
    assert isinstance(measured.layers, Layers)
    assert bool(found.peaks) is not emulated
    if emulated:
        assert measured.layers.limits == "an emulated machine's peak is that of nothing"
    else:
        assert isinstance(measured.layers.limits, Limits)
