"""vFile: host I/O over the guest's files, its /proc included.

Rule: paths are the guest's and are walked as the guest's open(2) would walk them, in the process' root; what comes back
is never the host's /proc.  Descriptors are the session's own, not the guest's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.fcntl import O
from emulator.debug.core import Core
from emulator.errors import LinuxError
from gdbstub.abilities import FileStatus, OpenFlags
from gdbstub.errors import FileError, TargetError

if TYPE_CHECKING:
    from emulator.kernel.files.description import Description, Stat
    from emulator.kernel.tasks import Task

_CHUNK_LIMIT = 1 << 20
_BITS = (
    (OpenFlags.APPEND, O.APPEND),
    (OpenFlags.CREATE, O.CREAT),
    (OpenFlags.TRUNCATE, O.TRUNC),
    (OpenFlags.EXCLUSIVE, O.EXCL),
)


class HostIoAbility(Core):
    """HostIo."""

    files: dict[int, tuple[Task, Description]]

    def _viewer(self, process: int) -> Task:
        try:
            return self.leader(process)
        except TargetError:
            for task in self.kernel.tasks:
                if task.alive:
                    return task
            raise FileError("ENOENT") from None

    def _open(self, process: int, path: bytes, flags: int, mode: int) -> tuple[Task, Description]:
        task = self._viewer(process)
        try:
            description = self.kernel.vfs.open(task, path, flags, mode)
        except LinuxError as error:
            raise FileError(error.errno.name) from None
        description.retain()
        return task, description

    def file_open(self, process: int, path: bytes, flags: OpenFlags, mode: int) -> int:
        """open(2)."""
        writing = O.RDWR if flags & OpenFlags.READ else O.WRONLY
        bits = int(writing if flags & OpenFlags.WRITE else O.RDONLY)
        for flag, bit in _BITS:
            if flags & flag:
                bits |= bit
        opened = self._open(process, path, bits | O.NONBLOCK, mode)
        number = next(n for n in range(len(self.files) + 1) if n not in self.files)
        self.files[number] = opened
        return number

    def _file(self, descriptor: int) -> tuple[Task, Description]:
        try:
            return self.files[descriptor]
        except KeyError:
            raise FileError("EBADF") from None

    def file_close(self, descriptor: int) -> None:
        """close(2)."""
        _, description = self._file(descriptor)
        del self.files[descriptor]
        description.release()

    def close_files(self) -> None:
        """The session ends."""
        for number in list(self.files):
            self.file_close(number)

    def file_read(self, descriptor: int, length: int, offset: int) -> bytes:
        """pread(2)."""
        task, description = self._file(descriptor)
        buffer = bytearray(min(length, _CHUNK_LIMIT))
        try:
            count = description.pread(task, [memoryview(buffer)], offset)
        except LinuxError as error:
            raise FileError(error.errno.name) from None
        return bytes(buffer[:count])

    def file_write(self, descriptor: int, data: bytes, offset: int) -> int:
        """pwrite(2)."""
        task, description = self._file(descriptor)
        try:
            return description.pwrite(task, [data], offset)
        except LinuxError as error:
            raise FileError(error.errno.name) from None

    def file_status(self, descriptor: int) -> FileStatus:
        """fstat(2)."""
        _, description = self._file(descriptor)
        try:
            return _status(description.stat())
        except LinuxError as error:
            raise FileError(error.errno.name) from None

    def path_status(self, process: int, path: bytes, *, follow: bool) -> FileStatus:
        """stat(2), lstat(2)."""
        task = self._viewer(process)
        try:
            return _status(self.kernel.vfs.stat(task, path, follow=follow))
        except LinuxError as error:
            raise FileError(error.errno.name) from None

    def file_unlink(self, process: int, path: bytes) -> None:
        """unlink(2)."""
        task = self._viewer(process)
        try:
            place = self.kernel.vfs.name(task, path)
            self.kernel.host.unlink(place.name, place.dir_fd)
        except LinuxError as error:
            raise FileError(error.errno.name) from None

    def file_readlink(self, process: int, path: bytes) -> bytes:
        """readlink(2)."""
        task = self._viewer(process)
        try:
            return self.kernel.vfs.readlink(task, path)
        except LinuxError as error:
            raise FileError(error.errno.name) from None


def _status(stat: Stat) -> FileStatus:
    return FileStatus(
        device=stat.st_dev,
        inode=stat.st_ino,
        mode=stat.st_mode,
        links=stat.st_nlink,
        user=stat.st_uid,
        group=stat.st_gid,
        raw_device=stat.st_rdev,
        size=stat.st_size,
        block_size=stat.st_blksize,
        blocks=stat.st_blocks,
        access_time=stat.st_atime_ns // 1_000_000_000,
        modification_time=stat.st_mtime_ns // 1_000_000_000,
        change_time=stat.st_ctime_ns // 1_000_000_000,
    )
