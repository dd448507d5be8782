"""F_NOTIFY: a signal when something in a directory changes.

Rule: the host's inotify watches, because the files are the host's; it is asked after every system call, so that a
change the guest makes itself is told before the call that makes it returns.
Sources: man 2 fcntl ("File and directory change notification (dnotify)"), fs/notify/dnotify/dnotify.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.abi.polling import Poll
from emulator.kernel.files.async_io import tell_owner
from emulator.kernel.host_sockets import HostSockets

if TYPE_CHECKING:
    from emulator.kernel.files.regular import HostDirectoryDescription
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task

DN_ACCESS, DN_MODIFY, DN_CREATE, DN_DELETE, DN_RENAME, DN_ATTRIB, DN_MULTISHOT = 1, 2, 4, 8, 16, 32, 0x80000000
ALL_EVENTS = 0x3F
IN_ACCESS, IN_MODIFY, IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 1, 2, 4, 0x40, 0x80, 0x100, 0x200
_WATCHED = {
    DN_ACCESS: IN_ACCESS,
    DN_MODIFY: IN_MODIFY,
    DN_CREATE: IN_CREATE | IN_MOVED_TO,
    DN_DELETE: IN_DELETE | IN_MOVED_FROM,
    DN_RENAME: IN_MOVED_FROM | IN_MOVED_TO,
    DN_ATTRIB: IN_ATTRIB,
}
_EVENT = struct.Struct("iIII")


@dataclass(slots=True, eq=False)
class _Watch:
    directory: HostDirectoryDescription
    fd: int
    mask: int
    inotify: int  # an instance of its own: the host then keeps events of others apart


class DirectoryNotes:
    """Every F_NOTIFY of the machine."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._sockets = HostSockets()
        self._watches: dict[HostDirectoryDescription, _Watch] = {}

    def set(self, t: Task, directory: HostDirectoryDescription, fd: int, mask: int) -> None:
        """Watch for more (the events add up), or for nothing any more."""
        before = self._watches.get(directory)
        if not mask & ALL_EVENTS:
            self._drop(directory)
            return
        wanted = mask | (before.mask if before is not None else 0)
        if before is None:
            before = self._watches[directory] = _Watch(directory, fd, wanted, self._sockets.inotify())
            directory.on_release.append(lambda: self._drop(directory))
            self._kernel.scheduler.host_waits.watch(before.inotify, Poll.IN, lambda events: self.look())
        before.fd, before.mask = fd, wanted
        events = 0
        for bit, inotify_events in _WATCHED.items():
            events |= inotify_events if wanted & bit else 0
        path = b"/proc/self/fd/%d" % directory.need_host_fd()
        self._sockets.inotify_add_watch(before.inotify, path, events)
        if not directory.async_owner:
            directory.async_owner = t.pid
        self._kernel.after_calls["dnotify"] = self.look
        self._kernel.watch_calls = t.attention = True  # from the next call on

    def look(self) -> None:
        """Tell the owners what has happened meanwhile."""
        for watch in list(self._watches.values()):
            if self._sockets.poll(watch.inotify, Poll.IN):
                buffer = bytearray(1 << 16)
                count = self._kernel.host.readv(watch.inotify, [buffer])
                self._tell(watch, buffer[:count])

    def _tell(self, watch: _Watch, records: bytearray) -> None:
        offset, moved_away = 0, 0
        while offset < len(records):
            _, events, cookie, length = _EVENT.unpack_from(records, offset)
            offset += _EVENT.size + length
            happened = sum(bit for bit, mask in _WATCHED.items() if bit != DN_RENAME and events & mask)
            if events & IN_MOVED_FROM:
                moved_away = cookie
            elif events & IN_MOVED_TO and cookie == moved_away:  # within the directory
                happened |= DN_RENAME
            if watch.mask & happened:
                tell_owner(self._kernel, watch.directory, watch.fd)
                if not watch.mask & DN_MULTISHOT:
                    self._drop(watch.directory)
                    return

    def _drop(self, directory: HostDirectoryDescription) -> None:
        watch = self._watches.pop(directory, None)
        if watch is not None:
            self._kernel.scheduler.host_waits.unwatch(watch.inotify)
            self._sockets.close(watch.inotify)
        if not self._watches:
            self._kernel.after_calls.pop("dnotify", None)


def notes_of(kernel: Kernel) -> DirectoryNotes:
    """The machine's."""
    found = kernel.extensions.get("dnotify")
    if not isinstance(found, DirectoryNotes):
        found = kernel.extensions["dnotify"] = DirectoryNotes(kernel)
    return found
