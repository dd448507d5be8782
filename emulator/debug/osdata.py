"""The tables of `info os` (qXfer:osdata:read): processes, threads, files and so on of the guest, never of the host.

Source: gdb's nat/linux-osdata.c, for names, descriptions and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from emulator.debug.core import EINVAL, Core
from emulator.kernel.tasks import Task
from gdbstub.abilities import OsTable
from gdbstub.errors import TargetError

_DESCRIPTIONS = {
    "processes": "Listing of all processes",
    "procgroups": "Listing of all process groups",
    "threads": "Listing of all threads",
    "files": "Listing of all file descriptors",
    "sockets": "Listing of all internet-domain sockets",
    "shm": "Listing of all shared-memory regions",
    "semaphores": "Listing of all semaphores",
    "msg": "Listing of all message queues",
    "cpus": "Listing of all cpus/cores on the system",
}
Row = Mapping[str, str]


class OsDataAbility(Core):
    """OsData."""

    def os_tables(self) -> Mapping[str, str]:
        """What there is."""
        return _DESCRIPTIONS

    def os_table(self, name: str) -> OsTable:
        """One table."""
        makers: dict[str, Callable[[], Iterator[Row]]] = {
            "processes": self._processes,
            "procgroups": self._process_groups,
            "threads": self._threads,
            "files": self._files,
            "cpus": self._cpus,
        }
        maker = makers.get(name)
        if maker is not None:
            return OsTable(tuple(maker()))
        from emulator.debug.osdata_ipc import TABLES  # seldom asked for, and sockets take long to import

        if name in TABLES:
            return OsTable(tuple(TABLES[name](self.kernel)))
        raise TargetError(EINVAL, f"there is no table {name}")

    def _everybody(self) -> Iterator[Task]:
        return (task for task in self.kernel.tasks if task.alive)

    def _processes(self) -> Iterator[Row]:
        for task in self._everybody():
            if task.is_leader:
                yield {
                    "pid": str(task.pid),
                    "user": user(task.credentials.euid),
                    "command": command_line(task),
                    "cores": "0",
                }

    def _process_groups(self) -> Iterator[Row]:
        leaders = [task for task in self._everybody() if task.is_leader]
        for task in sorted(leaders, key=lambda task: (task.group.pgid, task.pid)):
            first = self.kernel.tasks.find(task.group.pgid)
            yield {
                "pgid": str(task.group.pgid),
                "leader command": first.name if first is not None else "",
                "pid": str(task.pid),
                "command line": command_line(task),
            }

    def _threads(self) -> Iterator[Row]:
        for task in self._everybody():
            yield {"pid": str(task.pid), "command": task.name, "tid": str(task.tid), "core": "0"}

    def _files(self) -> Iterator[Row]:
        for task in self._everybody():
            if not task.is_leader:
                continue
            for fd, description in task.fds:
                yield {
                    "pid": str(task.pid),
                    "command": task.name,
                    "file descriptor": str(fd),
                    "name": description.readlink_text().decode("utf-8", "replace"),
                }

    def _cpus(self) -> Iterator[Row]:
        yield {"processor": "0", "vendor_id": "emugdb", "model name": self.kernel.arch.name}


def user(uid: int) -> str:
    """Who a number is; the guest's /etc/passwd is not asked."""
    return "root" if uid == 0 else str(uid)


def command_line(task: Task) -> str:
    """argv joined by blanks, or the name in brackets."""
    words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in task.group.argv]
    return " ".join(words) or f"[{task.name}]"
