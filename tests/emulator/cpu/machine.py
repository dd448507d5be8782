"""A CPU with memory and no operating system, for the tests of this directory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from emulator.abi.memory import Prot
from emulator.arch.aarch64 import AARCH64
from emulator.arch.model import Arch
from emulator.arch.x86_64 import X86_64
from emulator.cpu.engine import Cpu
from emulator.cpu.mmu import PAGE, Arena, PageTable

CODE = 0x400000
DATA = 0x600000
STACK = 0x7FFF_0000
FOREVER = 1 << 62
RW = int(Prot.READ | Prot.WRITE)
RX = int(Prot.READ | Prot.EXEC)
RWX = RW | RX


class Bare:
    """Code at CODE, data at DATA, a stack."""

    def __init__(self, code: bytes, *, arch: Arch = X86_64, code_prot: int = RX, data_pages: int = 4) -> None:
        self.arena = Arena()
        self.cpu = Cpu(arch, self.arena)
        self.table = PageTable(self.arena)
        self.cpu.activate(self.table)
        length = (len(code) + PAGE) & -PAGE
        self.table.map_anonymous(CODE, length, code_prot)
        self.table.write(CODE, code, force=True)
        self.table.map_anonymous(DATA, data_pages * PAGE, RW)
        self.table.map_anonymous(STACK - 16 * PAGE, 16 * PAGE, RW)
        self.cpu.write(arch.pc, CODE)
        self.cpu.write(arch.sp, STACK - 64)

    def read(self, name: str) -> int:
        return self.cpu.read(name)


def assemble(tmp_path: Path, text: str, arch: Arch = X86_64) -> tuple[bytes, dict[str, int]]:
    """Assemble GNU as text; return its bytes and its labels' addresses when it lies at CODE."""
    prefix = "" if arch is X86_64 else "aarch64-linux-gnu-"
    source, obj, binary = tmp_path / "t.s", tmp_path / "t.o", tmp_path / "t.bin"
    head = ".intel_syntax noprefix\n" if arch is X86_64 else ""
    source.write_text(head + text + "\n")
    subprocess.run([prefix + "as", "-o", obj, source], check=True)
    subprocess.run([prefix + "ld", "-Ttext", hex(CODE), "-e", "0", "-o", binary, obj], check=True)
    names = subprocess.run([prefix + "nm", binary], check=True, capture_output=True, text=True).stdout
    labels = {line.split()[2]: int(line.split()[0], 16) for line in names.splitlines() if len(line.split()) == 3}
    flat = tmp_path / "t.flat"
    subprocess.run([prefix + "objcopy", "-O", "binary", "-j", ".text", binary, flat], check=True)
    return flat.read_bytes(), labels


Assembler = Callable[..., tuple[bytes, dict[str, int]]]
__all__ = ["AARCH64", "CODE", "DATA", "FOREVER", "RW", "RWX", "RX", "STACK", "X86_64", "Bare", "assemble"]
