"""What can go wrong, one class a kind of wrong.

Rule: a handler raises where the fault is known; `session` alone turns it into a reply.
"""

# ruff: noqa: N818 - named for what is wrong

from __future__ import annotations


class ProtocolError(Exception):
    """The client's bytes make no sense at this place; the packet gets an error reply, the session goes on."""

    errno = 0x01


class Malformed(ProtocolError):
    """A packet whose arguments cannot be read."""

    errno = 0x16  # EINVAL


class Unsupported(Exception):
    """The empty reply: this server does not know the packet."""


class TargetError(Exception):
    """The target refuses: `errno` (1..255) goes on the wire, `message` too where the client can take one."""

    def __init__(self, errno: int = 0x01, message: str = "") -> None:
        super().__init__(message or f"target error {errno}")
        self.errno = errno & 0xFF or 0x01
        self.message = message


class NoSuchThread(TargetError):
    """A thread-id that names no thread the target knows (ESRCH)."""

    def __init__(self, thread: object) -> None:
        super().__init__(0x03, f"no thread {thread}")


class ThreadExited(TargetError):
    """A thread-id of a thread that has exited (ESRCH); its registers and name are gone, the session is not."""

    def __init__(self, thread: object, status: int = 0) -> None:
        super().__init__(0x03, f"thread {thread} has exited")
        self.status = status


class MemoryUnreadable(TargetError):
    """No byte at the address can be read or written (EFAULT)."""

    def __init__(self, address: int) -> None:
        super().__init__(0x0E, f"cannot access memory at address {address:#x}")


class FileError(Exception):
    """A host I/O (vFile) operation failed; `name` is the errno's name, "ENOENT"."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
