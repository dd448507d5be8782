"""A register file and a memory for tests of what an ISA does with them."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from emulator.abi.memory import Access
from emulator.arch import Arch
from emulator.errors import MemoryFault


class Registers:
    """Registers of an ISA by name, masked to their widths."""

    def __init__(self, arch: Arch, seed: int | None = None) -> None:
        self.arch = arch
        rng = Random(seed)
        self.values = {
            r.name: (rng.getrandbits(r.bits) & r.user_mask if seed is not None else r.initial) for r in arch.registers
        }

    def read(self, name: str) -> int:
        return self.values[name]

    def write(self, name: str, value: int) -> None:
        self.values[name] = value & ((1 << self.arch.register[name].bits) - 1)

    def read_many(self, names: tuple[str, ...]) -> list[int]:
        return [self.read(name) for name in names]

    def write_many(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            self.write(name, value)


class Memory:
    """One mapping; everything else faults."""

    def __init__(self, start: int, size: int) -> None:
        self.start = start
        self.data = bytearray(size)

    def _at(self, addr: int, n: int, access: Access) -> int:
        at = addr - self.start
        if at < 0 or at + n > len(self.data):
            raise MemoryFault(addr, access, mapped=False)
        return at

    def read(self, addr: int, n: int) -> bytes:
        at = self._at(addr, n, Access.READ)
        return bytes(self.data[at : at + n])

    def write(self, addr: int, data: bytes) -> None:
        at = self._at(addr, len(data), Access.WRITE)
        self.data[at : at + len(data)] = data
