"""The boards that there are: what each says of itself, and the processor that is emulated for it.

Taken from the boards' published device trees and from Arm's register descriptions. What QEMU does
not emulate - the SoC around the cores, its clocks, sensors and firmware - is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

CORES = 2
"""A real one has four; more than the host's own only take turns. CI has two."""
MEMORY_MIB = 2048


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One kind of board."""

    name: str
    processor: str
    """The name that QEMU has for it."""
    model: str
    compatible: tuple[str, ...]
    """The device tree's words, the most specific first."""
    features: str
    """The line in /proc/cpuinfo. The kernel writes its own; user mode emulation needs to be told,
    and a feature that the emulated processor has not ends in an illegal instruction."""
    part: int
    variant: int
    revision: int
    """Fields of the register MIDR_EL1; the implementer is Arm."""

    @property
    def midr(self) -> int:
        """Return the whole register."""
        return 0x41 << 24 | self.variant << 20 | 0xF << 16 | self.part << 4 | self.revision


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="pi4",
            processor="cortex-a72",
            model="Raspberry Pi 4 Model B Rev 1.5",
            compatible=("raspberrypi,4-model-b", "brcm,bcm2711"),
            features="fp asimd evtstrm crc32 cpuid",
            part=0xD08,
            variant=0,
            revision=3,
        ),
        Profile(
            name="pi5",
            processor="cortex-a76",
            model="Raspberry Pi 5 Model B Rev 1.0",
            compatible=("raspberrypi,5-model-b", "brcm,bcm2712"),
            features=(
                "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm "
                "lrcpc dcpop asimddp"
            ),
            part=0xD0B,
            variant=4,
            revision=1,
        ),
    )
}
