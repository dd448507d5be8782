"""Registers by gdb's name: of the running CPU, and captured in a file.

Rule: a file holds every register, taken in one go, so nothing read from it can race with the task.  x87: the engine
keeps FP0..7 in physical order, gdb's st0..7 are relative to TOP; both sides translate here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import unicorn

if TYPE_CHECKING:
    from emulator.arch.model import Arch

_CONSTANTS: Final = {
    "UC_X86_REG_": "x86_const",
    "UC_ARM64_REG_": "arm64_const",
    "UC_ARM_REG_": "arm_const",
    "UC_RISCV_REG_": "riscv_const",
}


def uc_register(arch: Arch, name: str) -> int:
    """Return Unicorn's number of the register it calls `name`."""
    module = __import__(f"unicorn.{_CONSTANTS[arch.cpu.uc_registers]}", fromlist=["*"])
    number: int = getattr(module, arch.cpu.uc_registers + name)
    return number


def uc_constant(name: str) -> int:
    """Return a number of Unicorn's C header, "" standing for 0."""
    for module in (unicorn, unicorn.x86_const, unicorn.arm64_const):
        if hasattr(module, name):
            number: int = getattr(module, name)
            return number
    raise AttributeError(name)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a register lies in a captured file."""

    number: int  # Unicorn's; negative: kept beside the engine
    offset: int
    size: int


class Layout:
    """How the register file of an ISA is laid out; one per Cpu."""

    def __init__(self, arch: Arch) -> None:
        self.slots: dict[str, Slot] = {}
        self.stack = tuple(f"st{n}" for n in range(8))
        self.masks = {r.name: r.user_mask & (1 << r.bits) - 1 for r in arch.registers}
        self.has_stack = "st0" in self.masks
        self.status = "fstat"
        offset = 0
        shadows = 0
        plan: list[int] = []
        # The stack pointer of the x87 comes first: writing it moves what st0..7 mean.
        for register in sorted(arch.registers, key=lambda r: r.name != self.status):
            size = (register.bits + 7) // 8
            uc = re.sub(r"^ST(\d)$", r"FP\1", register.uc)
            if uc:
                number = uc_register(arch, uc)
            else:
                shadows += 1
                number, size = -shadows, 8
            self.slots[register.name] = Slot(number, offset, size)
            plan += (number, size)
            offset += size
        self.size = offset
        self.plan = struct.pack(f"={len(plan)}i", *plan)

        self._pieces: dict[int, tuple[slice, ...]] = {}
        self._order = tuple((r.name, r.bits) for r in arch.registers)

    def pieces(self, status: int) -> tuple[slice, ...]:
        """Where the architectural bytes of each register lie, in the order of `arch.registers`.

        `status` is fstat: st0..7 lie where TOP says.
        """
        top = status >> 11 & 7
        found = self._pieces.get(top)
        if found is None:
            places = []
            for name, bits in self._order:
                slot = self.slots[self.physical(name, status) if self.has_stack and name in self.stack else name]
                places.append(slice(slot.offset, slot.offset + (bits + 7) // 8))
            found = self._pieces[top] = tuple(places)
        return found

    def physical(self, name: str, status: int) -> str:
        """Return the name under which the file holds a stack-relative x87 register."""
        return self.stack[(int(name[2]) + (status >> 11 & 7)) & 7]


class RegisterFile:
    """All registers of a task at one moment; `read` and `write` by gdb's name."""

    __slots__ = ("_bytes", "_layout")

    def __init__(self, layout: Layout, data: bytes) -> None:
        self._layout = layout
        self._bytes = bytearray(data)

    def read(self, name: str) -> int:
        """Return a register's bits as an unsigned number.  Raises KeyError."""
        slot = self._layout.slots[name]
        if self._layout.has_stack and name in self._layout.stack:
            slot = self._layout.slots[self._layout.physical(name, self.read(self._layout.status))]
        raw = int.from_bytes(self._bytes[slot.offset : slot.offset + slot.size], "little")
        return raw & self._layout.masks[name]

    def pieces(self) -> list[bytes]:
        """Every register's bytes, little-endian, in the order of `arch.registers`: what a debugger's `g` wants."""
        data = bytes(self._bytes)
        status = self.read(self._layout.status) if self._layout.has_stack else 0
        return [data[place] for place in self._layout.pieces(status)]

    def write(self, name: str, value: int) -> None:
        """Change a register in the file only.  Raises KeyError."""
        slot = self._layout.slots[name]
        if self._layout.has_stack and name in self._layout.stack:
            slot = self._layout.slots[self._layout.physical(name, self.read(self._layout.status))]
        value &= self._layout.masks[name]
        self._bytes[slot.offset : slot.offset + slot.size] = value.to_bytes(slot.size, "little")

    @property
    def data(self) -> bytes:
        """The file as the engine side takes it."""
        return bytes(self._bytes)

    def copy(self) -> RegisterFile:
        """Return a file of its own."""
        return RegisterFile(self._layout, bytes(self._bytes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegisterFile) and self._bytes == other._bytes

    __hash__ = None  # type: ignore[assignment]
