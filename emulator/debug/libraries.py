"""The dynamic linker's lists (qXfer:libraries-svr4), auxv, exec-file, qOffsets.

Source: <link.h> (struct r_debug, struct link_map), glibc's elf/link.h r_debug_extended; gdbserver's linux-low.cc says
which attributes a list has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emulator.abi.auxv import At
from emulator.debug.core import EINVAL, Core
from emulator.errors import MemoryFault
from emulator.kernel.address_space import AddressSpace
from emulator.kernel.tasks import Task
from gdbstub.abilities import Library, LibraryList
from gdbstub.errors import TargetError

PT_DYNAMIC, PT_PHDR, PT_TLS = 2, 6, 7
_DT_NULL, _DT_DEBUG = 0, 21
_EPERM = 1
_LIMIT = 8192
_NAME_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class ProgramHeader:
    """Elf_Phdr, what is needed of it."""

    type: int
    vaddr: int
    filesz: int
    memsz: int
    align: int


class GuestReader:
    """Pointers and numbers of the guest, in its sizes."""

    def __init__(self, task: Task) -> None:
        self.space: AddressSpace = task.space
        self.order = task.arch.byteorder
        self.pointer = task.arch.bits // 8

    def number(self, address: int, size: int) -> int:
        """An unsigned number; raises MemoryFault."""
        return int.from_bytes(self.space.table.read(address, size, force=True), self.order)

    def word(self, address: int) -> int:
        """A pointer or unsigned long."""
        return self.number(address, self.pointer)

    def text(self, address: int, limit: int = _NAME_LIMIT) -> bytes:
        """A C string."""
        data = self.space.table.read_partial(address, limit, force=True)
        return data.partition(b"\0")[0]

    def program_headers(self, address: int, entry: int, count: int) -> list[ProgramHeader]:
        """A table of program headers in memory."""
        return [self._program_header(address + i * entry) for i in range(min(count, 256))]

    def _program_header(self, at: int) -> ProgramHeader:
        if self.pointer == 8:
            return ProgramHeader(
                self.number(at, 4), self.word(at + 16), self.word(at + 32), self.word(at + 40), self.word(at + 48)
            )
        return ProgramHeader(
            self.number(at, 4), self.word(at + 8), self.word(at + 16), self.word(at + 20), self.word(at + 28)
        )


def auxv_entries(task: Task) -> dict[int, int]:
    """The auxiliary vector as execve gave it."""
    size = task.arch.bits // 8
    data = task.space.auxv
    order = task.arch.byteorder
    words = [int.from_bytes(data[i : i + size], order) for i in range(0, len(data), size)]
    return dict(zip(words[::2], words[1::2], strict=False))


def main_headers(task: Task) -> tuple[int, list[ProgramHeader]]:
    """(load bias, program headers) of the main program."""
    auxv = auxv_entries(task)
    address = auxv.get(At.PHDR, 0)
    headers = GuestReader(task).program_headers(address, auxv.get(At.PHENT, 0), auxv.get(At.PHNUM, 0))
    bias = next((address - header.vaddr for header in headers if header.type == PT_PHDR), 0)
    return bias, headers


def find_r_debug(task: Task) -> int:
    """Address of the main program's r_debug; 0 before the dynamic linker has filled it in.

    Raises TargetError if the program has no place for it (a static one, or the dynamic linker run as a program): an
    error, and no empty list, makes gdb look for one by itself.
    """
    reader = GuestReader(task)
    try:
        bias, headers = main_headers(task)
        dynamic = next((header for header in headers if header.type == PT_DYNAMIC), None)
        at = 0 if dynamic is None else bias + dynamic.vaddr
        for _ in range(1024 if at else 0):
            tag, value = reader.word(at), reader.word(at + reader.pointer)
            if tag == _DT_NULL:
                break
            if tag == _DT_DEBUG:
                return value
            at += 2 * reader.pointer
    except MemoryFault:  # the dynamic linker has no PT_PHDR, so its bias is not known
        pass
    raise TargetError(_EPERM, "the program has no DT_DEBUG")


def namespaces(reader: GuestReader, r_debug: int) -> Iterator[tuple[int, int]]:
    """(r_debug, its r_map) of every link-map namespace."""
    seen: set[int] = set()
    while r_debug and r_debug not in seen and len(seen) < 64:
        seen.add(r_debug)
        version = reader.number(r_debug, 4)
        if version < 1:
            return
        yield r_debug, reader.word(r_debug + reader.pointer)
        # r_debug_extended: r_version, r_map, r_brk, r_state, r_ldbase, r_next
        r_debug = reader.word(r_debug + 5 * reader.pointer) if version >= 2 else 0


def walk(reader: GuestReader, link_map: int, previous: int, namespace: int) -> Iterator[tuple[Library, int]]:
    """(library, l_prev) along l_next."""
    p = reader.pointer
    for _ in range(_LIMIT):
        if not link_map:
            return
        l_prev = reader.word(link_map + 4 * p)
        if previous != l_prev:
            return
        name = reader.text(reader.word(link_map + p)).decode("utf-8", "surrogateescape")
        library = Library(name, link_map, reader.word(link_map), reader.word(link_map + 2 * p), namespace)
        yield library, l_prev
        previous, link_map = link_map, reader.word(link_map + 3 * p)


class LibrariesAbility(Core):
    """Libraries, AuxiliaryVector, ExecutableFile, SectionOffsets."""

    def auxiliary_vector(self, process: int) -> bytes:
        """As execve put it on the stack."""
        return bytes(self.space(process).auxv)

    def executable_file(self, process: int) -> str:
        """The guest's name of the program."""
        return executable_path(self.leader(process))

    def section_offsets(self, process: int) -> tuple[int, int, int]:
        """Everything moves by the load bias."""
        try:
            bias, _ = main_headers(self.leader(process))
        except MemoryFault:
            raise TargetError(EINVAL, "the program headers cannot be read") from None
        return bias, bias, bias

    def libraries(self, process: int, *, start: int, prev: int, namespace: int) -> LibraryList:
        """Walk every namespace, or go on from `start`."""
        task = self.leader(process)
        reader = GuestReader(task)
        found: list[Library] = []
        main = 0
        try:
            if start:
                found = [library for library, _ in walk(reader, start, prev, namespace)]
                return LibraryList(tuple(found))
            first = find_r_debug(task)
            if not first:
                return LibraryList()
            for r_debug, r_map in namespaces(reader, first):
                entries = [library for library, _ in walk(reader, r_map, 0, r_debug)]
                if r_debug == first and entries:
                    main = entries[0].link_map
                    entries = entries[1:]
                found += entries
            return LibraryList(tuple(found), main)
        except MemoryFault:
            return LibraryList(tuple(found), main)


def executable_path(task: Task) -> str:
    """What /proc/PID/exe says."""
    exe = task.space.exe
    if exe is not None:
        return exe.mmap_path().removesuffix(" (deleted)")
    return str(task.group.exe)
