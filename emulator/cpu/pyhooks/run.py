"""Running without C: hooks/run.c in Python.  Which engine runs, and from where."""

from __future__ import annotations

import struct

from emulator.cpu.pyhooks.blocks import Blocks
from emulator.cpu.pyhooks.engine import Engine
from emulator.cpu.pyhooks.state import NOWHERE, State, Why
from emulator.cpu.pyhooks.table import EXEC


class Engines:
    """The two engines as one: the guest's state moves to the one that has to run."""

    def __init__(self, state: State, blocks: Blocks) -> None:
        self._state = state
        self._blocks = blocks

    def _other(self, engine: Engine) -> Engine:
        state = self._state
        return state.stepper if engine is state.runner else state.runner

    def _tell_other(self, engine: Engine) -> None:
        state = self._state
        other = self._other(engine)
        for frame in engine.writable_code:
            if state.arena.ran.get(frame, 0) & other.ran:
                other.forget_frame(frame)

    def flush(self, engine: Engine) -> None:
        """Bring an engine's TLB up to date; what it wrote into code is forgotten by the other."""
        state = self._state
        self._tell_other(engine)
        engine.writable_code.clear()
        engine.flush_tlb()
        engine.fills = 0
        engine.epoch = state.space.epoch
        engine.table = state.space
        state.counts["tlb_flushes"] += 1

    def enter(self, engine: Engine) -> None:
        """Make `engine` the one that holds the guest's state, with its TLB and translations up to date."""
        state = self._state
        if state.live is not engine:
            before = state.live
            engine.load(before.save())
            state.live = engine
            state.counts["switches"] += 1
            if before.writable_code:
                self._tell_other(before)
                if before is state.stepper:
                    self.flush(before)
        if state.arena.stale:
            for frame in state.arena.stale:
                state.runner.forget_frame(frame)
                state.stepper.forget_frame(frame)
            state.arena.stale.clear()
            self._blocks.clear()
        if engine.table is not state.space or engine.epoch != state.space.epoch:
            self.flush(engine)

    def _start(self, engine: Engine) -> None:
        state = self._state
        state.why = Why.NONE
        if state.runner.writable_code or state.stepper.writable_code:
            self._blocks.forget(state.pc)  # the first block of a run is not announced as new
        engine.start(state.pc)

    def run_runner(self, until: int) -> None:
        """Run freely until a block would pass `until`, or must not run unlooked-at, or something happens."""
        state = self._state
        self.enter(state.runner)
        state.last = None
        state.attention = False
        state.limit = until
        if state.stop:
            state.attend()
        state.counts["runs"] += 1
        self._start(state.runner)
        state.skip_pc = NOWHERE
        fetch = state.why is Why.FAULT and state.fault.access == EXEC
        if state.why in (Why.BLOCK, Why.SYSCALL) or state.last is None or fetch:
            return
        pc, end = state.pc, sum(state.last)
        if state.last[0] <= pc < end:
            state.clock -= self._blocks.count(pc, end)

    def run_stepper(self, steps: int) -> None:
        """Step at most `steps` instructions."""
        state = self._state
        self.enter(state.stepper)
        state.last_pc = NOWHERE
        state.attention = False
        if state.stop:
            state.attend()
        state.steps_left = steps
        state.counts["step_runs"] += 1
        self._start(state.stepper)
        state.allow_pc = NOWHERE
        if state.why in (Why.FAULT, Why.INTERRUPT, Why.INVALID):
            self._mend_flags()
        if state.why is Why.FAULT and state.fault.access == EXEC:
            if not state.steps_left:
                state.why = Why.DONE
        elif state.why in (Why.FAULT, Why.INTERRUPT, Why.INVALID) and state.pc == state.last_pc:
            state.clock -= 1
            state.steps_left += 1

    def _mend_flags(self) -> None:
        """As mend_flags in hooks/run.c: after a fault under a code hook CC_SRC holds the flags, CC_OP must say so."""
        state = self._state
        if state.spec["lazy_flags_value"] >= 0:
            at, computed = state.spec["lazy_flags_offset"], struct.pack("=i", state.spec["lazy_flags_value"])
            now = state.live.save()
            if now[at : at + 4] != computed:
                state.live.load(now[:at] + computed + now[at + 4 :])
