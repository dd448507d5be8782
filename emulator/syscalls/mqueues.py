"""POSIX message-queue calls.

Sources: man 2 mq_open ... (the C library's wrappers: man 3), ipc/mqueue.c.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.signals import NSIG, SI_MESGQ, Siginfo
from emulator.abi.sockets import AddressFamily
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.description import Description
from emulator.kernel.files.mqueue import (
    MAX_PRIORITY,
    MessageDescription,
    Queue,
    Registration,
    check_attributes,
    queues_of,
)
from emulator.kernel.files.socket import SocketDescription
from emulator.kernel.host_handles import HostFd
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.openflags import from_guest
from emulator.syscalls.registry import Fd, Int, Ptr, Size, UInt, syscall

SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD = 0, 1, 2
COOKIE_SIZE, NOTIFY_WOKENUP, NOTIFY_REMOVED = 32, 1, 2
SOCK_SEQPACKET = 5
CAP_DAC_OVERRIDE = 1
_ATTR = "llll32x"  # struct mq_attr: flags, maxmsg, msgsize, curmsgs


def _name(t: Task, address: int) -> bytes:
    name = t.memory.read_cstring(address, 4096)
    if not name:
        raise LinuxError(E.ENOENT)
    if b"/" in name or name in (b".", b".."):
        raise LinuxError(E.EACCES)
    if len(name) > 255:
        raise LinuxError(E.ENAMETOOLONG)
    return name


@syscall("mq_open")
def mq_open(t: Task, u_name: Ptr, oflag: Int, mode: UInt, u_attr: Ptr) -> int:
    """mq_open(3)."""
    flags = from_guest(t.arch, oflag & 0xFFFFFFFF)
    attributes = t.memory.read_struct(u_attr, _ATTR) if u_attr else None
    name = _name(t, u_name)
    queues = queues_of(t.kernel)
    queue = queues.get(name)
    if queue is None:
        if not flags & O.CREAT:
            raise LinuxError(E.ENOENT)
        setting = t.kernel.sysctls.number
        if attributes:
            messages, size = attributes[1], attributes[2]
        else:
            messages = min(setting("fs/mqueue/msg_max"), setting("fs/mqueue/msg_default"))
            size = min(setting("fs/mqueue/msgsize_max"), setting("fs/mqueue/msgsize_default"))
        check_attributes(t, messages, size)
        if len(queues) >= setting("fs/mqueue/queues_max") and not t.credentials.capable(24):
            raise LinuxError(E.ENOSPC)
        number = t.kernel.extensions["mqueue_inode"] = t.kernel.extensions.get("mqueue_inode", 30000) + 1
        who = t.credentials
        queue = Queue(name, mode & ~t.fs.umask & 0o777, who.fsuid, who.fsgid, messages, size, number)
        queues[name] = queue
    elif flags & (O.CREAT | O.EXCL) == O.CREAT | O.EXCL:
        raise LinuxError(E.EEXIST)
    else:
        _permit(t, queue, flags)
    kept = flags & (O.ACCMODE | O.NONBLOCK)
    return t.fds.allocate(MessageDescription(t.kernel.host, kept, queue), cloexec=True)


def _permit(t: Task, queue: Queue, flags: int) -> None:
    if flags & O.ACCMODE == O.ACCMODE:
        raise LinuxError(E.EINVAL)
    wanted = {O.RDONLY: 4, O.WRONLY: 2, O.RDWR: 6}[flags & O.ACCMODE]
    who, mode = t.credentials, queue.mode
    if who.fsuid == queue.uid:
        mode >>= 6
    elif queue.gid in (who.fsgid, *who.groups):
        mode >>= 3
    if wanted & ~mode & 7 and not who.capable(CAP_DAC_OVERRIDE):
        raise LinuxError(E.EACCES)


@syscall("mq_unlink")
def mq_unlink(t: Task, u_name: Ptr) -> None:
    """mq_unlink(3)."""
    name = _name(t, u_name)
    queues = queues_of(t.kernel)
    if name not in queues:
        raise LinuxError(E.ENOENT)
    if queues[name].uid != t.credentials.fsuid and not t.credentials.capable(3):
        raise LinuxError(E.EACCES)
    del queues[name]


def _description(t: Task, mqdes: int) -> MessageDescription:
    description = t.fds.get(mqdes)
    if not isinstance(description, MessageDescription):
        raise LinuxError(E.EBADF)
    return description


def _deadline(t: Task, address: int) -> None:
    """An absolute CLOCK_REALTIME moment; EINVAL is checked before anything else."""
    if address:
        moment = t.memory.read_timespec(address)
        if t.call.deadline_ns is None:
            t.call.deadline_ns = t.kernel.clock.realtime_to_monotonic(moment)


def _expired(t: Task) -> bool:
    deadline = t.call.deadline_ns
    return deadline is not None and t.kernel.clock.monotonic_ns() >= deadline


@syscall("mq_timedsend", "mq_timedsend_time64")
def mq_timedsend(t: Task, mqdes: Fd, u_msg: Ptr, msg_len: Size, msg_prio: UInt, u_timeout: Ptr) -> None:
    """mq_timedsend(3)."""
    if msg_prio >= MAX_PRIORITY:
        raise LinuxError(E.EINVAL)
    _deadline(t, u_timeout)
    description = _description(t, mqdes)
    if not description.writable:
        raise LinuxError(E.EBADF)
    queue = description.queue
    if msg_len > queue.max_size:
        raise LinuxError(E.EMSGSIZE)
    text = t.memory.read(u_msg, msg_len)
    if len(queue.messages) >= queue.max_messages:
        if description.nonblocking:
            raise LinuxError(E.EAGAIN)
        if _expired(t):
            raise LinuxError(E.ETIMEDOUT)
        raise Block(Wait("mq_timedsend", (queue.emptied,), (), t.call.deadline_ns))
    queue.put(text, msg_prio)


@syscall("mq_timedreceive", "mq_timedreceive_time64")
def mq_timedreceive(t: Task, mqdes: Fd, u_msg: Ptr, msg_len: Size, u_prio: Ptr, u_timeout: Ptr) -> int:
    """mq_timedreceive(3)."""
    _deadline(t, u_timeout)
    description = _description(t, mqdes)
    if not description.readable:
        raise LinuxError(E.EBADF)
    queue = description.queue
    if msg_len < queue.max_size:
        raise LinuxError(E.EMSGSIZE)
    serial = t.uid.serial
    queue.receivers.discard(serial)
    if not queue.messages:
        if description.nonblocking:
            raise LinuxError(E.EAGAIN)
        if _expired(t):
            raise LinuxError(E.ETIMEDOUT)
        queue.receivers.add(serial)

        def given_up(_: Task) -> int | None:
            queue.receivers.discard(serial)
            return None

        raise Block(Wait("mq_timedreceive", (queue.filled,), (), t.call.deadline_ns, interrupted=given_up))
    text, priority = queue.take()
    t.memory.write(u_msg, text)
    if u_prio:
        t.memory.write_u32(u_prio, priority)
    return len(text)


@syscall("mq_notify")
def mq_notify(t: Task, mqdes: Fd, u_notification: Ptr) -> None:
    """mq_notify(3): by signal, by a message to a socket of the C library's (SIGEV_THREAD), or not at all."""
    value = signo = how = 0
    if u_notification:
        value, signo, how = t.memory.read_struct(u_notification, "Pii")
        if how not in (SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD) or (how == SIGEV_SIGNAL and not 0 <= signo <= NSIG):
            raise LinuxError(E.EINVAL)
    cookie = t.memory.read(value, COOKIE_SIZE) if how == SIGEV_THREAD else b""
    listener = t.fds.get(signo) if how == SIGEV_THREAD else None
    queue = _description(t, mqdes).queue
    if not u_notification:
        queue.withdraw(t.fds)
        return
    if queue.notify is not None:
        raise LinuxError(E.EBUSY)
    match how:
        case 0:
            queue.notify = Registration(t.fds, _signaller(t, signo, value))
        case 2:
            queue.notify = _through_socket(t, listener, cookie)
        case _:
            queue.notify = Registration(t.fds)


def _signaller(t: Task, signo: int, value: int) -> Callable[[], None]:
    group, info = t.group, Siginfo(signo, SI_MESGQ, pid=t.pid, uid=t.credentials.ruid, value=value)

    def tell() -> None:
        if signo and not group.zombie:
            signals.send_to_group(group, info)

    return tell


def _through_socket(t: Task, listener: Description | None, cookie: bytes) -> Registration:
    """The cookie, its last byte the reason, arrives at the socket: its host end becomes one of a pair of ours."""
    if not isinstance(listener, SocketDescription):
        raise LinuxError(E.ENOTSOCK)
    if listener.family != AddressFamily.AF_NETLINK:
        raise LinuxError(E.EINVAL)
    host, sockets = t.kernel.host, listener.network.host
    ours, theirs = sockets.socketpair(AddressFamily.AF_UNIX, SOCK_SEQPACKET, 0)
    holder, other = HostFd(ours), HostFd(theirs)
    host.dup_onto(other.number, listener.fd)

    def send(reason: int) -> None:
        with suppress(LinuxError):
            host.writev(holder.number, [cookie[:-1] + bytes((reason,))])

    return Registration(t.fds, lambda: send(NOTIFY_WOKENUP), lambda: send(NOTIFY_REMOVED))


@syscall("mq_getsetattr")
def mq_getsetattr(t: Task, mqdes: Fd, u_attr: Ptr, u_old: Ptr) -> None:
    """mq_getattr(3), mq_setattr(3): only O_NONBLOCK can change."""
    new = t.memory.read_struct(u_attr, _ATTR) if u_attr else None
    if new is not None and from_guest(t.arch, new[0] & 0xFFFFFFFF) & ~O.NONBLOCK:
        raise LinuxError(E.EINVAL)
    description = _description(t, mqdes)
    queue = description.queue
    old = (description.flags & O.NONBLOCK, queue.max_messages, queue.max_size, len(queue.messages))
    if new is not None:
        description.flags = description.flags & ~O.NONBLOCK | new[0] & O.NONBLOCK
    if u_old:
        t.memory.write_struct(u_old, _ATTR, *old)
