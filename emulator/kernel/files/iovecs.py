"""Guest buffers as the host takes them.

Rule: a bad guest pointer becomes a bad host pointer at the same place, so that the host kernel itself decides what is
checked before it, how much is transferred ahead of it, and when EFAULT is due.  Source: readv(2), sendmsg(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emulator.abi.memory import PAGE_SIZE, Access
from emulator.errors import LinuxError
from emulator.kernel.host_sockets import BAD_ADDRESS, HostIovec, address_of

if TYPE_CHECKING:
    from emulator.kernel.user_memory import UserMemory

STREAM_CHUNK = 4 << 20  # a stream call moves at most this much at once; the host's buffers are smaller
_MAX_SEGMENTS = 1024
View = memoryview | bytes | bytearray


class GuestIovec:
    """(base, length) pairs of guest memory; `Access.WRITE` when the host will store into them."""

    __slots__ = ("_access", "_memory", "_pairs", "total")

    def __init__(self, memory: UserMemory, pairs: Sequence[tuple[int, int]], access: Access) -> None:
        self._memory = memory
        self._pairs = pairs
        self._access = access
        self.total = pairs[0][1] if len(pairs) == 1 else sum(length for _, length in pairs)

    def host(self, skip: int = 0, limit: int | None = STREAM_CHUNK) -> HostIovec:
        """The host's view of the bytes from `skip` on; past `limit` they are cut off (None: kept, but bad)."""
        segments: list[tuple[int, int]] = []
        keep: list[View] = []
        room = STREAM_CHUNK if limit is None else limit
        for base, length in self._pairs:
            if skip >= length:
                skip -= length
                continue
            base, length, skip = base + skip, length - skip, 0
            usable = min(length, room)
            room -= usable
            done = self._valid(base, usable, segments, keep)
            if done < usable or (usable < length and limit is None):
                segments.append((BAD_ADDRESS, length - done))
            if room <= 0 and limit is not None:
                break
        return HostIovec(_fitting(segments, limit is None), keep)

    def fill(self, data: bytes) -> int:
        """Store `data`, as much as fits; EFAULT."""
        done = 0
        for base, length in self._pairs:
            part = data[done : done + length]
            self._memory.write(base, part)
            done += len(part)
        return done

    def gather(self) -> bytes:
        """A copy of all of it; EFAULT."""
        return b"".join(self._memory.read(base, length) for base, length in self._pairs)

    def views(self) -> list[memoryview] | None:
        """Views of all of it; None if any byte is bad, or it is too much to hold at once."""
        if self.total > STREAM_CHUNK:
            return None
        found: list[memoryview] = []
        try:
            for base, length in self._pairs:
                if length:
                    found += self._memory.buffers(base, length, self._access)
        except LinuxError:
            return None
        return found if len(found) <= _MAX_SEGMENTS else None

    def single(self) -> memoryview | None:
        """The one view of a short, good, contiguous buffer: the usual case."""
        if len(self._pairs) != 1 or not 0 < self.total <= STREAM_CHUNK:
            return None
        base, length = self._pairs[0]
        try:
            views = self._memory.buffers(base, length, self._access)
        except LinuxError:
            return None
        return views[0] if len(views) == 1 else None

    def _valid(self, base: int, length: int, segments: list[tuple[int, int]], keep: list[View]) -> int:
        """Append the accessible prefix; returns how long it is."""
        if not length:
            return 0
        try:
            views = self._memory.buffers(base, length, self._access)
        except LinuxError:
            return self._page_wise(base, length, segments, keep)
        append(views, segments, keep)
        return length

    def _page_wise(self, base: int, length: int, segments: list[tuple[int, int]], keep: list[View]) -> int:
        done = 0
        while done < length:
            part = min(PAGE_SIZE - (base + done) % PAGE_SIZE, length - done)
            try:
                views = self._memory.buffers(base + done, part, self._access)
            except LinuxError:
                break
            append(views, segments, keep)
            done += part
        return done


class ViewIovec:
    """The same over host views which somebody else made of guest memory (read(2), write(2))."""

    __slots__ = ("_views", "total")

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views
        self.total = len(views[0]) if len(views) == 1 else sum(map(len, views))

    def fill(self, data: bytes) -> int:
        """As GuestIovec.fill."""
        done = 0
        for view in self._views:
            part = data[done : done + len(view)]
            memoryview(view)[: len(part)] = part
            done += len(part)
        return done

    def gather(self) -> bytes:
        """As GuestIovec.gather."""
        return b"".join(self._views)

    def views(self) -> list[memoryview] | None:
        """None: whoever has views has tried the short way already."""
        return None

    def single(self) -> memoryview | None:
        """As GuestIovec.single."""
        view = self._views[0] if len(self._views) == 1 else None
        return view if isinstance(view, memoryview) and len(view) else None

    def host(self, skip: int = 0, limit: int | None = STREAM_CHUNK) -> HostIovec:
        """As GuestIovec.host."""
        views = self._views
        if skip:
            rest = []
            for view in views:
                if skip < len(view):
                    rest.append(memoryview(view)[skip:])
                    skip = 0
                else:
                    skip -= len(view)
            views = rest
        segments: list[tuple[int, int]] = []
        keep: list[View] = []
        append(views, segments, keep)
        return HostIovec(_fitting(segments, limit is None), keep)


Iovec = GuestIovec | ViewIovec


def append(views: Sequence[View], segments: list[tuple[int, int]], keep: list[View]) -> None:
    """Append the addresses of host views; read-only ones are copied."""
    for view in views:
        if not view:
            continue
        if isinstance(view, memoryview):
            if view.readonly:
                view = bytearray(view)
        elif isinstance(view, bytes):
            view = bytearray(view)
        segments.append((address_of(view), len(view)))
        keep.append(view)


def _fitting(segments: list[tuple[int, int]], whole: bool) -> list[tuple[int, int]]:
    """At most IOV_MAX segments: scattered frames can make more of them than the guest gave."""
    if len(segments) <= _MAX_SEGMENTS:
        return segments
    if not whole:
        return segments[:_MAX_SEGMENTS]
    rest = sum(length for _, length in segments[_MAX_SEGMENTS - 1 :])
    return [*segments[: _MAX_SEGMENTS - 1], (BAD_ADDRESS, rest)]
