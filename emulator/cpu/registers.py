"""Registers by gdb's name: of the running CPU, and captured in a file.

Rule: a file holds every register, taken in one go, so nothing read from it can race with the task.  x87: the engine
keeps FP0..7 in physical order, gdb's st0..7 are relative to TOP; both sides translate here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import unicorn

if TYPE_CHECKING:
    from emulator.arch.model import Arch


def uc_constant(name: str) -> int:
    """Return a number of Unicorn's C headers, "" standing for 0.  Raises AttributeError."""
    if not name:
        return 0
    module = unicorn
    if not hasattr(module, name):  # UC_X86_REG_RAX, UC_CPU_X86_BROADWELL: in x86_const
        words = name.removeprefix("UC_").removeprefix("CPU_").split("_")
        module = import_module(f"unicorn.{words[0].lower()}_const")
    number: int = getattr(module, name)
    return number


def uc_register(arch: Arch, name: str) -> int:
    """Return Unicorn's number of the register it calls `name`."""
    return uc_constant(arch.cpu.uc_registers + name)


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


class Codec:
    """A set of registers read or written in one call of the hook module."""

    def __init__(self, layout: Layout, names: tuple[str, ...]) -> None:
        slots = [layout.slots[name] for name in names]
        numbers = [number for slot in slots for number in (slot.number, slot.size)]
        self.plan = struct.pack(f"={len(numbers)}i", *numbers)
        codes = {1: "B", 2: "H", 4: "I", 8: "Q"}
        self._struct = struct.Struct("<" + "".join(codes.get(slot.size, f"{slot.size}s") for slot in slots))
        self._wide = [(n, slot.size) for n, slot in enumerate(slots) if slot.size not in codes]
        whole = [(1 << 8 * slot.size) - 1 for slot in slots]
        masks = [layout.masks[name] for name in names]
        self._masks = [(n, mask) for n, mask in enumerate(masks) if mask != whole[n]]
        self._stack = [names.index(name) for name in layout.stack if name in names] if layout.has_stack else []
        self._status = names.index(layout.status) if self._stack else -1
        if self._stack and len(self._stack) != len(layout.stack):
            raise ValueError("all of the x87 stack or none of it")

    def decode(self, data: bytes) -> list[int]:
        """Return the values in the order of the names."""
        values = list(self._struct.unpack(data))
        for n, _ in self._wide:
            values[n] = int.from_bytes(values[n], "little")
        if self._stack:
            top = values[self._status] >> 11 & 7
            physical = [values[n] for n in self._stack]
            for n, at in enumerate(self._stack):
                values[at] = physical[n + top & 7]
        for n, mask in self._masks:
            values[n] &= mask
        return values

    def encode(self, values: Iterable[int]) -> bytes:
        """Lay the values out for the hook module; each must fit its register."""
        raw: list[Any] = list(values)
        for n, mask in self._masks:
            raw[n] &= mask
        if self._stack:
            top = raw[self._status] >> 11 & 7
            relative = [raw[n] for n in self._stack]
            for n, at in enumerate(self._stack):
                raw[at] = relative[n - top & 7]
        for n, size in self._wide:
            raw[n] = raw[n].to_bytes(size, "little")
        return self._struct.pack(*raw)


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

    def read_many(self, names: tuple[str, ...]) -> list[int]:
        """Return several registers."""
        return [self.read(name) for name in names]

    def write_many(self, values: Mapping[str, int]) -> None:
        """Change several, in order."""
        for name, value in values.items():
            self.write(name, value)

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
