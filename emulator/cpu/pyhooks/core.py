"""The engines without C: hooks/core.c in Python, same interface, same rules, about a hundred times slower."""

from __future__ import annotations

import struct
from typing import Any, cast

from emulator.cpu.exits import Exit
from emulator.cpu.pyhooks.access import PageTable
from emulator.cpu.pyhooks.answer import Loop
from emulator.cpu.pyhooks.arena import Arena
from emulator.cpu.pyhooks.blocks import Blocks
from emulator.cpu.pyhooks.callbacks import Callbacks
from emulator.cpu.pyhooks.engine import WORD
from emulator.cpu.pyhooks.run import Engines
from emulator.cpu.pyhooks.state import FOREVER, MAX_SHADOWS, NOWHERE, State


class Core:
    """Two engines over one arena: `_hooks.Core`."""

    def __init__(self, arena: Arena, spec: dict[str, Any]) -> None:
        self._state = state = State(arena, spec)
        blocks = Blocks(state)
        Callbacks(state, blocks)  # the engines keep it
        self._loop = Loop(state, blocks, Engines(state, blocks))
        self._running = False
        self.patience = 1  # of C's alone: so many TLB fills take longer there than a slice's instructions
        self.tells_stores = False  # come back behind a system call that stored into a watched range
        self.sync_mxcsr = self._loop.sync_mxcsr

    @property
    def clock(self) -> int:
        """Instructions retired."""
        return self._state.clock

    @clock.setter
    def clock(self, value: int) -> None:
        self._state.clock = value

    @property
    def calls(self) -> int:
        """System calls made."""
        return self._state.calls

    def _finish(self, got: Exit) -> Exit:
        state = self._state
        called = type(got) is state.spec["Syscall"]
        state.shadows[state.spec["saved_shadow"]] = cast(Any, got).number & WORD if called else WORD
        if got is state.spec["STOP_REQUESTED"]:
            state.stop = False
        return got

    def _begin(self) -> None:
        if self._running:
            raise RuntimeError("the CPU is running")
        self._state.space  # noqa: B018 - raises without one

    def run(self, until: int, skip_breakpoint: bool = False, soft: bool = False, /) -> Exit:
        """Run until the clock says so or something happens; `soft` lets the block that passes `until` end."""
        state = self._state
        state.soft = soft
        self._begin()
        state.skip_pc = state.pc if skip_breakpoint and state.pc in state.space.points else NOWHERE
        self._running = True
        try:
            return self._finish(self._loop.run_until(until))
        finally:
            self._running = False

    def serve_for(self, spec: dict[str, Any], /) -> None:
        """Tell `serve` the kernel's objects, and what a call costs of a task's turn."""
        self._served = (spec["entries"], spec["events"], spec["queue"], spec["cost_insns"])

    def serve(self, task: Any, end: int, /) -> Any:
        """Run, and make the plain system calls on the way.

        Returns an exit, an exception that a handler raised, or what it returned if that is not its result.
        """
        spec = self._state.spec
        entries, events, queue, cost_insns = self._served
        self.serving = task
        until = min(end, task.quantum_end)
        while True:
            reason = self.run(until, False, not queue)
            if type(reason) is not spec["Syscall"] or task.watch_calls:
                return reason
            number, args = cast(Any, reason)
            entry = entries.get(number)
            if entry is None:
                return reason
            task.quantum_end -= cost_insns
            until -= cost_insns
            call = task.call
            call.number, call.args = number, args
            try:
                result = entry(task, args)
            except Exception as error:
                return error
            if result is not None and not isinstance(result, int):
                return result
            self.set_syscall_result((result or 0) & WORD)
            call.memo = call.deadline_ns = None
            if task.attention or events or task.watch_calls or task.special or task.stepping is not None:
                return spec["SERVED"]
            if self.tells_stores and self._state.space.stored:
                return spec["SERVED"]

    def step(self, count: int = 1, skip_breakpoint: bool = True, /) -> Exit:
        """Execute exactly that many instructions."""
        return self.step_range(0, FOREVER, self.clock + count, skip_breakpoint)

    def step_range(self, start: int, end: int, until: int, skip_breakpoint: bool = True, /) -> Exit:
        """Step while start <= pc < end."""
        state = self._state
        self._begin()
        state.skip_pc = state.pc if skip_breakpoint else NOWHERE
        self._running = True
        try:
            return self._finish(self._loop.step_until(start, end, until))
        finally:
            self._running = False

    def request_stop(self) -> None:
        """Make the run that goes on, or the next, come back."""
        state = self._state
        state.stop = True
        state.attend()

    def activate(self, table: PageTable, /) -> None:
        """Switch the address space."""
        state = self._state
        if table.arena is not state.arena:
            raise ValueError("the page table belongs to another arena")
        if self._running:
            raise RuntimeError("the CPU is running")
        state.table = table

    def read_reg(self, number: int, size: int, /) -> int:
        """Return a register by Unicorn's number."""
        return self._state.live.get(number, size)

    def write_reg(self, number: int, size: int, value: int, /) -> None:
        """Write a register by Unicorn's number."""
        self._state.live.set(number, value, size)

    def read_regs(self, plan: bytes, /) -> bytes:
        """Return many registers' bytes; a negative number is a shadow."""
        state = self._state
        out = b""
        for number, size in struct.iter_unpack("=2i", plan):
            value = state.shadows[-1 - number] if number < 0 else self.read_reg(number, size)
            out += value.to_bytes(size, "little")
        return out

    def write_regs(self, plan: bytes, data: bytes, /) -> None:
        """Write many registers."""
        state = self._state
        at = 0
        for number, size in struct.iter_unpack("=2i", plan):
            value = int.from_bytes(data[at : at + size], "little")
            at += size
            if number < 0:
                state.shadows[-1 - number] = value
            else:
                self.write_reg(number, size, value)

    def set_syscall_result(self, value: int, /) -> None:
        """Write the result register."""
        state = self._state
        state.live.set(state.spec["result"], value)

    def save(self) -> bytes:
        """Return the guest's registers."""
        state = self._state
        return state.live.save() + struct.pack(f"={MAX_SHADOWS}Q", *state.shadows)

    def load(self, context: bytes, /) -> None:
        """Put saved registers back."""
        state = self._state
        if len(context) != len(state.fresh) + 8 * MAX_SHADOWS:
            raise ValueError("not a context of this CPU")
        state.live.load(context[: len(state.fresh)])
        state.shadows = list(struct.unpack(f"={MAX_SHADOWS}Q", context[len(state.fresh) :]))

    def switch(self, context: bytes, table: PageTable, /) -> bytes:
        """Other registers and address space; return the registers of before."""
        mine = self.save()
        self.load(context)
        self.activate(table)
        return mine

    @property
    def table(self) -> PageTable | None:
        """The active address space."""
        return self._state.table

    def stats(self) -> dict[str, int]:
        """Return counters."""
        return dict(self._state.counts)
