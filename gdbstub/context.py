"""What a packet handler sees of its connection: the target, what was negotiated, which thread is selected.

Rule: everything here is per connection and starts at the protocol's defaults; nothing is carried to the next client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

from gdbstub.abilities import LaunchSettings
from gdbstub.encoding import to_hex
from gdbstub.errors import NoSuchThread, TargetError
from gdbstub.registry import OK, Reply, Verdict
from gdbstub.stop import (
    Forked,
    NoResumed,
    ProcessExited,
    ProcessSignalled,
    StopEvent,
    StopFormat,
    Stopped,
    ThreadExitedEvent,
    format_stop,
)
from gdbstub.target import ResumeAction, Target
from gdbstub.thread_id import ANY, EVERY, SOME, ThreadId, format_thread_id, parse_thread_id

PACKET_SIZE = 0x40000  # gdb takes no more than 0x80000


class ErrorText(Enum):
    """How an error may say more than its number."""

    NONE = "Enn"
    GDB = "E.text"  # error-message+
    LLDB = "Enn;hex"  # QEnableErrorStrings


class Context:
    """State of one connection."""

    def __init__(self, target: Target) -> None:
        # Any: rows check the abilities their handlers use
        self.target: Any = target
        self._abilities: dict[type, bool] = {}
        self.packet_size = PACKET_SIZE
        self.form = StopFormat()
        self.client_features: frozenset[str] = frozenset()
        self.advertised: tuple[str, ...] = ()
        self.error_text = ErrorText.NONE
        self.no_ack = False
        self.non_stop = False
        self.extended = False
        self.thread_suffix = False
        self.bare_binary = False  # LLDB's dialect of x
        self.threads_in_stop_reply = False
        self.general = SOME  # Hg
        self.continuing = SOME  # Hc
        self.current = SOME  # the thread of the last stop
        self.last_event: StopEvent | None = None
        self.notifications: deque[StopEvent] = deque()  # non-stop: the first is on its way to the client
        self.thread_list: list[ThreadId] = []  # what qsThreadInfo goes on with
        self.launch_settings = LaunchSettings()
        self.file_process = ANY  # vFile:setfs
        self.saved_registers: dict[int, tuple[ThreadId, Sequence[bytes | None]]] = {}
        self.xfer_key: object = None
        self.console: list[bytes] = []  # text for the user, sent before the reply
        self.xfer_object = b""

    def has(self, ability: type) -> bool:
        """Whether the target has an ability; a structural check is slow, so it is made once."""
        known = self._abilities.get(ability)
        if known is None:
            known = self._abilities[ability] = isinstance(self.target, ability)
        return known

    # ------------------------------------------------------------------------------------------------ threads

    def resolve(self, pattern: ThreadId) -> ThreadId:
        """The one thread a packet means; raises NoSuchThread or ThreadExited."""
        if pattern.pid > 0 and pattern.tid > 0:
            return pattern
        current = self.current
        if current.is_thread and pattern.matches(current) and self.target.is_alive(current):
            return current
        candidates: list[ThreadId] = self.target.threads()
        for candidate in candidates:
            if pattern.matches(candidate) and self.target.is_alive(candidate):
                return candidate
        if pattern in (SOME, EVERY) and self.current.is_thread:
            return self.current  # dead: the target says so in its own words
        raise NoSuchThread(pattern)

    @property
    def thread(self) -> ThreadId:
        """The thread Hg selected, or the one that stopped last."""
        general = self.general
        if general[0] > 0 and general[1] > 0:
            return general
        return self.resolve(general)

    @property
    def process(self) -> int:
        """The process of the selected thread; 0 if there is none."""
        general = self.general
        if general[0] > 0:
            return general[0]
        try:
            return self.resolve(general).pid
        except TargetError:
            return ANY

    def live(self, pattern: ThreadId) -> ThreadId:
        """As `resolve`, and the thread is live."""
        thread = self.resolve(pattern)
        if not self.target.is_alive(thread):
            raise NoSuchThread(thread)
        return thread

    def suffixed(self, rest: bytes) -> tuple[ThreadId, bytes]:
        """Split LLDB's `;thread:ID;` from a register packet."""
        text, found, suffix = rest.partition(b";thread:")
        if not found:
            return self.thread, rest.rstrip(b";")
        return self.resolve(parse_thread_id(suffix.rstrip(b";"))), text

    def format_thread(self, thread: ThreadId) -> bytes:
        """A thread-id in the negotiated form."""
        return format_thread_id(thread, self.form.multiprocess).encode()

    def introduced(self) -> Sequence[ThreadId]:
        """Live threads, for a reply that names them."""
        threads: Sequence[ThreadId] = self.target.threads()
        self.target.introduce(threads)
        return threads

    def processes(self) -> list[int]:
        """Every live process, in the order of its first thread."""
        return list(dict.fromkeys(thread.pid for thread in self.target.threads()))

    # -------------------------------------------------------------------------------------------------- stops

    def resume(self, actions: Sequence[ResumeAction]) -> Reply:
        """Let go; in all-stop the reply is the stop."""
        self.target.resume(actions)
        return OK if self.non_stop else Verdict.RESUMED

    def stop_reply(self, event: StopEvent) -> bytes:
        """Spell a stop and, in all-stop, select its thread."""
        self.last_event = event
        if isinstance(event, Stopped):
            thread = event.thread
            self.target.introduce([thread])
            if isinstance(event.reason, Forked):
                self.target.introduce([event.reason.child])
            if not self.non_stop:
                self.current = self.general = thread
                self.continuing = SOME
            return self.spell(event)
        if isinstance(event, NoResumed) and not self.non_stop and "no-resumed" not in self.client_features:
            live = self.introduced()
            if live:
                return self.stop_reply(Stopped(live[0]))
        if isinstance(event, (ProcessExited, ProcessSignalled)) and self.general.pid == event.pid:
            self.general = self.current = SOME
        return format_stop(event, self.form)

    def spell(self, event: Stopped) -> bytes:
        """The stop reply of a thread, with expedited registers; selects nothing."""
        return format_stop(event, self.form, self.expedited(event.thread) + self._thread_list_text())

    def expedited(self, thread: ThreadId) -> bytes:
        """`regnum:value;` of the registers every client asks for next."""
        try:
            regnums: Sequence[int] = self.target.description(thread.pid).expedited
            values: Sequence[bytes | None] = self.target.read_some_registers(thread, regnums)
        except TargetError:
            return b""
        pairs = zip(regnums, values, strict=True)
        return b"".join([b"%02x:%b;" % (regnum, to_hex(value)) for regnum, value in pairs if value is not None])

    def _thread_list_text(self) -> bytes:
        if not self.threads_in_stop_reply:
            return b""
        threads = self.introduced()
        return b"threads:" + b",".join(self.format_thread(thread) for thread in threads) + b";"

    def note_current(self, event: StopEvent) -> None:
        """Non-stop: remember which thread a client would call current."""
        if isinstance(event, Stopped) and not self.current.is_thread:
            self.current = event.thread
        if isinstance(event, ThreadExitedEvent) and self.current == event.thread:
            self.current = SOME

    # ------------------------------------------------------------------------------------------------- errors

    def error(self, errno: int, text: str) -> bytes:
        """An error reply in the form the client can read."""
        if self.error_text is ErrorText.GDB and text:
            return b"E." + _one_line(text)
        if self.error_text is ErrorText.LLDB and text:
            return b"E%02x;%b" % (errno, to_hex(text.encode(errors="replace")))
        return b"E%02x" % errno


def _one_line(text: str) -> bytes:
    """Printable, and without the characters that mean something to the framing."""
    return "".join(
        char if char.isascii() and char.isprintable() and char not in "$#*}" else "?" for char in text
    ).encode()


def registers_hex(values: Sequence[bytes | None], sizes: Sequence[int]) -> bytes:
    """A register file as `g` spells it; unavailable registers are x's."""
    try:
        return to_hex(b"".join(values))  # type: ignore[arg-type]
    except TypeError:
        return b"".join(
            b"xx" * size if value is None else to_hex(value) for value, size in zip(values, sizes, strict=True)
        )
