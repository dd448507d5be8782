"""The tables of `info os` about what processes share: sockets and the objects of System V IPC.

Source: gdb's nat/linux-osdata.c, for names and columns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from emulator.abi.sockets import AddressFamily, SocketType
from emulator.debug.osdata import Row, user
from emulator.errors import LinuxError
from emulator.kernel.files.socket import SocketDescription
from emulator.kernel.ipc import IpcObject, ipc_of

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel

_IPPROTO_TCP, _TCP_INFO = 6, 11
_TCP_STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
    "LISTEN", "CLOSING",
)  # fmt: skip
_FAMILIES = {AddressFamily.AF_INET: "INET", AddressFamily.AF_INET6: "INET6"}
_TYPES = {SocketType.SOCK_STREAM: "STREAM", SocketType.SOCK_DGRAM: "DGRAM"}


def sockets(kernel: Kernel) -> Iterator[Row]:
    """TCP and UDP, each once."""
    seen: set[int] = set()
    for task in kernel.tasks:
        if not task.alive or not task.is_leader:
            continue
        for _, description in task.fds:
            if not isinstance(description, SocketDescription) or id(description) in seen:
                continue
            seen.add(id(description))
            if description.family in _FAMILIES and description.type in _TYPES:
                yield _socket(description, user(task.credentials.euid))


def _socket(description: SocketDescription, owner: str) -> Row:
    host, fd = description.network.host, description.fd
    local, local_port = _split(host.getsockname(fd))
    try:
        remote, remote_port = _split(host.getpeername(fd))
        connected = True
    except LinuxError:
        remote, remote_port = ("::" if ":" in local else "0.0.0.0"), 0
        connected = False
    if description.type == SocketType.SOCK_STREAM:
        state = _TCP_STATES[host.option(fd, _IPPROTO_TCP, _TCP_INFO)[0]]
    else:
        state = "ESTABLISHED" if connected else "CLOSE"
    return {
        "local address": local,
        "local port": str(local_port),
        "remote address": remote,
        "remote port": str(remote_port),
        "state": state,
        "user": owner,
        "family": _FAMILIES[AddressFamily(description.family)],
        "protocol": _TYPES[SocketType(description.type)],
    }


def _split(name: bytes) -> tuple[str, int]:
    """Address and port of a sockaddr_in or sockaddr_in6."""
    packed = name[4:8] if len(name) < 24 else name[8:24]
    return str(ipaddress.ip_address(packed)), int.from_bytes(name[2:4], "big")


def shm(kernel: Kernel) -> Iterator[Row]:
    """Segments."""
    for item in ipc_of(kernel).segments.in_order():
        yield {
            **_head(item, "shmid"),
            "size": str(item.size),
            "creator command": _command(kernel, item.cpid),
            "last op. command": _command(kernel, item.lpid),
            "num attached": str(item.attached),
            **_owners(item),
            "last shmat() time": _time(item.atime),
            "last shmdt() time": _time(item.dtime),
            "last shmctl() time": _time(item.ctime),
        }


def semaphores(kernel: Kernel) -> Iterator[Row]:
    """Semaphore sets."""
    for item in ipc_of(kernel).semaphores.in_order():
        yield {
            **_head(item, "semid"),
            "num semaphores": str(len(item.values)),
            **_owners(item),
            "last semop() time": _time(item.otime),
            "last semctl() time": _time(item.ctime),
        }


def messages(kernel: Kernel) -> Iterator[Row]:
    """Message queues."""
    for item in ipc_of(kernel).queues.in_order():
        yield {
            **_head(item, "msqid"),
            "num used bytes": str(item.size),
            "num messages": str(len(item.messages)),
            "last msgsnd() command": _command(kernel, item.lspid),
            "last msgrcv() command": _command(kernel, item.lrpid),
            **_owners(item),
            "last msgsnd() time": _time(item.stime),
            "last msgrcv() time": _time(item.rtime),
            "last msgctl() time": _time(item.ctime),
        }


def _head(item: IpcObject, ident: str) -> Row:
    return {"key": str(item.key - (item.key >> 31 << 32)), ident: str(item.ident), "perm": f"{item.mode:o}"}


def _owners(item: IpcObject) -> Row:
    return {
        "user": user(item.uid),
        "group": user(item.gid),
        "creator user": user(item.cuid),
        "creator group": user(item.cgid),
    }


def _command(kernel: Kernel, pid: int) -> str:
    task = kernel.tasks.find(pid)
    return task.name if task is not None else ""


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%a %b %e %H:%M:%S %Y") if seconds else ""


TABLES: Mapping[str, Callable[[Kernel], Iterator[Row]]] = {
    "sockets": sockets,
    "shm": shm,
    "semaphores": semaphores,
    "msg": messages,
}
