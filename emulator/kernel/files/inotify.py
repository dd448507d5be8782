"""inotify: the host's own, because the files are the host's.  Source: inotify(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.polling import ALWAYS, Poll
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, ReadBuffers
from emulator.kernel.waits import HostPoll

if TYPE_CHECKING:
    from emulator.kernel.host import Host
    from emulator.kernel.host_sockets import HostSockets
    from emulator.kernel.tasks import Task


class InotifyDescription(Description):
    """An inotify instance; watch descriptors are the host's numbers."""

    __slots__ = ("fd", "sockets")

    def __init__(self, host: Host, sockets: HostSockets, flags: int) -> None:
        super().__init__(host, O.RDONLY | flags & O.NONBLOCK)
        self.sockets = sockets
        self.fd = sockets.inotify()

    def seek(self, offset: int, whence: int) -> int:
        """noop_llseek(): the position never moves."""
        return 0

    def readlink_text(self) -> bytes:
        """As Linux names it."""
        return b"anon_inode:inotify"

    def close(self) -> None:
        """All watches go."""
        self.sockets.close(self.fd)

    def fdinfo(self) -> str:
        """The watches, as the host tells them."""
        text = self.host.read_file(f"/proc/self/fdinfo/{self.fd}").decode()
        return "".join(line for line in text.splitlines(keepends=True) if line.startswith("inotify "))

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """Whole events, as the host lays them; struct inotify_event is the same on every little-endian ISA."""
        try:
            return self.host.readv(self.fd, buffers)
        except LinuxError as error:
            if error.errno is E.EAGAIN and not self.nonblocking:
                raise self.block("inotify_read", Poll.IN) from None
            raise

    def poll(self, events: int) -> int:
        """By the host."""
        return self.sockets.poll(self.fd, events)

    def host_poll(self) -> HostPoll | None:
        """The host's instance tells."""
        return HostPoll(self.fd, Poll.IN | ALWAYS)

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        """FIONREAD."""
        if request != 0x541B:
            raise LinuxError(E.ENOTTY)
        t.memory.write(argument, self.sockets.ioctl(self.fd, request, b"\0" * 4))
        return 0
