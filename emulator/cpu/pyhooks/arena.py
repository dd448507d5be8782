"""Guest-physical memory without C: hooks/arena.c in Python.

One thing is missing: without a SIGBUS handler in C, a host file that is truncated under a shared mapping ends the
process.  Private mappings are read into frames, so they are safe.
"""

from __future__ import annotations

import ctypes
import os

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE
from emulator.errors import LinuxError

SHIFT = 12
RAN_RUNNER, RAN_STEPPER, RAN = 1, 2, 3  # which engine has translated code from a frame

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x4000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def _mmap(address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    got: int | None = _libc.mmap(address, length, prot, flags, fd, offset)
    if got is None or got == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return got


class Frames:
    """A run of frames behind a host file or a shared object; it lives as long as somebody holds it."""

    __slots__ = ("arena", "base", "count", "file")

    def __init__(self, arena: Arena, base: int, pages: int, file: bool) -> None:
        self.arena = arena
        self.base = base
        self.count = pages
        self.file = file

    def view(self) -> memoryview:
        """Return the memory itself."""
        view = self.arena.memory[self.base << SHIFT : (self.base + self.count) << SHIFT]
        return view.toreadonly() if self.file else view

    def __del__(self) -> None:
        self.arena.free_run(self.base, self.count)


class Arena:
    """Frames of guest-physical memory in one NORESERVE mapping."""

    def __init__(self, limit_frames: int | None = None, capacity_frames: int = 1 << 26) -> None:
        self.limit_frames = limit_frames
        while True:
            try:
                flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
                self.base = _mmap(None, capacity_frames << SHIFT, _PROT_READ | _PROT_WRITE, flags, -1, 0)
                break
            except OSError:
                if capacity_frames <= 1024:
                    raise MemoryError from None
                capacity_frames //= 2  # a host with strict overcommit gives less
        self.capacity = capacity_frames
        self.memory = memoryview((ctypes.c_ubyte * (capacity_frames << SHIFT)).from_address(self.base)).cast("B")
        self.refs: dict[int, int] = {}
        self.ran: dict[int, int] = {}  # frames that translated code came from, and in which engine
        self.stale: set[int] = set()  # their translations must go before the next run
        self.used = 0
        self._next = 1  # frame 0 is the shared zero page
        self._top = capacity_frames
        self._free: list[int] = []
        self._runs: list[tuple[int, int]] = []

    def __del__(self) -> None:
        if hasattr(self, "memory"):
            self.memory.release()
            _libc.munmap(self.base, self.capacity << SHIFT)

    def used_frames(self) -> int:
        """Return how many anonymous frames are in use."""
        return self.used

    def page(self, frame: int) -> memoryview:
        """Return a frame's bytes."""
        return self.memory[frame << SHIFT : (frame + 1) << SHIFT]

    def new_frame(self) -> int:
        """Return a zeroed frame with one reference.  Raises LinuxError(ENOMEM)."""
        if self.limit_frames is not None and self.used >= self.limit_frames:
            raise LinuxError(E.ENOMEM)
        if self._free:
            frame = self._free.pop()
            self.page(frame)[:] = bytes(PAGE_SIZE)
        elif self._next < self._top:
            frame = self._next
            self._next += 1
        else:
            raise LinuxError(E.ENOMEM)
        self.refs[frame] = 1
        self.used += 1
        return frame

    def scratch_frame(self) -> int:
        """Return a frame outside of the accounts."""
        self._next += 1
        return self._next - 1

    def release_frame(self, frame: int) -> None:
        """Drop a reference."""
        self.refs[frame] -= 1
        if self.refs[frame]:
            return
        del self.refs[frame]
        if self.ran.pop(frame, 0):
            self.stale.add(frame)
        self.used -= 1
        self._free.append(frame)

    def _new_run(self, pages: int) -> int:
        if pages <= 0:
            raise OSError(22, os.strerror(22))
        for n, (base, free) in enumerate(self._runs):
            if free >= pages:
                self._runs[n] = (base + pages, free - pages)
                return base
        if pages > self._top - self._next:
            raise LinuxError(E.ENOMEM)
        self._top -= pages
        return self._top

    def free_run(self, base: int, pages: int) -> None:
        """Take a run back."""
        for frame in range(base, base + pages) if pages < 1 << 16 else list(self.ran):
            if base <= frame < base + pages and self.ran.pop(frame, 0):
                self.stale.add(frame)
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        _mmap(self.base + (base << SHIFT), pages << SHIFT, _PROT_READ | _PROT_WRITE, flags, -1, 0)
        self._runs.append((base, pages))

    def map_file(self, host_fd: int, offset: int, n_pages: int, shared: bool, writable: bool) -> Frames:
        """Map part of a host file into a run of frames.  Raises OSError as mmap(2)."""
        base = self._new_run(n_pages)
        try:
            if shared:
                prot = _PROT_READ | (_PROT_WRITE if writable else 0)
                _mmap(self.base + (base << SHIFT), n_pages << SHIFT, prot, _MAP_SHARED | _MAP_FIXED, host_fd, offset)
            else:
                data = os.pread(host_fd, n_pages << SHIFT, offset)
                self.memory[base << SHIFT : (base << SHIFT) + len(data)] = data
        except OSError:
            self.free_run(base, n_pages)
            raise
        return Frames(self, base, n_pages, True)

    def forget_files(self) -> None:
        """Drop file mappings kept for the next process: there are none here."""

    def shared_anonymous(self, n_pages: int) -> Frames:
        """Return a run of zero frames that can be shared."""
        return Frames(self, self._new_run(n_pages), n_pages, False)
