"""Guest memory as a system call sees it: every bad pointer is EFAULT.

Rule: handlers touch guest memory only through this object.  Permissions are honoured; pages come in by demand; an
access just under the stack grows it, as the kernel's copy_to_user would.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.errors import LinuxError, MemoryFault

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task


class PageTableLike(Protocol):
    """What is needed of cpu.mmu.PageTable."""

    def read(self, addr: int, n: int, *, force: bool = False) -> bytes: ...
    def read_uint(self, addr: int, size: int, big_endian: bool, /) -> int: ...
    def write(self, addr: int, data: bytes | bytearray | memoryview, *, force: bool = False) -> None: ...
    def read_cstring(self, addr: int, limit: int) -> bytes: ...
    def buffers(self, addr: int, n: int, access: Access) -> list[memoryview]: ...


class SpaceLike(Protocol):
    """What is needed of kernel.address_space.AddressSpace: None means repaired, try again."""

    def handle_fault(self, address: int, access: Access) -> object | None: ...


@lru_cache(maxsize=512)
def _compiled(layout: str) -> struct.Struct:
    return struct.Struct(layout)


class UserMemory:
    """Typed access to one address space, in one byte order."""

    __slots__ = (
        "_big",
        "_buffers",
        "_cstring",
        "_layouts",
        "_order",
        "_pointer",
        "_prefix",
        "_read",
        "_read_uint",
        "_space",
        "_two_longs",
        "_write",
        "table",
    )

    def __init__(
        self, table: PageTableLike, space: SpaceLike | None = None, byteorder: str = "little", bits: int = 64
    ) -> None:
        self.table = table
        self._space = space
        self._read = table.read
        self._read_uint = table.read_uint
        self._big = byteorder == "big"
        self._write = table.write
        self._cstring = table.read_cstring
        self._buffers = table.buffers
        self._order: str = byteorder
        self._prefix = "<" if byteorder == "little" else ">"
        self._pointer = bits // 8
        self._layouts: dict[str, struct.Struct] = {}
        self._two_longs = _compiled(self._prefix + ("qq" if bits == 64 else "ii")).pack  # the clock calls are hot

    def _repair(self, fault: MemoryFault) -> None:
        """Let the address space repair the fault (stack growth); LinuxError(EFAULT) if it cannot."""
        space = self._space
        if space is None or space.handle_fault(fault.address, fault.access) is not None:
            raise LinuxError(E.EFAULT) from None

    def read(self, address: int, count: int) -> bytes:
        """`count` bytes; EFAULT if any is not readable."""
        if count <= 0:
            return b""
        for _ in range(4):
            try:
                return self._read(address, count)
            except MemoryFault as fault:
                self._repair(fault)
        raise LinuxError(E.EFAULT)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store all of `data`; EFAULT if any byte is not writable."""
        if not data:
            return
        for _ in range(4):
            try:
                self._write(address, data)
                return
            except MemoryFault as fault:
                self._repair(fault)
        raise LinuxError(E.EFAULT)

    def buffers(self, address: int, count: int, access: Access) -> list[memoryview]:
        """Host views of the guest's bytes, for zero-copy host I/O: Access.WRITE if the host will store into them."""
        if count <= 0:
            return []
        for _ in range(4):
            try:
                return self._buffers(address, count, access)
            except MemoryFault as fault:
                self._repair(fault)
        raise LinuxError(E.EFAULT)

    def read_cstring(self, address: int, limit: int = 4096, too_long: E = E.ENAMETOOLONG) -> bytes:
        """The NUL-terminated string without its NUL; `too_long` if none within `limit` bytes."""
        try:
            return self._cstring(address, limit)
        except MemoryFault:
            raise LinuxError(E.EFAULT) from None
        except ValueError:
            raise LinuxError(too_long) from None

    def read_uint(self, address: int, size: int) -> int:
        """An unsigned number of `size` <= 8 bytes in the guest's byte order."""
        for _ in range(4):
            try:
                return self._read_uint(address, size, self._big)
            except MemoryFault as fault:
                self._repair(fault)
        raise LinuxError(E.EFAULT)

    def read_u8(self, address: int) -> int:
        """One byte."""
        return self.read_uint(address, 1)

    def read_u32(self, address: int) -> int:
        """Unsigned 32 bits in the guest's byte order."""
        try:
            return self._read_uint(address, 4, self._big)  # a futex word, mostly: hot
        except MemoryFault:
            return self.read_uint(address, 4)

    def read_s32(self, address: int) -> int:
        """Signed 32 bits in the guest's byte order."""
        return int.from_bytes(self.read(address, 4), self._order, signed=True)  # type: ignore[arg-type]

    def read_u64(self, address: int) -> int:
        """Unsigned 64 bits in the guest's byte order."""
        return self.read_uint(address, 8)

    def read_s64(self, address: int) -> int:
        """Signed 64 bits in the guest's byte order."""
        return int.from_bytes(self.read(address, 8), self._order, signed=True)  # type: ignore[arg-type]

    def read_ptr(self, address: int) -> int:
        """A pointer, or an unsigned long."""
        return self.read_uint(address, self._pointer)

    def write_u32(self, address: int, value: int) -> None:
        """32 bits, truncated; negative values as two's complement."""
        self.write(address, (value & 0xFFFFFFFF).to_bytes(4, self._order))  # type: ignore[arg-type]

    write_s32 = write_u32

    def write_u64(self, address: int, value: int) -> None:
        """64 bits, truncated; negative values as two's complement."""
        self.write(address, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, self._order))  # type: ignore[arg-type]

    def write_ptr(self, address: int, value: int) -> None:
        """A pointer, or an unsigned long."""
        size = self._pointer
        self.write(address, (value & ((1 << size * 8) - 1)).to_bytes(size, self._order))  # type: ignore[arg-type]

    @property
    def pointer_size(self) -> int:
        """Bytes in a pointer and a long."""
        return self._pointer

    @property
    def byteorder(self) -> str:
        """ "little" or "big"."""
        return self._order

    def layout(self, codes: str) -> struct.Struct:
        """A compiled struct in the guest's byte order, no padding; P is a pointer, L and l are (u)long."""
        found = self._layouts.get(codes)
        if found is not None:
            return found
        asked = codes
        if self._pointer == 8:
            codes = codes.replace("P", "Q").replace("L", "Q").replace("l", "q")
        else:
            codes = codes.replace("P", "I").replace("L", "I").replace("l", "i")
        found = self._layouts[asked] = _compiled(self._prefix + codes)
        return found

    def read_struct(self, address: int, codes: str) -> tuple[int, ...]:
        """Unpack `codes` (see `layout`) at `address`."""
        layout = self.layout(codes)
        return layout.unpack(self.read(address, layout.size))

    def write_struct(self, address: int, codes: str, *values: int | bytes) -> None:
        """Pack `values` as `codes` (see `layout`) at `address`."""
        self.write(address, self.layout(codes).pack(*values))

    def read_iovec(self, address: int, count: int) -> Sequence[tuple[int, int]]:
        """struct iovec[count] as (base, length); EINVAL past IOV_MAX or on a negative length, as readv(2)."""
        if not 0 <= count <= 1024:
            raise LinuxError(E.EINVAL)
        flat = self.read_struct(address, "PL" * count) if count else ()
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        limit = (1 << (self._pointer * 8 - 1)) - 1
        total = 0
        for _, length in pairs:
            total += length
            if length > limit or total > limit:
                raise LinuxError(E.EINVAL)
        return pairs

    def read_timespec(self, address: int) -> int:
        """struct timespec (64-bit layout of the ISA's long) as nanoseconds; EINVAL if it is not normalised."""
        seconds, nanoseconds = self.read_struct(address, "ll")
        if seconds < 0 or not 0 <= nanoseconds < 1_000_000_000:
            raise LinuxError(E.EINVAL)
        return seconds * 1_000_000_000 + nanoseconds

    def write_timespec(self, address: int, value_ns: int) -> None:
        """Nanoseconds as struct timespec."""
        self.write(address, self._two_longs(*divmod(value_ns, 1_000_000_000)))

    def read_timeval(self, address: int) -> int:
        """struct timeval as nanoseconds; EINVAL if it is not normalised."""
        seconds, microseconds = self.read_struct(address, "ll")
        if seconds < 0 or not 0 <= microseconds < 1_000_000:
            raise LinuxError(E.EINVAL)
        return (seconds * 1_000_000 + microseconds) * 1000

    def write_timeval(self, address: int, value_ns: int) -> None:
        """Nanoseconds as struct timeval."""
        seconds, rest = divmod(value_ns, 1_000_000_000)
        self.write(address, self._two_longs(seconds, rest // 1000))


def user_buffers(t: Task, address: int, count: int, access: Access) -> list[memoryview]:
    """Views of guest memory; if it turns bad after the first byte, of its good beginning.  EFAULT otherwise."""
    if not count and address > t.arch.layout.task_size:  # access_ok looks at the address even so
        raise LinuxError(E.EFAULT)
    try:
        return t.memory.buffers(address, count, access)
    except LinuxError:
        return _good_beginning(t, address, count, access)


def _good_beginning(t: Task, address: int, count: int, access: Access) -> list[memoryview]:
    good: list[memoryview] = []
    position, end = address, address + count
    while position < end:
        step = min(end - position, PAGE_SIZE - position % PAGE_SIZE)
        try:
            good += t.memory.buffers(position, step, access)
        except LinuxError:
            if not good:
                raise
            break
        position += step
    return good
