"""Read an executable's headers as fs/binfmt_elf.c does: what it does not look at, we do not look at either.

Sources: <elf.h>, elf(5), load_elf_binary().  Parsed by hand rather than with pyelftools: the kernel's own leniency and
errors are the specification, and importing a DWARF library costs a tenth of a second at every start.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Prot
from emulator.arch import by_elf
from emulator.arch.model import Arch
from emulator.errors import LinuxError

Read = Callable[[int, int], bytes]  # (offset, size) -> bytes, fewer at the end of the file

BINPRM_BUF_SIZE = 256
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_INTERP, PT_PHDR, PT_TLS, PT_GNU_STACK = 1, 3, 6, 7, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
PATH_MAX = 4096
MAX_PHDRS_SIZE = 65536

# e_machine of what Linux runs on, for sentences about foreign programs.
MACHINES = {
    2: "SPARC", 3: "i386", 4: "m68k", 8: "MIPS", 15: "PA-RISC", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "ARM",
    42: "SuperH", 43: "SPARC64", 50: "IA-64", 62: "x86-64", 94: "Xtensa", 183: "AArch64", 243: "RISC-V",
    247: "BPF", 258: "LoongArch",
}  # fmt: skip


class LoadError(LinuxError):
    """A file that execve(2) refuses: the errno, and why in words."""

    def __init__(self, errno: E, why: str) -> None:
        super().__init__(errno)
        self.why = why

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int

    @property
    def prot(self) -> Prot:
        """PF_* as PROT_*."""
        pairs = ((PF_R, Prot.READ), (PF_W, Prot.WRITE), (PF_X, Prot.EXEC))
        return sum((prot for flag, prot in pairs if self.flags & flag), Prot.NONE)


@dataclass(frozen=True)
class Elf:
    """The headers of an executable that this machine could run."""

    arch: Arch
    position_independent: bool
    entry: int
    phoff: int
    segments: tuple[Segment, ...]

    @cached_property
    def loads(self) -> tuple[Segment, ...]:
        """PT_LOAD, in file order."""
        return tuple(segment for segment in self.segments if segment.type == PT_LOAD)

    @cached_property
    def total_size(self) -> int:
        """Bytes from the first page of the lowest segment to the end of the highest (total_mapping_size)."""
        if not self.loads:
            return 0
        low = min(segment.vaddr & -PAGE_SIZE for segment in self.loads)
        return max(segment.vaddr + segment.memsz for segment in self.loads) - low

    @property
    def alignment(self) -> int:
        """The largest p_align that is a power of two, at least a page (maximum_alignment)."""
        aligns = (s.align for s in self.loads if s.align and s.align & (s.align - 1) == 0)
        return max((PAGE_SIZE, *aligns))

    @property
    def phdr_address(self) -> int:
        """Where the program headers are in memory, before the load bias; 0 if no segment holds them."""
        for segment in self.loads:
            if segment.offset <= self.phoff < segment.offset + segment.filesz:
                return (self.phoff - segment.offset + segment.vaddr) & ((1 << self.arch.bits) - 1)
        return 0

    @property
    def executable_stack(self) -> bool:
        """PT_GNU_STACK with PF_X; without one, as the ISA has it (64 bits: no)."""
        flags = [segment.flags for segment in self.segments if segment.type == PT_GNU_STACK]
        return bool(flags[-1] & PF_X) if flags else self.arch.bits == 32

    @property
    def phentsize(self) -> int:
        """sizeof(Elf_Phdr)."""
        return 56 if self.arch.bits == 64 else 32


def parse(head: bytes, read: Read, *, interpreter: bool = False) -> Elf:
    """Parse an ELF file whose first BINPRM_BUF_SIZE bytes are `head` (zero padded as the kernel's buffer is).

    Raises LoadError: ENOEXEC, or ELIBBAD for the program's interpreter; EIO for a truncated header.
    """
    bad = E.ELIBBAD if interpreter else E.ENOEXEC
    what = "its interpreter" if interpreter else "it"
    length, head = len(head), head.ljust(BINPRM_BUF_SIZE, b"\0")
    if head[:4] != b"\x7fELF":
        raise LoadError(bad, f"{what} is not an ELF file")
    if length < (64 if head[4] == 2 else 52):
        raise LoadError(bad, f"{what} is truncated: it ends in its ELF header")
    elf_class, data = head[4], head[5]
    if elf_class not in (1, 2) or data not in (1, 2):
        raise LoadError(bad, f"{what} has a corrupt ELF header (class {elf_class}, byte order {data})")
    order = "<" if data == 1 else ">"
    wide = elf_class == 2
    header = struct.unpack_from(order + ("HHIQQQIHHH" if wide else "HHIIIIIHHH"), head, 16)
    e_type, machine, _version, entry, phoff, _shoff, _flags, _ehsize, phentsize, phnum = header
    if e_type not in (ET_EXEC, ET_DYN):
        kind = {1: "an object file, not linked yet", 4: "a core dump"}.get(e_type, f"of ELF type {e_type}")
        raise LoadError(bad, f"{what} is not a program but {kind}")
    arch = by_elf(machine, elf_class, data)
    if arch is None:
        name = MACHINES.get(machine, f"machine {machine}")
        ends = "little" if data == 1 else "big"
        raise LoadError(bad, f"{what} is for {name} ({32 * elf_class} bits, {ends} endian), which is not supported")
    if phentsize != (56 if wide else 32):
        raise LoadError(bad, f"{what} has program headers of {phentsize} bytes")
    size = phentsize * phnum
    if not 0 < size <= MAX_PHDRS_SIZE:
        raise LoadError(bad, f"{what} has no program headers" if not size else f"{what} has too many program headers")
    table = read(phoff, size) if phoff < 1 << 63 else b""
    if len(table) != size:
        raise LoadError(bad, f"{what} is truncated: its program headers lie past the end of the file")
    return Elf(arch, e_type == ET_DYN, entry, phoff, _segments(table, order, wide))


def _segments(table: bytes, order: str, wide: bool) -> tuple[Segment, ...]:
    if wide:
        rows = struct.iter_unpack(order + "IIQQQQQQ", table)
        return tuple(
            Segment(type_, flags, offset, vaddr, filesz, memsz, align)
            for type_, flags, offset, vaddr, _paddr, filesz, memsz, align in rows
        )
    rows = struct.iter_unpack(order + "IIIIIIII", table)
    return tuple(
        Segment(type_, flags, offset, vaddr, filesz, memsz, align)
        for type_, offset, vaddr, _paddr, filesz, memsz, flags, align in rows
    )


def interpreter_path(elf: Elf, read: Read) -> bytes | None:
    """Return PT_INTERP's path (the first one's), or None.  Raises LoadError(ENOEXEC, EIO)."""
    for segment in elf.segments:
        if segment.type != PT_INTERP:
            continue
        if not 2 <= segment.filesz <= PATH_MAX:
            raise LoadError(E.ENOEXEC, f"its PT_INTERP has {segment.filesz} bytes")
        text = read(segment.offset, segment.filesz) if segment.offset < 1 << 63 else b""
        if len(text) != segment.filesz:
            raise LoadError(E.EIO, "it is truncated: the name of its interpreter lies past the end of the file")
        if text[-1]:
            raise LoadError(E.ENOEXEC, "the name of its interpreter does not end")
        return text.partition(b"\0")[0]
    return None
