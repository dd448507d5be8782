"""Instruction sets: one file each, one `Arch` value each; `by_elf` finds the one for a program."""

from __future__ import annotations

from emulator.arch.aarch64 import AARCH64
from emulator.arch.model import Arch
from emulator.arch.x86_64 import X86_64

__all__ = ["AARCH64", "ARCHES", "X86_64", "Arch", "by_elf", "by_name"]

ARCHES: tuple[Arch, ...] = (X86_64, AARCH64)


def by_name(name: str) -> Arch:
    """Return the ISA with Linux' name `name` (uname -m).  Raises KeyError."""
    return {arch.name: arch for arch in ARCHES}[name]


def by_elf(machine: int, elf_class: int, data: int) -> Arch | None:
    """Return the ISA of an ELF header's e_machine, EI_CLASS (1: 32 bits) and EI_DATA (1: little endian), or None."""
    bits, byteorder = {1: 32, 2: 64}.get(elf_class), {1: "little", 2: "big"}.get(data)
    for arch in ARCHES:
        if (arch.elf_machine, arch.bits, arch.byteorder) == (machine, bits, byteorder):
            return arch
    return None
