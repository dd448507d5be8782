"""The form of an ELF core file: its header, its notes, its program headers.

Rule: pure; what goes into a note is told, nothing is looked up.  Fields are those of the 64-bit ABIs.
Source: core(5), elf(5), <linux/elfcore.h>; fs/binfmt_elf.c elf_core_dump().
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from emulator.abi.memory import PAGE_SIZE

ET_CORE = 4
PT_LOAD, PT_NOTE = 1, 4
HEADER_SIZE = 64
PHDR_SIZE = 56
FNAME_SIZE = 16
PSARGS_SIZE = 80


def note(owner: str, kind: int, content: bytes) -> bytes:
    """One note; name and content padded to 4 bytes."""
    name = owner.encode() + b"\0"
    return struct.pack("<III", len(name), len(content), kind) + _padded(name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@dataclass(frozen=True, slots=True)
class Times:
    """What prstatus shows of CPU time, ns."""

    user: int = 0
    system: int = 0
    children_user: int = 0
    children_system: int = 0

    def pack(self, order: str) -> bytes:
        """Four struct timeval."""
        parts = (self.user, self.system, self.children_user, self.children_system)
        return b"".join(struct.pack(order + "qq", ns // 10**9, ns % 10**9 // 1000) for ns in parts)


@dataclass(frozen=True, slots=True)
class Ids:
    """Who a thread is: its own number, and its process' relations."""

    pid: int
    ppid: int
    pgrp: int
    sid: int

    def pack(self, order: str) -> bytes:
        """Four ints."""
        return struct.pack(order + "iiii", self.pid, self.ppid, self.pgrp, self.sid)


def prstatus(order: str, signo: int, pending: int, held: int, ids: Ids, times: Times, registers: bytes) -> bytes:
    """struct elf_prstatus of one thread; `registers` is its pr_reg."""
    head = struct.pack(order + "iiih2xQQ", signo, 0, 0, signo, pending, held)
    return head + ids.pack(order) + times.pack(order) + registers + struct.pack(order + "i4x", 1)


def prpsinfo(order: str, nice: int, uid: int, gid: int, ids: Ids, fname: bytes, psargs: bytes) -> bytes:
    """struct elf_prpsinfo of the process: running, as who dumps itself is."""
    head = struct.pack(order + "BcBb4xQII", 0, b"R", 0, nice, 0, uid, gid)
    arguments = psargs[: PSARGS_SIZE - 1].replace(b"\0", b" ")
    return (
        head + ids.pack(order) + fname[: FNAME_SIZE - 1].ljust(FNAME_SIZE, b"\0") + arguments.ljust(PSARGS_SIZE, b"\0")
    )


def file_note(order: str, files: Iterable[tuple[int, int, int, bytes]]) -> bytes:
    """NT_FILE's content: (start, end, offset in pages, path) of every mapped file."""
    rows = list(files)
    table = b"".join(struct.pack(order + "QQQ", start, end, offset) for start, end, offset, _ in rows)
    return struct.pack(order + "QQ", len(rows), PAGE_SIZE) + table + b"".join(path + b"\0" for *_, path in rows)


@dataclass(frozen=True, slots=True)
class CoreSegment:
    """A range of memory; only its first `dumped` bytes are in the file.  `rights` are PF_* (R 4, W 2, X 1)."""

    address: int
    length: int
    dumped: int
    rights: int


def head(order: str, machine: int, notes: bytes, segments: list[CoreSegment]) -> bytes:
    """Everything before the memory: ELF header, program headers, notes; padded to a page."""
    count = len(segments) + 1
    data = 1 if order == "<" else 2
    ident = b"\x7fELF" + bytes((2, data, 1, 0)) + bytes(8)
    fields = (ET_CORE, machine, 1, 0, HEADER_SIZE, 0, 0, HEADER_SIZE, PHDR_SIZE, count, 0, 0, 0)
    header = ident + struct.pack(order + "HHIQQQIHHHHHH", *fields)
    offset = HEADER_SIZE + PHDR_SIZE * count
    table = struct.pack(order + "IIQQQQQQ", PT_NOTE, 0, offset, 0, 0, len(notes), 0, 4)
    at = offset + len(notes)
    at += -at % PAGE_SIZE
    for part in segments:
        sizes = (at, part.address, 0, part.dumped, part.length, PAGE_SIZE)
        table += struct.pack(order + "IIQQQQQQ", PT_LOAD, part.rights, *sizes)
        at += part.dumped
    whole = header + table + notes
    return whole + bytes(-len(whole) % PAGE_SIZE)
