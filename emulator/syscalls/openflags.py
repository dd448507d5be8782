"""open(2) flags between the ISA's numbers and the emulator's own (asm-generic's)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.fcntl import OPEN_FLAGS_GENERIC, translate_open_flags

if TYPE_CHECKING:
    from emulator.arch.model import Arch


def from_guest(arch: Arch, flags: int) -> int:
    """The emulator's numbers; where they are the ISA's too, unchanged (unknown bits included)."""
    if arch.abi.open_flags is OPEN_FLAGS_GENERIC:
        return flags
    return translate_open_flags(flags, arch.abi.open_flags, OPEN_FLAGS_GENERIC) | flags & 3


def to_guest(arch: Arch, flags: int) -> int:
    """The ISA's numbers."""
    if arch.abi.open_flags is OPEN_FLAGS_GENERIC:
        return flags
    return translate_open_flags(flags, OPEN_FLAGS_GENERIC, arch.abi.open_flags) | flags & 3
