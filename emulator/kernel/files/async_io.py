"""Signals instead of waiting: SIGIO for O_ASYNC descriptions, SIGURG for urgent data on a socket with an owner.

Rule: readiness is watched, edge by edge, only while somebody asked for signals.  Source: fcntl(2), "Managing signals",
socket(7), tcp(7); fs/fcntl.c (send_sigio_to_task, send_sigurg).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.fcntl import O
from emulator.abi.polling import EPOLLET, Poll
from emulator.abi.signals import SI_KERNEL, Siginfo, Signal
from emulator.kernel import signals
from emulator.kernel.files.description import Description
from emulator.kernel.files.socket import SocketDescription

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task

_ALL = Poll.IN | Poll.OUT | Poll.PRI | Poll.RDHUP
_ANEW = Poll.IN | Poll.PRI  # more of the same is news; the others only when they come up
# POLL_IN, POLL_OUT, POLL_ERR, POLL_PRI, POLL_HUP: (what is there, si_code, si_band)
_REASONS = (
    (Poll.IN, 1, Poll.IN | Poll.RDNORM),
    (Poll.OUT, 2, Poll.OUT | Poll.WRNORM | Poll.WRBAND),
    (Poll.ERR, 4, Poll.ERR),
    (Poll.PRI, 5, Poll.PRI | Poll.RDBAND),
    (Poll.HUP, 6, Poll.HUP | Poll.ERR),
)


POLL_MSG, _MESSAGE = 3, Poll.IN | Poll.RDNORM | 0x400


class AsyncNotifier:
    """Watches one description and signals its owner."""

    def __init__(self, kernel: Kernel, description: Description, fd: int) -> None:
        self._kernel = kernel
        self._description = description
        self._fd = fd
        self._before = description.poll(_ALL)
        self._watched: int | None = None
        host = description.host_poll()
        if host is not None:
            self._watched = kernel.host.dup(host.fd)
            kernel.scheduler.host_waits.watch(self._watched, _ALL | EPOLLET, self._host_event)
        else:
            description.waiters.subscribe(self._changed)

    def cancel(self) -> None:
        """Stop watching."""
        if self._watched is not None:
            self._kernel.scheduler.host_waits.unwatch(self._watched)
            self._kernel.host.close(self._watched)
            self._watched = None
        else:
            self._description.waiters.unsubscribe(self._changed)

    def _changed(self) -> None:
        self._notify(self._description.poll(_ALL))

    def _host_event(self, events: int) -> None:
        if events & Poll.PRI and isinstance(self._description, SocketDescription):
            self._send(Siginfo(Signal.SIGURG, SI_KERNEL))
        self._notify(events)

    def _notify(self, events: int) -> None:
        description = self._description
        if not description.flags & O.ASYNC:
            return
        signo = description.async_signal
        before, self._before = self._before & ~_ANEW, events
        events &= ~before
        for bits, code, band in _REASONS:
            if events & bits:
                if not signo:
                    self._send(Siginfo(Signal.SIGIO, SI_KERNEL))
                    return
                self._send(Siginfo(signo, code, band=band, fd=self._fd))

    def _send(self, info: Siginfo) -> None:
        _send_to_owner(self._kernel, self._description, info)


def _send_to_owner(kernel: Kernel, description: Description, info: Siginfo) -> None:
    owner = description.async_owner
    if owner < 0:
        kernel.send_to_pgrp(-owner, info)
    elif owner in kernel.groups:
        signals.send_to_group(kernel.groups[owner], info)
    else:
        task = kernel.tasks.find(owner)
        if task is not None:
            signals.send_to_task(task, info)


def tell_owner(kernel: Kernel, description: Description, fd: int) -> None:
    """POLL_MSG: a lease is being broken, a watched directory has changed."""
    signo = description.async_signal
    info = Siginfo(signo, POLL_MSG, band=_MESSAGE, fd=fd) if signo else Siginfo(Signal.SIGIO, SI_KERNEL)
    _send_to_owner(kernel, description, info)


def update_async(t: Task, description: Description, fd: int) -> None:
    """After F_SETOWN, F_SETFL, FIOASYNC: begin or stop to watch."""
    notifiers: dict[Description, AsyncNotifier] = t.kernel.extensions.setdefault("async_io", {})
    urgent = isinstance(description, SocketDescription)
    wanted = description.async_owner != 0 and (urgent or bool(description.flags & O.ASYNC))
    if wanted == (description in notifiers):
        return
    if wanted:
        notifiers[description] = AsyncNotifier(t.kernel, description, fd)
        description.on_release.append(lambda: _drop(notifiers, description))
    else:
        _drop(notifiers, description)


def _drop(notifiers: dict[Description, AsyncNotifier], description: Description) -> None:
    notifier = notifiers.pop(description, None)
    if notifier is not None:
        notifier.cancel()
