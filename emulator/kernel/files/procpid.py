"""/proc/PID and /proc/PID/task/TID.

Rule: every node names its task by identity and asks the registry each time, so a task that has gone answers ESRCH (or
ENOENT to a walk), never another task's facts.
Source: man 5 proc; fs/proc/base.c, fs/proc/fd.c.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel.credentials import CAP_DAC_OVERRIDE
from emulator.kernel.files import proctext
from emulator.kernel.files.description import (
    Description,
    ReadBuffers,
    VirtualStat,
    WriteBuffers,
    gather,
    scatter,
    total,
)
from emulator.kernel.files.virtual import (
    DT_DIR,
    DT_LNK,
    DT_REG,
    MagicLink,
    Node,
    VirtualDirectory,
    VirtualFile,
    VirtualLink,
)
from emulator.kernel.permissions import may_access
from emulator.kernel.tasks import Live, Task, TaskState

if TYPE_CHECKING:
    from emulator.kernel.fd_table import FdTable
    from emulator.kernel.host_handles import HostDirectory

Maker = Callable[[Task], str | bytes]


def process_named(t: Task, name: bytes) -> Task | None:
    """The leader of the process (or any thread: Linux allows /proc/TID too) with that number."""
    if not name.isdigit() or len(name) > 9 or (name.startswith(b"0") and name != b"0"):
        return None
    return t.kernel.tasks.find(int(name))


def still_there(task: Task) -> Task:
    """The task itself, or ESRCH once it has been reaped."""
    if task.state is TaskState.DEAD or task.kernel.tasks.find(task.tid) is not task:
        raise LinuxError(E.ESRCH)
    return task


def has_memory(task: Task) -> bool:
    """Zombies have none."""
    return isinstance(task.kernel.tasks.look_up(task.uid), Live) and task.space is not None


def table_of(task: Task) -> FdTable:
    """The task's descriptors; ENOENT for a zombie."""
    if not has_memory(still_there(task)) or task.fds is None:
        raise LinuxError(E.ENOENT)
    found: FdTable = task.fds
    return found


def check_access(t: Task, task: Task) -> None:
    """EACCES for who may not look into a process."""
    if not may_access(t, task):
        raise LinuxError(E.EACCES)


def owner_of(task: Task) -> tuple[int, int]:
    """(uid, gid) of its files: root's if it may not be dumped (task_dump_owner)."""
    return (task.credentials.euid, task.credentials.egid) if task.group.dumpable else (0, 0)


class TaskFile(VirtualFile):
    """A text about one task."""

    __slots__ = ("_make", "_store", "task")

    def __init__(
        self,
        name: bytes,
        parent: Node,
        task: Task,
        make: Maker,
        mode: int = 0o444,
        store: Callable[[Task, Task, bytes], None] | None = None,
    ) -> None:
        super().__init__(name, stat.S_IFREG | mode, parent, *owner_of(task))
        self.task = task
        self._make = make
        self._store = store

    def open(self, t: Task, flags: int) -> Description:
        if self.name in proctext.OF_MEMORY:
            check_access(t, self.task)
        return super().open(t, flags)

    def content(self, t: Task) -> bytes:
        made = self._make(still_there(self.task))
        return made if isinstance(made, bytes) else made.encode(errors="surrogateescape")

    def store(self, t: Task, data: bytes) -> None:
        if self._store is None:
            raise LinuxError(E.EINVAL)
        self._store(t, still_there(self.task), data)


class TaskLink(MagicLink):
    """exe, cwd, root."""

    __slots__ = ("task",)

    def __init__(self, name: bytes, parent: Node, task: Task) -> None:
        super().__init__(name, parent, *owner_of(task))
        self.task = task

    def target(self, t: Task) -> bytes:
        landed = self.jump(t)
        if isinstance(landed, Description):
            return landed.readlink_text()
        return t.kernel.vfs.walker.position_path(t, landed)

    def jump(self, t: Task) -> Description | HostDirectory | Node:
        task = still_there(self.task)
        check_access(t, task)
        if not has_memory(task):
            raise LinuxError(E.ENOENT)
        match self.name:
            case b"exe":
                exe = task.space.exe
                if not isinstance(exe, Description):
                    raise LinuxError(E.ENOENT)
                return exe
            case b"cwd":
                return task.fs.cwd
            case _:
                return task.fs.root


class FdLink(MagicLink):
    """/proc/PID/fd/N."""

    __slots__ = ("fd", "task")

    def __init__(self, name: bytes, parent: Node, task: Task, fd: int) -> None:
        super().__init__(name, parent, *owner_of(task))
        self.task = task
        self.fd = fd
        description = table_of(task).get_raw(fd)
        access = description.flags & O.ACCMODE
        bits = 0 if description.path_only else {O.RDONLY: 0o500, O.WRONLY: 0o300}.get(access, 0o700)
        self.mode = stat.S_IFLNK | bits

    def size(self, t: Task) -> int:
        return 64

    def target(self, t: Task) -> bytes:
        return self.jump(t).readlink_text()

    def jump(self, t: Task) -> Description:
        check_access(t, self.task)
        try:
            return table_of(self.task).get_raw(self.fd)
        except LinuxError:
            raise LinuxError(E.ENOENT) from None


class FdDirectory(VirtualDirectory):
    """/proc/PID/fd and fdinfo."""

    __slots__ = ("_info", "task")

    def __init__(self, name: bytes, parent: Node, task: Task) -> None:
        super().__init__(name, stat.S_IFDIR | 0o500, parent, *owner_of(task))
        self.task = task
        self._info = name == b"fdinfo"

    def _check(self, t: Task) -> None:
        """proc_fd_permission(): the owner, whoever may read every directory, and the process itself."""
        who = t.credentials
        if who.fsuid != self.uid and self.task.group is not t.group and not who.capable(CAP_DAC_OVERRIDE):
            raise LinuxError(E.EACCES)

    def open(self, t: Task, flags: int) -> Description:
        self._check(t)
        return super().open(t, flags)

    def lookup(self, t: Task, name: bytes) -> Node | None:
        self._check(t)
        if not name.isdigit() or len(name) > 9 or (len(name) > 1 and name.startswith(b"0")):
            return None
        fd = int(name)
        table = table_of(self.task)
        if fd not in table:
            return None
        if self._info:
            return TaskFile(name, self, self.task, lambda task: proctext.fdinfo(task, fd), 0o400)
        return FdLink(name, self, self.task, fd)

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        kind = DT_REG if self._info else DT_LNK
        return [(b"%d" % fd, kind) for fd, _ in table_of(self.task)]


class ThreadsDirectory(VirtualDirectory):
    """/proc/PID/task."""

    __slots__ = ("task",)

    def __init__(self, parent: Node, task: Task) -> None:
        super().__init__(b"task", stat.S_IFDIR | 0o555, parent, task.credentials.euid, task.credentials.egid)
        self.task = task

    def lookup(self, t: Task, name: bytes) -> Node | None:
        task = process_named(t, name)
        if task is None or task.group is not self.task.group:
            return None
        return ProcessDirectory(name, self, task, thread=True)

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        group = still_there(self.task).group
        return [(b"%d" % task.tid, DT_DIR) for task in t.kernel.tasks if task.group is group]


class MemoryDescription(Description):
    """/proc/PID/mem."""

    __slots__ = ("_offset", "task")

    kind = "mem"
    seekable = True

    def __init__(self, opener: Task, flags: int, task: Task, path: bytes) -> None:
        super().__init__(opener.kernel.host, flags, path)
        self.task = task
        self._offset = 0

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        count = self.pread(t, buffers, self._offset)
        self._offset += count
        return count

    def pread(self, t: Task | None, buffers: ReadBuffers, offset: int, flags: int = 0) -> int:
        if not has_memory(self.task):
            return 0
        data = self.task.space.table.read_partial(offset, total(buffers), force=True)
        if not data and total(buffers):
            raise LinuxError(E.EIO)
        return scatter(buffers, data)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        count = self.pwrite(t, buffers, self._offset)
        self._offset += count
        return count

    def pwrite(self, t: Task | None, buffers: WriteBuffers, offset: int, flags: int = 0) -> int:
        if not has_memory(self.task):
            return 0
        data = gather(buffers)
        try:
            self.task.space.table.write(offset, data, force=True)
        except MemoryFault:
            raise LinuxError(E.EIO) from None
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        if whence not in (0, 1):
            raise LinuxError(E.EINVAL)
        self._offset = (offset if whence == 0 else self._offset + offset) & (1 << 64) - 1
        return self._offset

    def stat(self) -> VirtualStat:
        return VirtualStat(stat.S_IFREG | 0o600, self.task.tid << 16 | 6)


class MemoryNode(Node):
    """/proc/PID/mem, as a name."""

    __slots__ = ("task",)

    def __init__(self, parent: Node, task: Task) -> None:
        super().__init__(b"mem", stat.S_IFREG | 0o600, parent, *owner_of(task))
        self.task = task

    def open(self, t: Task, flags: int) -> Description:
        check_access(t, self.task)
        return MemoryDescription(t, flags, still_there(self.task), self.path())


class NamespaceLink(VirtualLink):
    """/proc/PID/ns/KIND: one of each, the same for all."""

    __slots__ = ("_number",)

    def __init__(self, name: bytes, parent: Node, number: int) -> None:
        super().__init__(name, parent)
        self._number = number

    def target(self, t: Task) -> bytes:
        return b"%s:[%d]" % (self.name.removesuffix(b"_for_children"), self._number)


_NAMESPACES = {
    b"cgroup": 4026531835,
    b"ipc": 4026531839,
    b"mnt": 4026531841,
    b"net": 4026531840,
    b"pid": 4026531836,
    b"pid_for_children": 4026531836,
    b"time": 4026531834,
    b"time_for_children": 4026531834,
    b"user": 4026531837,
    b"uts": 4026531838,
}


class FixedDirectory(VirtualDirectory):
    """A directory with a few known children: attr, ns."""

    __slots__ = ("_children", "_kind")

    def __init__(self, name: bytes, parent: Node, children: dict[bytes, Callable[[Node], Node]], kind: int) -> None:
        super().__init__(name, stat.S_IFDIR | 0o555, parent)
        self._children = children
        self._kind = kind

    def lookup(self, t: Task, name: bytes) -> Node | None:
        make = self._children.get(name)
        return make(self) if make is not None else None

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        return [(name, self._kind) for name in self._children]


def _namespaces(parent: Node) -> Node:
    def maker(name: bytes, number: int) -> Callable[[Node], Node]:
        return lambda directory: NamespaceLink(name, directory, number)

    return FixedDirectory(b"ns", parent, {n: maker(n, number) for n, number in _NAMESPACES.items()}, DT_LNK)


def _attributes(parent: Node, task: Task) -> Node:
    def empty(name: bytes) -> Callable[[Node], Node]:
        return lambda directory: TaskFile(name, directory, task, lambda _: _refused(), 0o666)

    names = (b"current", b"prev", b"exec", b"fscreate", b"keycreate", b"sockcreate")
    return FixedDirectory(b"attr", parent, {name: empty(name) for name in names}, DT_REG)


def _refused() -> str:
    raise LinuxError(E.EINVAL)  # no security module


class ProcessDirectory(VirtualDirectory):
    """/proc/PID, or /proc/PID/task/TID."""

    __slots__ = ("task", "thread")

    def __init__(self, name: bytes, parent: Node, task: Task, thread: bool = False) -> None:
        super().__init__(name, stat.S_IFDIR | 0o555, parent, task.credentials.euid, task.credentials.egid)
        self.task = task
        self.thread = thread

    def lookup(self, t: Task, name: bytes) -> Node | None:
        task = self.task
        if task.state is TaskState.DEAD:
            return None
        match name:
            case b"exe" | b"cwd" | b"root":
                return TaskLink(name, self, task)
            case b"fd" | b"fdinfo":
                return FdDirectory(name, self, task)
            case b"task" if not self.thread:
                return ThreadsDirectory(self, task)
            case b"mem":
                return MemoryNode(self, task)
            case b"ns":
                return _namespaces(self)
            case b"attr":
                return _attributes(self, task)
            case b"net":
                return proctext.net_directory(self)
        made = proctext.FILES.get(name)
        if made is not None:
            return TaskFile(name, self, task, made.make, made.mode, made.store)
        return None

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        still_there(self.task)
        for name in (b"attr", b"fd", b"fdinfo", b"net", b"ns", *(() if self.thread else (b"task",))):
            yield name, DT_DIR
        for name in (b"cwd", b"exe", b"root"):
            yield name, DT_LNK
        yield b"mem", DT_REG
        for name in proctext.FILES:
            yield name, DT_REG
