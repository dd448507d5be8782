"""The rarer half of the host's door: umask, leases, file handles, file attributes, the page cache, mounts.

Source: man 2 fcntl, open_by_handle_at, file_getattr, cachestat, mount, unshare.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
from collections.abc import Callable
from typing import Any, TypeVar

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.errors import LinuxError
from emulator.kernel import host_libc as libc
from emulator.kernel.host_machine import HostMachine

T = TypeVar("T")
_CLONE_NEWNS, _MS_REC, _MS_SLAVE = 0x20000, 0x4000, 1 << 19


class HostFiles(HostMachine):
    """What `Host` inherits."""

    mounts_are_own = False  # `own_mounts` has succeeded

    def with_umask(self, umask: int, function: Callable[..., T], /, *args: Any, **keywords: Any) -> T:
        """Call a function that makes a file: umask and default ACL go together, so that the host applies both."""
        os.umask(umask)
        try:
            return self.call(function, *args, **keywords)
        finally:
            os.umask(0)

    def probe_lease(self, fd: int, kind: int) -> None:
        """Could this description have such a lease?  (F_SETLEASE, given back at once)"""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGIO,))
        try:
            self.call(fcntl.fcntl, fd, fcntl.F_SETLEASE, kind)
            self.call(fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.sigtimedwait((signal.SIGIO,), 0)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO,))

    def name_to_handle(self, dir_fd: int | None, path: bytes, flags: int, size: int) -> tuple[bytes, int, int]:
        """name_to_handle_at(2): struct file_handle, the mount, and the bytes the handle needs (more than `size`?)."""
        buffer = ctypes.create_string_buffer(size.to_bytes(4, "little"), 8 + size)
        mount = ctypes.c_uint64()
        try:
            libc.name_to_handle_at(
                libc.AT_FDCWD if dir_fd is None else dir_fd, path, buffer, ctypes.byref(mount), flags
            )
        except LinuxError as error:
            if error.errno is not E.EOVERFLOW:
                raise
        needed = int.from_bytes(buffer.raw[:4], "little")
        return buffer.raw[: 8 + size if needed <= size else 4], mount.value, needed

    def open_by_handle(self, mount_fd: int, handle: bytes, flags: int) -> int:
        """open_by_handle_at(2)."""
        return libc.open_by_handle_at(mount_fd, handle, flags | os.O_CLOEXEC)

    def file_attributes(self, path: bytes, follow: bool) -> bytes:
        """file_getattr(2): struct file_attr."""
        room, name = ctypes.create_string_buffer(24), ctypes.create_string_buffer(path)
        where, what = ctypes.addressof(name), ctypes.addressof(room)
        libc.newer("file_getattr", libc.AT_FDCWD, where, what, 24, 0 if follow else AT.SYMLINK_NOFOLLOW)
        return room.raw

    def set_file_attributes(self, path: bytes, attributes: bytes, follow: bool) -> None:
        """file_setattr(2)."""
        room, name = ctypes.create_string_buffer(attributes, 24), ctypes.create_string_buffer(path)
        where, what = ctypes.addressof(name), ctypes.addressof(room)
        libc.newer("file_setattr", libc.AT_FDCWD, where, what, 24, 0 if follow else AT.SYMLINK_NOFOLLOW)

    def cachestat(self, fd: int, start: int, length: int) -> bytes:
        """cachestat(2): struct cachestat."""
        span = (ctypes.c_uint64 * 2)(start, length)
        room = ctypes.create_string_buffer(40)
        libc.newer("cachestat", fd, ctypes.addressof(span), ctypes.addressof(room), 0)
        return room.raw

    def own_mounts(self) -> None:
        """Go into a mount namespace of our own, if we may: before anything has been opened."""
        with contextlib.suppress(LinuxError):
            libc.unshare(_CLONE_NEWNS)
            libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None)
            self.mounts_are_own = True

    def mount(
        self, source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None, cwd: int
    ) -> None:
        """mount(2); options name files from the directory `cwd` on."""
        back = self.call(os.open, b".", os.O_PATH | os.O_CLOEXEC)
        try:
            self.call(os.fchdir, cwd)
            libc.mount(source, target, kind, flags, data)
        finally:
            self.call(os.fchdir, back)
            os.close(back)

    def umount(self, target: bytes, flags: int) -> None:
        """umount2(2)."""
        libc.umount2(target, flags)
