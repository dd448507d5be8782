"""epoll: one set over host-backed and in-emulator descriptions.

Rule: what a host descriptor tells is registered in a host epoll set, which knows level, edge, oneshot and exclusive by
itself, so a wait over N sockets is one host call.  What lives in the emulator tells through its `WaitQueue`, and is
kept in a ready list as fs/eventpoll.c does.  A nested epoll set is both.  Source: epoll(7), epoll_ctl(2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.polling import (
    ALWAYS,
    EP_MAX_NESTS,
    EPOLL_FLAGS,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLEXCLUSIVE_OK,
    EPOLLONESHOT,
    EPOLLWAKEUP,
    Poll,
)
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description
from emulator.kernel.host_sockets import HostEpoll, HostSockets
from emulator.kernel.waits import HostPoll

if TYPE_CHECKING:
    from emulator.kernel.host import Host


class Interest:
    """One registration: an epitem."""

    __slots__ = ("alias", "data", "description", "events", "fd", "host_fd", "notify", "queued", "release")

    def __init__(self, fd: int, description: Description, events: int, data: int) -> None:
        self.fd = fd
        self.description = description
        self.events = events
        self.data = data
        self.host_fd: int | None = None  # registered in the host set
        self.alias = False  # host_fd is a duplicate of ours
        self.queued = False  # in the ready list
        self.notify: Callable[[], bool] | None = None
        self.release: Callable[[], None] | None = None

    @property
    def key(self) -> tuple[int, int]:
        """A registration is of a descriptor *and* a description (epoll(7), Q1)."""
        return self.fd, id(self.description)

    @property
    def mask(self) -> int:
        """What is reported; nothing once a oneshot has fired."""
        wanted = self.events & ~EPOLL_FLAGS
        return wanted | ALWAYS if wanted & ~ALWAYS or not self.events & EPOLLONESHOT else 0


class EpollDescription(Description):
    """An epoll set."""

    __slots__ = ("_by_host_fd", "_host_first", "_host_set", "_interests", "_ready", "_sockets")

    kind = "anon_inode"

    def __init__(self, host: Host, sockets: HostSockets) -> None:
        super().__init__(host, O.RDWR)
        self._sockets = sockets
        self._interests: dict[tuple[int, int], Interest] = {}
        self._by_host_fd: dict[int, Interest] = {}
        self._ready: dict[Interest, None] = {}
        self._host_set: HostEpoll | None = None
        self._host_first = False

    def readlink_text(self) -> bytes:
        """As Linux names it."""
        return b"anon_inode:[eventpoll]"

    def seek(self, offset: int, whence: int) -> int:
        """noop_llseek(): the position never moves."""
        return 0

    def close(self) -> None:
        """Drop every registration."""
        for interest in list(self._interests.values()):
            self._forget(interest)
        if self._host_set is not None:
            self._host_set.close()
            self._host_set = None

    def fdinfo(self) -> str:
        """tfd lines."""
        return "".join(
            f"tfd: {interest.fd:8d} events: {interest.events:8x} data: {interest.data:16x}\n"
            for interest in self._interests.values()
        )

    # -- epoll_ctl -----------------------------------------------------------------------------------------------

    def add(self, fd: int, description: Description, events: int, data: int) -> None:
        """EPOLL_CTL_ADD: EEXIST, ELOOP, EINVAL; whatever the host says of its own descriptor."""
        nested = isinstance(description, EpollDescription)
        if events & EPOLLEXCLUSIVE and (nested or events & ~EPOLLEXCLUSIVE_OK):
            raise LinuxError(E.EINVAL)
        if isinstance(description, EpollDescription):
            self._check_loop(description)
        interest = Interest(fd, description, events, data)
        if interest.key in self._interests:
            raise LinuxError(E.EEXIST)
        host = description.host_poll()
        if host is not None:
            self._add_host(interest, host.fd)
        self._interests[interest.key] = interest

        def release() -> None:
            self._drop(interest)

        interest.release = release
        description.on_release.append(release)
        if host is None or nested:

            def notify() -> bool:
                return self._enqueue(interest)

            interest.notify = notify
            if events & EPOLLEXCLUSIVE:
                description.waiters.subscribe_exclusive(notify)
            else:
                description.waiters.subscribe(notify)
            self._check_now(interest)
        else:
            self.waiters.wake()

    def modify(self, fd: int, description: Description, events: int, data: int) -> None:
        """EPOLL_CTL_MOD: ENOENT; an exclusive registration can't be changed."""
        interest = self._find(fd, description)
        if interest.events & EPOLLEXCLUSIVE:
            raise LinuxError(E.EINVAL)
        interest.events = events
        interest.data = data
        if interest.host_fd is not None and self._host_set is not None:
            self._host_set.modify(interest.host_fd, events & ~EPOLLWAKEUP)
        if interest.notify is not None:
            self._check_now(interest)
        else:
            self.waiters.wake()

    def remove(self, fd: int, description: Description) -> None:
        """EPOLL_CTL_DEL: ENOENT."""
        self._forget(self._find(fd, description))

    def _forget(self, interest: Interest) -> None:
        """Drop a registration whose description lives on."""
        callbacks = interest.description.on_release
        if interest.release is not None and interest.release in callbacks:
            callbacks.remove(interest.release)
        self._drop(interest)

    def _find(self, fd: int, description: Description) -> Interest:
        interest = self._interests.get((fd, id(description)))
        if interest is None:
            raise LinuxError(E.ENOENT)
        return interest

    def _add_host(self, interest: Interest, fd: int) -> None:
        if self._host_set is None:
            self._host_set = self._sockets.epoll()
        if fd in self._by_host_fd:  # the same description under a second descriptor
            fd = self._sockets.dup(fd)
            interest.alias = True
        try:
            self._host_set.add(fd, interest.events & ~EPOLLWAKEUP)
        except LinuxError:
            if interest.alias:
                self._sockets.close(fd)
            raise
        interest.host_fd = fd
        self._by_host_fd[fd] = interest

    def _drop(self, interest: Interest) -> None:
        self._interests.pop(interest.key, None)
        self._ready.pop(interest, None)
        if interest.notify is not None:
            waiters = interest.description.waiters
            if interest.events & EPOLLEXCLUSIVE:
                waiters.unsubscribe_exclusive(interest.notify)
            else:
                waiters.unsubscribe(interest.notify)
        interest.release = interest.notify = None  # they refer back to the interest: no work for the cycle collector
        if interest.host_fd is not None:
            self._by_host_fd.pop(interest.host_fd, None)
            if self._host_set is not None:
                self._host_set.remove(interest.host_fd)
            if interest.alias:
                self._sockets.close(interest.host_fd)
            interest.host_fd = None

    def _check_loop(self, inner: EpollDescription) -> None:
        """ELOOP for a cycle or more than five levels (EP_MAX_NESTS)."""
        if inner.reaches(self) or inner.depth() > EP_MAX_NESTS:
            raise LinuxError(E.ELOOP)

    def watched(self, fd: int) -> list[Description]:
        """What is registered under a descriptor number, in order."""
        return [interest.description for interest in self._interests.values() if interest.fd == fd]

    def nested(self) -> list[EpollDescription]:
        """The epoll sets registered in this one."""
        found = (interest.description for interest in self._interests.values())
        return [description for description in found if isinstance(description, EpollDescription)]

    def reaches(self, other: EpollDescription) -> bool:
        """Is `other` this set or somewhere inside?"""
        return other is self or any(inner.reaches(other) for inner in self.nested())

    def depth(self) -> int:
        """Levels, this one included."""
        return 1 + max((inner.depth() for inner in self.nested()), default=0)

    # -- readiness -----------------------------------------------------------------------------------------------

    def _check_now(self, interest: Interest) -> None:
        mask = interest.mask
        if mask and interest.description.poll(mask) & mask:
            self._enqueue(interest)

    def _enqueue(self, interest: Interest) -> bool:
        """The description says that something has changed; whether that woke somebody."""
        if interest.mask and interest not in self._ready:
            self._ready[interest] = None
        return bool(self._ready and self.waiters.wake())

    def poll(self, events: int) -> int:
        """Readable while an epoll_wait would return something."""
        if not events & (Poll.IN | Poll.RDNORM):
            return 0
        ready = events & (Poll.IN | Poll.RDNORM)
        for interest in list(self._ready):
            mask = interest.mask
            if mask and interest.description.poll(mask) & mask:
                return ready
            del self._ready[interest]
        if self._by_host_fd and self._host_set is not None and self._sockets.poll(self._host_set.fd, Poll.IN):
            return ready
        return 0

    def host_poll(self) -> HostPoll | None:
        """The host set, made now if need be: something may be registered while somebody waits."""
        if self._host_set is None:
            self._host_set = self._sockets.epoll()
        return HostPoll(self._host_set.fd, Poll.IN)

    def wait_polls(self) -> tuple[HostPoll, ...]:
        """What a waiter has to watch on the host."""
        return () if self._host_set is None or not self._by_host_fd else (HostPoll(self._host_set.fd, Poll.IN),)

    def collect(self, limit: int) -> list[tuple[int, int]]:
        """Up to `limit` (events, data), consuming edges and oneshots; neither kind of source starves the other."""
        if not self._ready:
            return self._collect_host(limit, set()) if self._by_host_fd else []
        seen: set[Interest] = set()
        if not self._by_host_fd:
            return self._collect_ready(limit, seen)
        self._host_first = not self._host_first
        first, second = self._collect_ready, self._collect_host
        if self._host_first:
            first, second = second, first
        found = first(limit, seen)
        if len(found) < limit:
            found += second(limit - len(found), seen)
        return found

    def _collect_host(self, limit: int, seen: set[Interest]) -> list[tuple[int, int]]:
        host_set = self._host_set
        if host_set is None:
            return []
        by_host_fd = self._by_host_fd
        found = []
        for fd, events in host_set.wait(limit):
            interest = by_host_fd.get(fd)
            if interest is None:
                continue
            if interest.notify is not None:  # a nested set: the ready list may have it too
                if interest in seen or not interest.description.poll(events):
                    continue
                seen.add(interest)
            found.append((events, interest.data))
            if interest.events & EPOLLONESHOT:
                interest.events &= EPOLL_FLAGS
        return found

    def _collect_ready(self, limit: int, seen: set[Interest]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for interest in list(self._ready):
            if len(found) >= limit:
                break
            if interest in seen:
                continue
            del self._ready[interest]
            mask = interest.mask
            events = interest.description.poll(mask) & mask if mask else 0
            if not events:
                continue
            seen.add(interest)
            found.append((events, interest.data))
            if interest.events & EPOLLONESHOT:
                interest.events &= EPOLL_FLAGS
                if interest.host_fd is not None and self._host_set is not None:
                    self._host_set.modify(interest.host_fd, EPOLLONESHOT)
            elif not interest.events & EPOLLET:
                self._ready[interest] = None  # level: at the end of the list, so the others get their turn
        return found
