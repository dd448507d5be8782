"""The only door to the host's operating system.

Rule: nothing else under `emulator/` calls the host (cpu/ maps its own arena).  Every failure leaves here as a
`LinuxError` *by name*, the errno-less failures of Python included, so that no host number and no Python exception ever
reaches a guest.  Time and randomness come through here too: nothing else differs between two runs.
Sources: man 2 of each call; errno(3); PEP 475 (the interpreter retries EINTR).
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import select
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from emulator.kernel import host_libc as libc
from emulator.kernel.host_errno import FAILURES, linux_error, translated
from emulator.kernel.host_files import HostFiles
from emulator.kernel.host_handles import HostDirectory

Bytes: TypeAlias = bytes | bytearray | memoryview

IOV_MAX = 1024


def _in_pieces(buffers: Sequence[Bytes], call: Callable[[Sequence[Bytes], int], int]) -> int:
    """A transfer of more buffers than a host call takes: the guest's one buffer lies in so many frames."""
    done = 0
    for start in range(0, len(buffers), IOV_MAX):
        piece = buffers[start : start + IOV_MAX]
        try:
            moved = call(piece, done)
        except FAILURES:
            if not done:
                raise
            break
        done += moved
        if moved < sum(map(len, piece)):
            break
    return done


class Host(HostFiles):
    """The host kernel as the emulator sees it.  Every method raises LinuxError and nothing else."""

    mounts_are_own = False  # `own_mounts` has succeeded

    # -- descriptors ---------------------------------------------------------------------------------------------

    def open(self, path: bytes, flags: int, mode: int = 0, dir_fd: int | None = None) -> int:
        """openat(2); flags are the host's.  Always close-on-exec."""
        try:
            return os.open(path, flags, mode, dir_fd=dir_fd)
        except FAILURES as error:
            raise linux_error(error) from None

    def close(self, fd: int) -> None:
        """close(2)."""
        self.call(os.close, fd)

    def dup(self, fd: int) -> int:
        """Duplicate, close-on-exec."""
        return self.call(os.dup, fd)

    def dup_onto(self, fd: int, target: int) -> None:
        """dup3(2)."""
        self.call(os.dup2, fd, target, False)

    def readv(self, fd: int, buffers: Sequence[Bytes]) -> int:
        """readv(2)."""
        try:
            if len(buffers) > IOV_MAX:
                return _in_pieces(buffers, lambda piece, _: os.readv(fd, piece))
            return os.readv(fd, buffers)
        except FAILURES as error:
            raise linux_error(error) from None

    def readv_ready(self, fd: int, buffers: Sequence[Bytes]) -> int:
        """readv(2) of a descriptor that does not block; -1 if it would have."""
        try:
            return os.readv(fd, buffers if len(buffers) <= IOV_MAX else buffers[:IOV_MAX])
        except BlockingIOError:
            return -1
        except FAILURES as error:
            raise linux_error(error) from None

    def writev(self, fd: int, buffers: Sequence[Bytes]) -> int:
        """writev(2)."""
        try:
            if len(buffers) > IOV_MAX:
                return _in_pieces(buffers, lambda piece, _: os.writev(fd, piece))
            return os.writev(fd, buffers)
        except FAILURES as error:
            raise linux_error(error) from None

    def preadv(self, fd: int, buffers: Sequence[Bytes], offset: int, flags: int = 0) -> int:
        """preadv2(2)."""
        try:
            if len(buffers) > IOV_MAX:
                return _in_pieces(buffers, lambda piece, done: os.preadv(fd, piece, offset + done, flags))
            return os.preadv(fd, buffers, offset, flags)
        except FAILURES as error:
            raise linux_error(error) from None

    def pwritev(self, fd: int, buffers: Sequence[Bytes], offset: int, flags: int = 0) -> int:
        """pwritev2(2)."""
        try:
            if len(buffers) > IOV_MAX:
                return _in_pieces(buffers, lambda piece, done: os.pwritev(fd, piece, offset + done, flags))
            return os.pwritev(fd, buffers, offset, flags)
        except FAILURES as error:
            raise linux_error(error) from None

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """lseek(2)."""
        try:
            return os.lseek(fd, offset, whence)
        except FAILURES as error:
            raise linux_error(error) from None

    def poll(self, fd: int, events: int, timeout_ms: int = 0) -> int:
        """poll(2) of one descriptor: its revents."""
        poller = select.poll()
        poller.register(fd, events)
        ready = self.call(poller.poll, timeout_ms)
        return ready[0][1] if ready else 0

    def poll_many(self, interest: Iterable[tuple[int, int]], timeout_ms: int | None) -> list[tuple[int, int]]:
        """poll(2) of many: (fd, revents) of those that are ready; None waits for ever, or for a signal."""
        poller = select.poll()
        for fd, events in interest:
            if fd >= 0:
                poller.register(fd, events)
        return self.call(poller.poll, timeout_ms)

    def fcntl(self, fd: int, command: int, argument: int | bytes = 0) -> int | bytes:
        """fcntl(2)."""
        return self.call(fcntl.fcntl, fd, command, argument)

    def ioctl(self, fd: int, request: int, argument: int | bytes = 0) -> int | bytes:
        """ioctl(2); a bytes argument comes back changed."""
        return self.call(fcntl.ioctl, fd, request, argument)

    def flock(self, fd: int, operation: int) -> None:
        """flock(2)."""
        self.call(fcntl.flock, fd, operation)

    def getdents64(self, fd: int, size: int) -> bytes:
        """getdents64(2): whole records of struct linux_dirent64, the same on every ISA."""
        buffer = ctypes.create_string_buffer(size)
        count = libc.getdents64(fd, buffer, size)
        return buffer.raw[:count]

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        libc.fallocate(fd, mode, offset, length)

    def sync_file_range(self, fd: int, offset: int, count: int, flags: int) -> None:
        """sync_file_range(2)."""
        libc.sync_file_range(fd, offset, count, flags)

    # -- names ---------------------------------------------------------------------------------------------------

    def stat(self, path: bytes, dir_fd: int | None = None, follow: bool = True) -> os.stat_result:
        """fstatat(2)."""
        try:
            return os.stat(path, dir_fd=dir_fd, follow_symlinks=follow)
        except FAILURES as error:
            raise linux_error(error) from None

    def fstat(self, fd: int) -> os.stat_result:
        """fstat(2)."""
        try:
            return os.fstat(fd)
        except FAILURES as error:
            raise linux_error(error) from None

    def statx(self, dir_fd: int | None, path: bytes, flags: int, mask: int) -> bytes:
        """statx(2): the 256 bytes of struct statx, the same on every ISA."""
        buffer = ctypes.create_string_buffer(256)
        libc.statx(libc.AT_FDCWD if dir_fd is None else dir_fd, path, flags, mask, buffer)
        return buffer.raw

    def statfs(self, target: int | bytes) -> bytes:
        """statfs(2) or fstatfs(2): the host's struct statfs64 (120 bytes on 64-bit hosts)."""
        buffer = ctypes.create_string_buffer(120)
        if isinstance(target, int):
            libc.fstatfs(target, buffer)
        else:
            libc.statfs(target, buffer)
        return buffer.raw

    def access(self, path: bytes, mode: int, flags: int, dir_fd: int | None = None) -> None:
        """faccessat2(2)."""
        libc.faccessat(libc.AT_FDCWD if dir_fd is None else dir_fd, path, mode, flags)

    def readlink(self, path: bytes, dir_fd: int | None = None) -> bytes:
        """readlinkat(2)."""
        try:
            return os.readlink(path, dir_fd=dir_fd)
        except FAILURES as error:
            raise linux_error(error) from None

    def fd_path(self, fd: int) -> bytes:
        """What the host calls the file behind a descriptor (" (deleted)" included)."""
        return self.readlink(b"/proc/self/fd/%d" % fd)

    def rename(self, old: bytes, new: bytes, old_dir: int | None, new_dir: int | None, flags: int = 0) -> None:
        """renameat2(2)."""
        old_fd = libc.AT_FDCWD if old_dir is None else old_dir
        new_fd = libc.AT_FDCWD if new_dir is None else new_dir
        if flags:
            libc.renameat2(old_fd, old, new_fd, new, flags)
        else:
            self.call(os.rename, old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)

    def link(self, old: bytes, new: bytes, old_dir: int | None, new_dir: int | None, flags: int = 0) -> None:
        """linkat(2)."""
        old_fd = libc.AT_FDCWD if old_dir is None else old_dir
        libc.linkat(old_fd, old, libc.AT_FDCWD if new_dir is None else new_dir, new, flags)

    def mknod(self, path: bytes, mode: int, device: int, dir_fd: int | None, umask: int) -> None:
        """mknodat(2)."""
        self.with_umask(umask, libc.mknodat, libc.AT_FDCWD if dir_fd is None else dir_fd, path, mode, device)

    def utimens(self, dir_fd: int | None, path: bytes | None, times: bytes | None, flags: int) -> None:
        """utimensat(2); path None means the descriptor itself; times are two struct timespec or None for now."""
        at = libc.AT_FDCWD if dir_fd is None else dir_fd
        name = None if path is None else ctypes.c_char_p(path)
        block = None if times is None else ctypes.create_string_buffer(times, len(times))
        libc.utimensat(at, name, block, flags)

    # -- files by descriptor -------------------------------------------------------------------------------------

    def fsync(self, fd: int, data_only: bool = False) -> None:
        """fsync(2) or fdatasync(2)."""
        self.call(os.fdatasync if data_only else os.fsync, fd)

    def ftruncate(self, fd: int, length: int) -> None:
        """ftruncate(2)."""
        self.call(os.ftruncate, fd, length)

    def set_status_flags(self, fd: int, flags: int) -> None:
        """F_SETFL of a description that is the emulator's alone."""
        self.call(fcntl.fcntl, fd, fcntl.F_SETFL, flags)

    def open_again(self, fd: int, access: int) -> int | None:
        """A non-blocking description of our own for the object behind `fd`; None where the host cannot."""
        try:
            return os.open(b"/proc/self/fd/%d" % fd, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return None

    def forget_inherited(self, fd: int) -> None:
        """The guest closed one of the emulator's own stdin, stdout, stderr: let the others see it closed.

        stderr stays, for diagnostics; the numbers stay taken, so that no other file ever gets them.
        """
        if fd in (0, 1):
            with translated():
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(null, fd, inheritable=False)
                os.close(null)

    def memfd(self, name: bytes, flags: int) -> int:
        """memfd_create(2), close-on-exec."""
        return self.call(os.memfd_create, os.fsdecode(name), flags | os.MFD_CLOEXEC)

    def sendfile(self, out: int, source: int, offset: int | None, count: int) -> int:
        """sendfile(2)."""
        return self.call(os.sendfile, out, source, offset, count)

    def copy_file_range(self, source: int, target: int, count: int, at: int | None, to: int | None) -> int:
        """copy_file_range(2)."""
        return self.call(os.copy_file_range, source, target, count, at, to)

    def fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        """posix_fadvise(2)."""
        self.call(os.posix_fadvise, fd, offset, length, advice)

    def fchmod(self, fd: int, mode: int) -> None:
        """fchmod(2)."""
        self.call(os.fchmod, fd, mode)

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        """fchown(2)."""
        self.call(os.fchown, fd, uid, gid)

    def isatty(self, fd: int) -> bool:
        """isatty(3)."""
        return os.isatty(fd)

    # -- changing names ------------------------------------------------------------------------------------------

    def mkdir(self, path: bytes, mode: int, dir_fd: int | None, umask: int = 0) -> None:
        """mkdirat(2)."""
        self.with_umask(umask, os.mkdir, path, mode, dir_fd=dir_fd)

    def rmdir(self, path: bytes, dir_fd: int | None = None) -> None:
        """unlinkat(2) with AT_REMOVEDIR."""
        self.call(os.rmdir, path, dir_fd=dir_fd)

    def unlink(self, path: bytes, dir_fd: int | None = None) -> None:
        """unlinkat(2)."""
        self.call(os.unlink, path, dir_fd=dir_fd)

    def symlink(self, target: bytes, path: bytes, dir_fd: int | None = None) -> None:
        """symlinkat(2)."""
        self.call(os.symlink, target, path, dir_fd=dir_fd)

    def chmod(self, path: bytes, mode: int, dir_fd: int | None = None) -> None:
        """fchmodat(2), following links."""
        self.call(os.chmod, path, mode, dir_fd=dir_fd)

    def chown(self, path: bytes, uid: int, gid: int, dir_fd: int | None = None, follow: bool = True) -> None:
        """fchownat(2)."""
        self.call(os.chown, path, uid, gid, dir_fd=dir_fd, follow_symlinks=follow)

    def truncate(self, path: bytes, length: int) -> None:
        """truncate(2)."""
        self.call(os.truncate, path, length)

    def sync(self) -> None:
        """sync(2)."""
        os.sync()

    # -- extended attributes: by path or descriptor --------------------------------------------------------------

    def getxattr(self, target: bytes | int, name: bytes, follow: bool = True) -> bytes:
        """getxattr(2) and its family."""
        return self.call(os.getxattr, target, name, follow_symlinks=follow)

    def setxattr(self, target: bytes | int, name: bytes, value: bytes, flags: int, follow: bool = True) -> None:
        """setxattr(2) and its family."""
        self.call(os.setxattr, target, name, value, flags, follow_symlinks=follow)

    def listxattr(self, target: bytes | int, follow: bool = True) -> bytes:
        """listxattr(2) and its family: NUL-terminated names."""
        names = self.call(os.listxattr, target, follow_symlinks=follow)
        return b"".join(os.fsencode(name) + b"\0" for name in names)

    def removexattr(self, target: bytes | int, name: bytes, follow: bool = True) -> None:
        """removexattr(2) and its family."""
        self.call(os.removexattr, target, name, follow_symlinks=follow)

    # -- directories ---------------------------------------------------------------------------------------------

    def open_directory(self, path: str) -> int:
        """An O_PATH descriptor of a directory, links followed."""
        return self.call(os.open, path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def scratch_directory(self) -> HostDirectory:
        """A new directory on the host's shared memory, gone when the emulator ends."""
        where = "/dev/shm" if os.path.isdir("/dev/shm") else None
        path = self.call(tempfile.mkdtemp, prefix="emugdb-", dir=where)
        atexit.register(shutil.rmtree, path, True)
        self.call(os.chmod, path, 0o1777)
        return HostDirectory(self, self.open_directory(path))

    def getcwd(self) -> bytes:
        """The emulator's own working directory; "/" if it is gone."""
        try:
            return os.getcwdb()
        except OSError:
            return b"/"

    def encode(self, text: str) -> bytes:
        """A path given to Python as the bytes the host knows it by."""
        return os.fsencode(text)

    def exists(self, path: str) -> bool:
        """Is anything there?"""
        return os.path.lexists(path)

    def listdir(self, path: str) -> list[bytes]:
        """Names in a directory, sorted."""
        return sorted(self.call(os.listdir, os.fsencode(path)))
