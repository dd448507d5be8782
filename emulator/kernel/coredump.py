"""A process that dies of a signal leaves its memory behind: whether, where, and what.

Rule: the wait status' core bit is what `dump` returns, so it means what it means natively.  The file is the guest's
own (its directory, its root, its user); a handler that core_pattern names ("|program") is one of the host's and is
not started, the dump counts as delivered to it.
Source: core(5), fs/coredump.c, fs/binfmt_elf.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

from emulator.abi import notes
from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.memory import PAGE_SIZE
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel.thread_group import RLIMIT_CORE
from emulator.kernel.vma import VmFlag
from emulator.loader import core_file
from emulator.loader.core_file import CoreSegment, Ids, Times

if TYPE_CHECKING:
    from emulator.abi.signals import Siginfo
    from emulator.kernel.files.description import Description
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.sysctl import Sysctls
    from emulator.kernel.tasks import Task
    from emulator.kernel.vma import Vma

PATTERN_SIZE = 128
_CHUNK = 1 << 20


class Filter(IntFlag):
    """Bits of /proc/PID/coredump_filter."""

    ANON_PRIVATE = 1
    ANON_SHARED = 2
    MAPPED_PRIVATE = 4
    MAPPED_SHARED = 8
    ELF_HEADERS = 16


@dataclass(frozen=True, slots=True)
class CorePattern:
    """/proc/sys/kernel/core_pattern and core_uses_pid."""

    pattern: bytes
    uses_pid: bool

    @classmethod
    def of(cls, sysctls: Sysctls) -> CorePattern:
        """The machine's settings of now."""
        text = sysctls.text("kernel/core_pattern").rstrip(b"\n")[: PATTERN_SIZE - 1]
        return cls(text, sysctls.number("kernel/core_uses_pid") != 0)

    @property
    def handler(self) -> bool:
        """Does it name a program or a socket instead of a file?"""
        return self.pattern.startswith((b"|", b"@"))

    def name(self, task: Task, signo: int) -> bytes:
        """The file name (format_corename)."""
        out = b""
        at, pattern, saw_pid = 0, self.pattern, False
        while at < len(pattern):
            byte = pattern[at : at + 1]
            at += 1
            if byte != b"%":
                out += byte
                continue
            letter = pattern[at : at + 1]
            at += 1
            saw_pid = saw_pid or letter == b"p"
            out += _specifier(task, signo, letter)
        if self.uses_pid and not saw_pid:
            out += b".%d" % task.pid
        return out


def _specifier(task: Task, signo: int, letter: bytes) -> bytes:
    who = task.credentials
    match letter:
        case b"%":
            return b"%"
        case b"p" | b"P":
            return b"%d" % task.pid
        case b"i" | b"I":
            return b"%d" % task.tid
        case b"u":
            return b"%d" % who.ruid
        case b"g":
            return b"%d" % who.rgid
        case b"d":
            return b"%d" % task.group.dumpable
        case b"s":
            return b"%d" % signo
        case b"t":
            return b"%d" % (task.kernel.clock.realtime_ns() // 10**9)
        case b"h":
            return _one_component(task.kernel.hostname)
        case b"e":
            return _one_component(task.name)
        case b"f":
            return _one_component(task.group.exe.rpartition("/")[2])
        case b"E":
            return _one_component(task.group.exe)
        case b"c":
            return b"%d" % task.group.rlimits[RLIMIT_CORE][0]
        case b"C":
            return b"0"
        case _:
            return b""


def _one_component(text: str) -> bytes:
    """No slashes, and no name that leads elsewhere (cn_esc_printf)."""
    return text.encode(errors="surrogateescape").replace(b"/", b"!").replace(b"..", b"!.", 1)


def dump(kernel: Kernel, task: Task, info: Siginfo) -> bool:
    """Write the core of a process; `task`, on the CPU, dies of `info`.  Whether it was dumped (do_coredump)."""
    group = task.group
    limit = group.rlimits[RLIMIT_CORE][0]
    pattern = CorePattern.of(kernel.sysctls)
    if not group.dumpable:
        return False
    if pattern.handler:
        return limit != 1
    if limit < PAGE_SIZE:
        return False
    try:
        file = _create(kernel, task, pattern.name(task, info.signo))
    except LinuxError:
        return False
    with suppress(LinuxError):  # as much as there is room for
        _write(file, task, info, limit)
    file.close()
    return True


def _create(kernel: Kernel, task: Task, name: bytes) -> Description:
    """A new file in the place of what had the name; one that nobody else can read, or none."""
    with suppress(LinuxError):
        place = kernel.vfs.name(task, name)
        kernel.host.unlink(place.name, place.dir_fd)
    file = kernel.vfs.open(task, name, O.CREAT | O.EXCL | O.WRONLY | O.NOFOLLOW, 0o600)
    if file.stat().st_mode & 0o677 != 0o600:
        file.close()
        raise LinuxError(E.EPERM)
    return file


def _write(file: Description, task: Task, info: Siginfo, limit: int) -> None:
    """The whole file; holes where nothing was touched.  Stops where the limit does."""
    order, space = task.arch.struct_order, task.space
    filter_ = Filter(task.group.coredump_filter & 0x1F)
    vmas = list(space.vmas)
    segments = [CoreSegment(vma.start, vma.length, _dumped(task, vma, filter_), _rights(vma)) for vma in vmas]
    start = core_file.head(order, task.arch.elf_machine, _notes(task, info), segments)
    file.pwrite(task, [memoryview(start)[:limit]], 0)
    left, at = limit - len(start), len(start)
    if left < 0:
        return
    for vma, segment in zip(vmas, segments, strict=True):
        for offset, data in _contents(task, vma, segment.dumped):
            room = min(len(data), left & -PAGE_SIZE)
            if room:
                file.pwrite(task, [memoryview(data)[:room]], at + offset)
            left -= room
            if room < len(data):
                return
        at += segment.dumped
    file.truncate(at)


def _rights(vma: Vma) -> int:
    """PF_*."""
    flags = vma.flags
    return (4 if flags & VmFlag.READ else 0) | (2 if flags & VmFlag.WRITE else 0) | (1 if flags & VmFlag.EXEC else 0)


def _dumped(task: Task, vma: Vma, wanted: Filter) -> int:
    """How much of a mapping is in the file (vma_dump_size)."""
    if vma.name == "[vdso]":
        return vma.length
    if vma.flags & VmFlag.DONTDUMP:
        return 0
    if vma.flags & VmFlag.MAYSHARE:
        kind = Filter.ANON_SHARED if vma.file is None else Filter.MAPPED_SHARED
        return vma.length if wanted & kind else 0
    if wanted & Filter.ANON_PRIVATE and _written(task, vma):
        return vma.length
    if vma.file is None:
        return 0
    if wanted & Filter.MAPPED_PRIVATE:
        return vma.length
    headers = wanted & Filter.ELF_HEADERS and not vma.page_offset and vma.flags & VmFlag.READ
    if headers and (vma.flags & VmFlag.EXEC or _starts_elf(task, vma)):
        return PAGE_SIZE
    return 0


def _starts_elf(task: Task, vma: Vma) -> bool:
    return bytes(task.space.table.read_partial(vma.start, 4, force=True)) == b"\x7fELF"


def _written(task: Task, vma: Vma) -> bool:
    """Has it pages of its own?"""
    pages = task.space.table.resident(vma.start, vma.length)
    return any(pages) if vma.file is None else any(page & 4 for page in pages)


def _contents(task: Task, vma: Vma, size: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what is there, page by page or more at once; untouched private pages are left out."""
    table = task.space.table
    if not size:
        return
    present = table.resident(vma.start, size) if vma.anonymous else b"\1" * (size // PAGE_SIZE)
    page = 0
    while page < len(present):
        if not present[page]:
            page += 1
            continue
        end = page + 1
        while end < len(present) and present[end] and (end - page) * PAGE_SIZE < _CHUNK:
            end += 1
        try:
            data = table.read_partial(vma.start + page * PAGE_SIZE, (end - page) * PAGE_SIZE, force=True)
        except MemoryFault:
            data = b""
        if data:
            yield page * PAGE_SIZE, data
        if len(data) < (end - page) * PAGE_SIZE and not vma.anonymous:
            return  # behind the end of the file
        page = end


# -- notes -----------------------------------------------------------------------------------------------------------


def _notes(task: Task, info: Siginfo) -> bytes:
    """All of them in the kernel's order: the dumping thread first, what belongs to the process behind its status."""
    order, space, arch = task.arch.struct_order, task.space, task.arch
    parts = [
        core_file.note("CORE", notes.NT_PRPSINFO, _process(task)),
        core_file.note("CORE", notes.NT_SIGINFO, info.pack(arch.bits, order)),
        core_file.note("CORE", notes.NT_AUXV, space.auxv),
        core_file.note("CORE", notes.NT_FILE, core_file.file_note(order, _files(task))),
    ]
    text = b""
    for thread in (task, *(other for other in task.group.tasks.values() if other is not task)):
        if not thread.alive:
            continue
        status, *others = _registers(thread, info)
        text += b"".join((status, *parts, *others))
        parts = []
    return text


def _registers(thread: Task, info: Siginfo) -> Iterator[bytes]:
    file = thread.kernel.registers_of(thread)
    for kind, name in notes.REGISTER_SETS.items():
        layout = thread.arch.notes.get(name)
        if layout is None:
            continue
        content = layout.pack(file)
        if kind == notes.NT_PRSTATUS:
            content = _status(thread, info, content)
        yield core_file.note("CORE" if kind <= 2 else "LINUX", kind, content)


def _status(thread: Task, info: Siginfo, registers: bytes) -> bytes:
    group, kernel = thread.group, thread.kernel
    whole, children = kernel.usage_of(group), group.child_usage
    mine = (whole.user_ns, whole.system_ns) if thread.is_leader else (thread.user_ns, thread.system_ns)
    times = Times(*mine, children.user_ns, children.system_ns)
    signals = thread.signals
    ids = Ids(thread.tid, group.ppid, group.pgid, group.sid)
    order = thread.arch.struct_order
    return core_file.prstatus(order, info.signo, signals.pending.mask, signals.mask, ids, times, registers)


def _process(task: Task) -> bytes:
    group, space, who = task.group, task.space, task.credentials
    ids = Ids(group.tgid, group.ppid, group.pgid, group.sid)
    size = min(space.arg_end - space.arg_start, core_file.PSARGS_SIZE - 1)
    arguments = space.table.read_partial(space.arg_start, max(size, 0), force=True)
    name = task.name.encode(errors="surrogateescape")
    return core_file.prpsinfo(task.arch.struct_order, task.nice, who.ruid, who.rgid, ids, name, arguments)


def _files(task: Task) -> Iterator[tuple[int, int, int, bytes]]:
    space = task.space
    for vma in space.vmas:
        if not vma.anonymous:
            path = space.name_of(vma).encode(errors="surrogateescape")
            yield vma.start, vma.end, vma.page_offset, path
