"""What an engine run meant, without C: hooks/answer.c in Python."""

from __future__ import annotations

import struct
from typing import cast

from emulator.abi.errno import E
from emulator.cpu.exits import Exit
from emulator.cpu.pyhooks.arena import SHIFT
from emulator.cpu.pyhooks.blocks import Blocks
from emulator.cpu.pyhooks.run import Engines
from emulator.cpu.pyhooks.scan import Insn
from emulator.cpu.pyhooks.state import FOREVER, NOWHERE, Block, State, Why
from emulator.cpu.pyhooks.table import EXEC, MASK, WRITE, Refused, Touch
from emulator.errors import LinuxError

RAX, RCX, RDX = 0, 1, 2  # in spec["general"]


class Loop:
    """Runs until there is something to tell."""

    def __init__(self, state: State, blocks: Blocks, engines: Engines) -> None:
        self._state = state
        self._blocks = blocks
        self._engines = engines
        self._exception_offset = 0
        mxcsr = state.spec["mxcsr"]
        self._mxcsr_offset = self._find_mxcsr(mxcsr) if mxcsr else 0

    def _find_mxcsr(self, register: int) -> int:
        """Return MXCSR's offset in a context: where two values written to it differ."""
        runner = self._state.runner
        images = []
        for value in (0x5F80, 0x1F80):
            runner.set(register, value)
            images.append(runner.save())
        words = range(8, len(images[0]) - 3, 4)
        wanted = (struct.pack("=I", 0x5F80), struct.pack("=I", 0x1F80))
        return next((n for n in words if (images[0][n : n + 4], images[1][n : n + 4]) == wanted), 0)

    def sync_mxcsr(self) -> None:
        """Bring the SSE exception flags into MXCSR (core_sync_mxcsr of hooks/answer.c)."""
        at = self._mxcsr_offset
        if not at:
            return
        live = self._state.live
        context = bytearray(live.save())
        flags = context[at - 6]
        if flags:
            context[at] |= flags & 0x3D | (2 if flags & 0x40 else 0) | (0x10 if flags & 0x80 else 0)
            context[at - 6] = 0
            live.load(bytes(context))

    def _step_over(self) -> bool:
        state = self._state
        state.allow_pc = state.skip_pc = state.pc
        self._engines.run_stepper(1)
        state.skip_pc = NOWHERE
        return state.why is Why.DONE

    def _special(self, pending: Block) -> Exit | None:
        state = self._state
        spec, engine = state.spec, state.live
        pc = state.pc
        match Insn(pending.first_kind):
            case Insn.UNDEFINED | Insn.UNSUPPORTED | Insn.RDRAND:
                return cast(Exit, spec["Undefined"](pc))
            case Insn.PRIVILEGED:
                return cast(Exit, spec["Privileged"](pc))
            case Insn.RDTSC | Insn.RDTSCP as kind:
                engine.set(state.general[RAX], state.clock & 0xFFFFFFFF)
                engine.set(state.general[RDX], state.clock >> 32)
                if kind is Insn.RDTSCP:
                    engine.set(state.general[RCX], 0)
                engine.set(spec["pc"], pc + pending.size)
                state.clock += 1
            case Insn.COUNTER:
                target = self._blocks.code(pc, 4)[0] & 31
                if target != 31:
                    engine.set(state.general[target], state.clock)
                engine.set(spec["pc"], pc + 4)
                state.clock += 1
            case Insn.CPUID:
                leaf, subleaf = (engine.get(state.general[n]) & 0xFFFFFFFF for n in (RAX, RCX))
                if self._step_over():
                    self._mask_cpuid(leaf, subleaf)
            case Insn.MXCSR:
                self.sync_mxcsr()
                self._step_over()
            case Insn.POPF:
                if self._step_over():
                    flags = state.live.get(spec["flags"])
                    state.live.set(spec["flags"], flags & ~0x1A7000 | 0x202)
            case _:
                self._step_over()
        return None if state.why in (Why.DONE, Why.SPECIAL) else self._answer(FOREVER)

    def _mask_cpuid(self, leaf: int, subleaf: int) -> None:
        state = self._state
        for mask_leaf, mask_subleaf, register, clear in state.masks:
            if mask_leaf == leaf and (leaf not in (4, 7, 0xB, 0xD) or mask_subleaf == subleaf):
                old = state.live.get(state.general[register])
                state.live.set(state.general[register], old & ~clear & 0xFFFFFFFF)

    def _locate(self) -> None:
        """Find a fault's exact address: execute once more with a scratch frame in place of the page."""
        state = self._state
        fault, why, clock = state.fault, state.why, state.clock
        pc = state.pc
        if fault.access == EXEC:
            fault.address = pc if pc & ~MASK == fault.address else fault.address
            return
        kept = state.live.save()
        self._engines.enter(state.stepper)
        self._engines.flush(state.stepper)
        table = state.space
        pages = (fault.address - (1 << SHIFT), fault.address + (1 << SHIFT))
        beside = [page for page in pages if 0 <= page < 1 << 48 and table.resident(page, 1 << SHIFT)[0] & 1]
        bytes_beside = [table.read(page, 1 << SHIFT, force=True) for page in beside]
        state.probing = True
        state.probe_page = state.probe_address = NOWHERE
        self._step_over()
        state.probing = False
        if fault.access == WRITE:  # a straddling store leaves no byte in the neighbours
            for at, old in zip(beside, bytes_beside, strict=True):
                if table.read(at, 1 << SHIFT, force=True) != old:
                    table.write(at, old, force=True)
        state.stepper.load(kept)
        self._engines.flush(state.stepper)
        if state.probe_page == fault.address and state.probe_address != NOWHERE:
            fault.address = state.probe_address
        state.fault, state.why, state.clock = fault, why, clock

    def _watch(self) -> Exit | None:
        """Let the stepper execute the instruction at pc with the watched pages open."""
        state = self._state
        clock, kept = state.clock, state.live.save()
        state.hit = None
        state.opened.clear()
        state.undo.clear()
        state.crossing = 0
        state.watching = True
        state.skip_pc = state.pc
        self._engines.run_stepper(1)
        state.skip_pc = NOWHERE
        state.watching = False
        if state.opened:
            self._engines.flush(state.stepper)
        if state.hit is None or state.why is Why.FAULT:
            return None
        if state.spec["reports_before"]:
            for paddr, old in reversed(state.undo):
                state.arena.memory[paddr : paddr + len(old)] = old
            state.live.load(kept)
            state.clock = clock
        return cast(Exit, state.spec["WatchHit"](*state.hit))

    def _forget_exception(self) -> None:
        """As forget_exception in hooks/answer.c."""
        state = self._state
        if not state.spec["contributory"]:
            return
        now = state.live.save()
        number = state.interrupt
        if not self._exception_offset and state.spec["contributory"] >> number & 1:
            wanted, none = struct.pack("=i", number), struct.pack("=i", -1)
            for at in range(0, len(now) - 3, 4):
                if state.fresh[at : at + 4] == none and now[at : at + 4] == wanted:
                    self._exception_offset = at
        at = self._exception_offset
        if at:
            state.live.load(now[:at] + struct.pack("=i", -1) + now[at + 4 :])

    def _run_up_to_page(self, until: int) -> bool:
        """As run_up_to_page in hooks/answer.c."""
        state = self._state
        fault, clock, pc = state.fault, state.clock, state.pc
        near = fault.access == EXEC and pc < fault.address <= pc + MASK + 1
        edge = self._blocks.edge(pc, fault.address) if near else pc
        if edge <= pc:
            return False
        state.stepper.set_exit(edge)
        self._engines.run_stepper(until - clock)
        state.stepper.set_exit(None)
        if state.clock != clock:
            return True
        state.why, state.fault = Why.FAULT, fault
        return False

    def _answer_fault(self) -> Exit | None:
        state = self._state
        fault = state.fault
        if fault.why is Touch.RAN_COW:
            try:
                state.space.touch(fault.address, fault.access)
            except Refused as refused:
                fault.why = refused.why
            else:
                return None
        self._locate()
        if fault.why is Touch.NOMEM:
            raise LinuxError(E.ENOMEM)
        if fault.why is Touch.BUS:
            return cast(Exit, state.spec["BusError"](fault.address))
        return cast(Exit, state.spec["PageFault"](fault.address, fault.access, fault.why is not Touch.UNMAPPED))

    def _stopped_by(self, why: Why) -> bool:
        state = self._state
        return state.why is why

    def _answer(self, until: int) -> Exit | None:
        """Return what the last engine run means, None to go on."""
        state = self._state
        spec = state.spec
        if state.why is Why.FAULT and state.fault.why is Touch.WATCHED:
            got = self._watch()
            if got is not None:
                return got
            if self._stopped_by(Why.FAULT) and state.fault.why is Touch.WATCHED:
                return None
        match state.why:
            case Why.SYSCALL:
                return self._syscall()
            case Why.FAULT:
                return self._answer(until) if self._run_up_to_page(until) else self._answer_fault()
            case Why.INTERRUPT:
                self._forget_exception()
                return cast(Exit, spec["Interrupt"](state.interrupt))
            case Why.INVALID:
                return cast(Exit, spec["Undefined"](state.pc))
            case Why.POINT:
                return cast(Exit, spec["BreakpointHit"](state.pc))
            case Why.SPECIAL if state.pending is not None:
                return self._special(state.pending)
            case Why.RANGE:
                return cast(Exit, spec["RANGE_DONE"])
            case _:
                return None

    def _syscall(self) -> Exit:
        state = self._state
        spec, engine = state.spec, state.live
        state.calls += 1
        for to, of in state.clobbers:
            engine.set(to, engine.get(of))
        number = engine.get(spec["nr"])
        number -= (number >> 63) << 64
        return cast(Exit, spec["Syscall"](number, tuple(engine.get(spec[f"arg{n}"]) for n in range(6))))

    def run_until(self, until: int) -> Exit:
        """Run freely until the clock says so or something happens."""
        state = self._state
        while True:
            if state.stop:
                return cast(Exit, state.spec["STOP_REQUESTED"])
            if state.clock >= until:
                return cast(Exit, state.spec["BUDGET"])
            skip, clock = state.skip_pc, state.clock
            self._engines.run_runner(until)
            if state.clock == clock:
                state.skip_pc = skip  # nothing ran yet
            state.range = (0, FOREVER)
            if state.why is Why.BLOCK and state.pending is not None:
                if state.crowded:
                    state.crowded = False
                    self._engines.flush(state.runner)
                    state.runner.crowd = min(state.runner.crowd * 2, 1 << 19)
                if state.attention or state.clock >= until:
                    continue
                self._engines.run_stepper(min(state.pending.count, until - state.clock))
                state.skip_pc = NOWHERE
            got = self._answer(until)
            if got is not None:
                return got

    def step_until(self, start: int, end: int, until: int) -> Exit:
        """Step while start <= pc < end, until the clock says so or something happens."""
        state = self._state
        first = True
        while True:
            if state.stop:
                return cast(Exit, state.spec["STOP_REQUESTED"])
            if state.clock >= until:
                return cast(Exit, state.spec["BUDGET"])
            if not first and not start <= state.pc < end:
                return cast(Exit, state.spec["RANGE_DONE"])
            first = False
            state.range = (start, end)
            self._engines.run_stepper(until - state.clock)
            got = self._answer(until)
            if got is not None:
                return got
