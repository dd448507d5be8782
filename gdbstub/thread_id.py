"""Thread-ids: who a packet is about (manual: "Packets", thread-id syntax).

Rule: a thread-id on the wire is a pattern; `ThreadId` with positive numbers is a thread, with ALL or ANY a pattern.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gdbstub.encoding import hex_number

ALL = -1
ANY = 0


class ThreadId(NamedTuple):
    """`pid` and `tid`; -1 (ALL) and 0 (ANY) make it a pattern."""

    pid: int
    tid: int

    @property
    def is_thread(self) -> bool:
        """Whether exactly one thread is named."""
        return self.pid > 0 and self.tid > 0

    def matches(self, thread: ThreadId) -> bool:
        """Whether the pattern covers `thread`; ANY covers as ALL does (the caller takes the first)."""
        return (self.pid <= 0 or self.pid == thread.pid) and (self.tid <= 0 or self.tid == thread.tid)

    def __str__(self) -> str:
        return f"p{_text(self.pid)}.{_text(self.tid)}"


EVERY = ThreadId(ALL, ALL)
SOME = ThreadId(ANY, ANY)


def _text(number: int) -> str:
    return "-1" if number < 0 else f"{number:x}"


def _number(text: bytes) -> int:
    if text == b"-1":
        return ALL
    return hex_number(text)


@lru_cache(1024)
def parse_thread_id(text: bytes, process: int = ANY) -> ThreadId:
    """Read `pPID.TID`, `pPID` (all its threads) or `TID` (of `process`; a lone -1 is every thread).

    >>> parse_thread_id(b"p2a.-1")
    ThreadId(pid=42, tid=-1)
    """
    if text[:1] != b"p":
        tid = _number(text)
        return EVERY if tid == ALL else ThreadId(process, tid)
    pid, dot, tid_text = text[1:].partition(b".")
    return ThreadId(_number(pid), _number(tid_text) if dot else ALL)


def format_thread_id(thread: ThreadId, multiprocess: bool) -> str:
    """Write a thread-id in the form the client negotiated."""
    return f"p{_text(thread.pid)}.{_text(thread.tid)}" if multiprocess else _text(thread.tid)
