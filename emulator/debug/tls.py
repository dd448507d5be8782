"""Addresses of thread-local variables without libthread_db (qGetTLSAddr).

The thread pointer leads to the DTV; a module's id is found in its link_map by the fingerprint that its PT_TLS leaves
there (glibc's struct link_map is private and moves between versions, the four words do not change).
Source: Drepper, "ELF Handling For Thread-Local Storage"; glibc include/link.h; musl src/internal/pthread_impl.h.
"""

from __future__ import annotations

from emulator.arch.model import DtvSlot
from emulator.debug.core import EINVAL, Core
from emulator.debug.libraries import PT_DYNAMIC, PT_TLS, GuestReader, ProgramHeader, main_headers
from emulator.errors import MemoryFault
from emulator.kernel.tasks import Task
from gdbstub.errors import TargetError
from gdbstub.thread_id import ThreadId

_LINK_MAP_SIZE = 2048


class TlsAbility(Core):
    """ThreadLocalStorage."""

    def tls_address(self, thread: ThreadId, offset: int, link_map: int) -> int:
        """Address of the variable at `offset` in the block of the module `link_map`."""
        task = self.live(thread)
        if self.tls_disabled:
            raise TargetError(EINVAL, "TLS look-up was switched off")
        reader = GuestReader(task)
        pointer = self.kernel.registers_of(task).read(task.arch.tls)
        try:
            slot, dtv = self._dtv(task, reader, pointer)
            module = self._module_id(task, reader, link_map, glibc=slot.entry_words == 2)
            block = reader.word(dtv + module * slot.entry_words * reader.pointer)
        except MemoryFault:
            raise TargetError(EINVAL, "this thread's TLS cannot be read yet") from None
        if block in (0, (1 << (8 * reader.pointer)) - 1):
            raise TargetError(EINVAL, "the thread has not touched this module's thread-local variables yet")
        return block + offset

    @staticmethod
    def _dtv(task: Task, reader: GuestReader, pointer: int) -> tuple[DtvSlot, int]:
        """Which libc's thread control block this is, and its DTV."""
        for slot in task.arch.dtv_slots:
            if slot.self_at is not None and reader.word(pointer + slot.self_at) != pointer:
                continue
            if slot.not_self_at is not None and reader.word(pointer + slot.not_self_at) == pointer:
                continue
            dtv = reader.word(pointer + slot.offset)
            if dtv:
                return slot, dtv
        raise TargetError(EINVAL, "the thread has no thread-local storage yet")

    def _module_id(self, task: Task, reader: GuestReader, link_map: int, *, glibc: bool) -> int:
        """The index of a module in the DTV."""
        if not link_map:
            return 1
        bias = reader.word(link_map)
        headers = self._headers_of(task, reader, link_map, bias)
        tls = next((header for header in headers if header.type == PT_TLS), None)
        if tls is None:
            raise TargetError(EINVAL, "this module has no thread-local variables")
        p = reader.pointer
        # glibc: l_tls_initimage, _initimage_size, _blocksize, _align, _firstbyte_offset, l_tls_offset, l_tls_modid
        # musl: tls = {next, image, len, size, align, offset}, tls_id
        fingerprint = (bias + tls.vaddr, tls.filesz, tls.memsz, max(tls.align, 1))[: 4 if glibc else 2]
        for at in range(link_map, link_map + _LINK_MAP_SIZE, p):
            if all(reader.word(at + i * p) == word for i, word in enumerate(fingerprint)):
                return reader.word(at + (6 if glibc else 5) * p)
        raise TargetError(EINVAL, "the module's TLS id was not found")

    @staticmethod
    def _headers_of(task: Task, reader: GuestReader, link_map: int, bias: int) -> list[ProgramHeader]:
        main_bias, headers = main_headers(task)
        dynamic = reader.word(link_map + 2 * reader.pointer)
        if main_bias == bias and any(h.type == PT_DYNAMIC and h.vaddr + bias == dynamic for h in headers):
            return headers
        p = reader.pointer
        if reader.number(bias, 4) != int.from_bytes(b"\x7fELF", "little"):
            raise TargetError(EINVAL, "the module's ELF header is not at its base")
        table = bias + reader.word(bias + (32 if p == 8 else 28))
        size = reader.number(bias + (54 if p == 8 else 42), 2)
        count = reader.number(bias + (56 if p == 8 else 44), 2)
        return reader.program_headers(table, size, count)
