"""Addresses of thread-local variables without libthread_db (qGetTLSAddr).

The thread pointer leads to the DTV; a module's id is found in its link_map by the fingerprint that its PT_TLS leaves
there (glibc's struct link_map is private and moves between versions, the four words do not change).
Source: Drepper, "ELF Handling For Thread-Local Storage"; glibc include/link.h; musl src/internal/pthread_impl.h.
"""

from __future__ import annotations

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
            module = self._module_id(task, reader, link_map)
            return self._block(task, reader, pointer, module) + offset
        except MemoryFault:
            raise TargetError(EINVAL, "this thread's TLS cannot be read yet") from None

    def _module_id(self, task: Task, reader: GuestReader, link_map: int) -> int:
        if not link_map:
            return 1
        bias = reader.word(link_map)
        headers = self._headers_of(task, reader, link_map, bias)
        tls = next((header for header in headers if header.type == PT_TLS), None)
        if tls is None:
            raise TargetError(EINVAL, "this module has no thread-local variables")
        p = reader.pointer
        fingerprint = (bias + tls.vaddr, tls.filesz, tls.memsz, max(tls.align, 1))
        for at in range(0, _LINK_MAP_SIZE, p):
            if tuple(reader.word(link_map + at + i * p) for i in range(4)) == fingerprint:
                # l_tls_initimage, _initimage_size, _blocksize, _align, _firstbyte_offset, l_tls_offset, l_tls_modid
                return reader.word(link_map + at + 6 * p)
        return self._musl_id(reader, link_map, fingerprint)

    @staticmethod
    def _musl_id(reader: GuestReader, link_map: int, fingerprint: tuple[int, int, int, int]) -> int:
        """musl's struct dso: tls = {next, image, len, size, align, offset}, tls_id next to it."""
        p = reader.pointer
        for at in range(0, _LINK_MAP_SIZE, p):
            if reader.word(link_map + at) == fingerprint[0] and reader.word(link_map + at + p) == fingerprint[1]:
                for back in range(at + 5 * p, at + 12 * p, p):
                    value = reader.word(link_map + back)
                    if 0 < value < 1024:
                        return value
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

    @staticmethod
    def _block(task: Task, reader: GuestReader, pointer: int, module: int) -> int:
        p = reader.pointer
        for slot in task.arch.dtv_slots:  # where the thread control block keeps the DTV, by libc
            if slot.self_at is not None and reader.word(pointer + slot.self_at) != pointer:
                continue
            if slot.not_self_at is not None and reader.word(pointer + slot.not_self_at) == pointer:
                continue
            dtv = reader.word(pointer + slot.offset)
            if dtv:
                block = reader.word(dtv + module * slot.entry_words * p)
                if block not in (0, (1 << (8 * p)) - 1):
                    return block
                break
        raise TargetError(EINVAL, "the thread has not touched this module's thread-local variables yet")
