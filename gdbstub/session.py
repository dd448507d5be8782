"""One connection, sans-IO: bytes in, bytes out, and slices of the target's time in between.

Rule: whatever comes in, the session survives and every packet gets its one reply.  What is done with an input depends
on the state; `ACTIONS` is the whole story.

    ALL_STOP  the target stands still, packets are answered
    RUNNING   all-stop, resumed: packets wait for the stop, the interrupt character does not
    NON_STOP  packets are answered whether threads run or not; stops are notifications
    ENDED     the connection is to be closed
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from time import monotonic

from gdbstub import packets as _packets  # noqa: F401 - imported for what it registers
from gdbstub.context import Context
from gdbstub.encoding import frame, frame_notification
from gdbstub.errors import ProtocolError, TargetError, Unsupported
from gdbstub.framing import Framing, Item, Mark
from gdbstub.registry import REGISTRY, Farewell, Reply, Verdict
from gdbstub.stop import StopEvent
from gdbstub.target import RUNNING, Stop, Target, Waiting

logger = logging.getLogger("gdbstub")
logger.addHandler(logging.NullHandler())

PacketLog = Callable[[str, bytes], None]
_NO_WAIT = Waiting()
_ERROR = 0x01
_WIRE_LIMIT = 1 << 20  # of a payload; escapes may double what PacketSize promised
_QUEUE_LIMIT = 1 << 12  # packets that may wait for a stop
SYNCHRONOUS_S = 0.003  # how long `receive` runs the target before it hands back


class State(Enum):
    """See the module."""

    ALL_STOP = "all-stop"
    RUNNING = "running"
    NON_STOP = "non-stop"
    ENDED = "ended"


class Input(Enum):
    """Kinds of input."""

    PACKET = "packet"
    KILL = "k"
    INTERRUPT = "interrupt"
    CORRUPT = "corrupt"
    OVERSIZE = "oversize"
    NACK = "nack"
    ACK = "ack"


_KINDS = {
    Mark.INTERRUPT: Input.INTERRUPT,
    Mark.CORRUPT: Input.CORRUPT,
    Mark.OVERSIZE: Input.OVERSIZE,
    Mark.NACK: Input.NACK,
    Mark.ACK: Input.ACK,
}


def _kind(item: Item) -> Input:
    if isinstance(item, Mark):
        return _KINDS[item]
    return Input.KILL if item == b"k" else Input.PACKET


def _without_repeats(items: list[Item]) -> list[Item]:
    """gdb sends its first packet again if the server takes more than two seconds to start; one reply is due."""
    if len(items) < 2:
        return items
    return [
        item
        for place, item in enumerate(items)
        if not (place and item == items[place - 1] and isinstance(item, bytes) and item.startswith(b"qSupported"))
    ]


class Session:
    """A client's conversation with a target."""

    def __init__(self, target: Target, log: PacketLog | None = None) -> None:
        self._target = target
        self._context = Context(target)
        self._dispatch = REGISTRY.dispatch(target)
        self._context.advertised = self._dispatch.features
        self._framing = Framing(_WIRE_LIMIT)
        self._log = log
        self._state = State.ALL_STOP
        self._waiting_packets: deque[bytes] = deque()
        self._out: list[bytes] = []
        self._last_frame = b""
        self.waiting = _NO_WAIT  # what the target waits for, while `runnable` is false and `busy` is true
        self.runnable = False  # `run` has something to do at once
        target.attached()
        if target.is_running():  # left running by the last client
            target.interrupt()
            self._run_to_stop()

    # ----------------------------------------------------------------------------------------------- for the shell

    @property
    def ended(self) -> bool:
        """Close the connection once everything is sent."""
        return self._state is State.ENDED

    @property
    def busy(self) -> bool:
        """The target is resumed: `run` it when `runnable`, or when what it is `waiting` for has come."""
        return self._state is State.RUNNING or (self._state is State.NON_STOP and self._target.is_running())

    def receive(self, data: bytes) -> bytes:
        """Take what the client sent; returns what is to be sent."""
        for item in _without_repeats(self._framing.feed(data)):
            ACTIONS[self._state, _kind(item)](self, item)
        if self.runnable:
            self._run(monotonic() + SYNCHRONOUS_S)
        return self._take_out()

    def run(self, seconds: float = 0.0) -> bytes:
        """Run the target for about that long, one slice at least; returns what is to be sent."""
        self._run(monotonic() + seconds)
        return self._take_out()

    def close(self) -> None:
        """The client has gone."""
        if self._state is not State.ENDED:
            self._state = State.ENDED
        self._target.detached()

    # --------------------------------------------------------------------------------------------------- inputs

    def _answer(self, item: Item) -> None:
        payload = bytes(item)  # type: ignore[arg-type]
        if not self._context.no_ack:
            self._out.append(b"+")
        if self._log is not None:
            self._log("<", payload)
        reply = self._reply_to(payload)
        if self._context.console:
            for text in self._context.console:
                self._send(b"O" + text.hex().encode())
            self._context.console.clear()
        if type(reply) is bytes:
            self._send(reply)
            if self._context.non_stop != (self._state is State.NON_STOP):
                self._state = State.NON_STOP if self._context.non_stop else State.ALL_STOP
            if self._state is State.NON_STOP:
                self.runnable = self._target.is_running()
        elif reply is Verdict.RESUMED:
            self._state = State.RUNNING
            self.runnable = True
        elif reply is Verdict.ENDED:
            self._state = State.ALL_STOP if self._context.extended else State.ENDED
        elif isinstance(reply, Farewell):
            self._send(reply.reply)
            self._state = State.ENDED

    def _reply_to(self, payload: bytes) -> Reply:
        context = self._context
        try:
            handle, rest = self._dispatch.find(payload)
            return handle(context, rest)
        except Unsupported:
            return b""
        except TargetError as error:
            return context.error(error.errno, error.message)
        except ProtocolError as error:
            return context.error(error.errno, str(error))
        except Exception:
            logger.exception("packet %r", payload[:200])
            return context.error(_ERROR, "internal error, see the server's log")

    def _defer(self, item: Item) -> None:
        if len(self._waiting_packets) >= _QUEUE_LIMIT:
            return self._refuse(item)
        self._waiting_packets.append(bytes(item))  # type: ignore[arg-type]
        return None

    def _kill_running(self, item: Item) -> None:
        self.runnable = False
        self._answer(item)

    def _interrupt(self, item: Item) -> None:
        if self._log is not None:
            self._log("<", b"\x03")
        self._target.interrupt()
        self.runnable = True

    def _late_interrupt(self, item: Item) -> None:
        """The target stopped before the Ctrl-C came: it stays pending, as gdbserver's SIGINT does."""
        if self._log is not None:
            self._log("<", b"\x03")
        self._target.interrupt()

    def _refuse(self, item: Item) -> None:
        """Too long, or too much: an error is the one reply."""
        if not self._context.no_ack:
            self._out.append(b"+")
        self._send(self._context.error(_ERROR, "the packet is too long"))

    def _ask_again(self, item: Item) -> None:
        if self._context.no_ack:
            # nobody would send it again
            self._send(self._context.error(_ERROR, "a packet with a wrong checksum"))
        else:
            self._out.append(b"-")

    def _send_again(self, item: Item) -> None:
        if not self._context.no_ack and self._last_frame:
            self._out.append(self._last_frame)

    def _ignore(self, item: Item) -> None:
        """Nothing to do."""

    # -------------------------------------------------------------------------------------------------- running

    def _run(self, until: float) -> None:
        while self.runnable or self.busy:
            try:
                result = self._target.run_slice()
            except TargetError as error:
                self._failed(error.errno, error.message)
                return
            except Exception:
                logger.exception("while the target ran")
                self._failed(_ERROR, "internal error, see the server's log")
                return
            if type(result) is Stop:
                if result.console and self._state is not State.NON_STOP:
                    for text in result.console:
                        self._send(b"O" + text.hex().encode())
                self._stopped(result.events)
                if not self.runnable:
                    return
            elif result is RUNNING:
                self.runnable = True
            else:
                self.waiting = result  # type: ignore[assignment]
                self.runnable = False
                return
            if monotonic() >= until:
                return

    def _run_to_stop(self) -> None:
        """At connection: nobody waits for a reply, the stop is the target's status."""
        deadline = monotonic() + 1.0
        while monotonic() < deadline:
            if isinstance(self._target.run_slice(), Stop):
                return

    def _stopped(self, events: tuple[StopEvent, ...]) -> None:
        if self._state is State.NON_STOP:
            self.runnable = self._target.is_running()
            for event in events:
                self._notify(event)
            return
        self.runnable = False
        self._state = State.ALL_STOP
        if not events:
            self._failed(_ERROR, "the target stopped without a reason")
            return
        try:
            reply = self._context.stop_reply(events[0])
        except Exception:
            logger.exception("stop %r", events[0])
            reply = self._context.error(_ERROR, "internal error, see the server's log")
        self._send(reply)
        self._answer_deferred()

    def _failed(self, errno: int, text: str) -> None:
        self.runnable = False
        if self._state is State.RUNNING:
            self._state = State.ALL_STOP
            self._send(self._context.error(errno, text))
            self._answer_deferred()

    def _answer_deferred(self) -> None:
        while self._waiting_packets and self._state is not State.RUNNING:
            item = self._waiting_packets.popleft()
            ACTIONS[self._state, Input.PACKET](self, item)

    def _notify(self, event: StopEvent) -> None:
        context = self._context
        context.note_current(event)
        context.notifications.append(event)
        if len(context.notifications) == 1:
            payload = b"Stop:" + context.stop_reply(event)
            if self._log is not None:
                self._log(">", b"%" + payload)
            self._out.append(frame_notification(payload))

    # -------------------------------------------------------------------------------------------------- sending

    def _send(self, payload: bytes) -> None:
        if self._log is not None:
            self._log(">", payload)
        self._last_frame = frame(payload)
        self._out.append(self._last_frame)

    def _take_out(self) -> bytes:
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data


_Action = Callable[[Session, Item], None]
_COMMON: dict[Input, _Action] = {
    Input.PACKET: Session._answer,
    Input.KILL: Session._answer,
    Input.INTERRUPT: Session._late_interrupt,
    Input.CORRUPT: Session._ask_again,
    Input.OVERSIZE: Session._refuse,
    Input.NACK: Session._send_again,
    Input.ACK: Session._ignore,
}
_STATES: dict[State, dict[Input, _Action]] = {
    State.ALL_STOP: _COMMON,
    State.RUNNING: _COMMON
    | {Input.PACKET: Session._defer, Input.KILL: Session._kill_running, Input.INTERRUPT: Session._interrupt},
    State.NON_STOP: _COMMON | {Input.INTERRUPT: Session._interrupt},
    State.ENDED: dict.fromkeys(Input, Session._ignore),
}
ACTIONS: dict[tuple[State, Input], _Action] = {
    (state, kind): action for state, actions in _STATES.items() for kind, action in actions.items()
}
