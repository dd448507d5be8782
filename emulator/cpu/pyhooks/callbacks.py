"""The callbacks Unicorn calls, without C: hooks/engine.c in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.cpu.pyhooks import engine as uc
from emulator.cpu.pyhooks.arena import RAN, SHIFT
from emulator.cpu.pyhooks.blocks import Blocks
from emulator.cpu.pyhooks.engine import ALIAS, MEM_FETCH, MEM_WRITE, Engine
from emulator.cpu.pyhooks.scan import Insn
from emulator.cpu.pyhooks.state import NOWHERE, Fault, State, Why
from emulator.cpu.pyhooks.table import EXEC, MASK, READ, WRITE, Entry, Refused, Touch


class Callbacks:
    """Count, stop, translate addresses and watch while an engine runs."""

    def __init__(self, state: State, blocks: Blocks) -> None:
        self._state = state
        self._blocks = blocks
        for engine in (state.runner, state.stepper):
            engine.hook(uc.HOOK_FILL, uc.FILL, self._fill_of(engine))
            engine.hook(uc.HOOK_INTR, uc.INTR, self._on_interrupt)
            engine.hook(uc.HOOK_INVALID, uc.INVALID, self._on_invalid)
            engine.hook(uc.HOOK_EDGE, uc.EDGE, self._on_edge)
            if state.spec["insn_syscall"]:
                engine.hook(uc.HOOK_INSN, uc.PLAIN, self._on_syscall, state.spec["insn_syscall"])
            if state.spec["insn_refused"]:
                engine.hook(uc.HOOK_INSN, uc.PLAIN, self._on_refused, state.spec["insn_refused"])
        state.runner.hook(uc.HOOK_BLOCK, uc.CODE, self._on_block)
        state.stepper.hook(uc.HOOK_CODE, uc.CODE, self._on_code)
        state.stepper.hook(uc.HOOK_READ | uc.HOOK_WRITE, uc.ACCESS, self._on_access)

    def _resumed(self, addr: int) -> None:
        """A store into the block that makes it leaves it and runs again alone; the clock had counted the whole."""
        state = self._state
        if state.last is None:
            return
        start, end = state.last[0], sum(state.last)
        if not start <= addr < end or self._blocks.loops_on_itself(addr):
            return
        n = self._blocks.count(addr, end)
        if addr == start or self._blocks.count(start, addr) + n == self._blocks.count(start, end):
            state.clock -= n

    def _on_block(self, _uc: int, addr: int, size: int, _data: int) -> None:
        state = self._state
        block = self._blocks.at(addr, size)
        if block.resumable and block.count == 1 and state.last != (addr, size):
            self._resumed(addr)
        skipped = block.only_point_first and addr == state.skip_pc
        fits = state.clock + block.count <= state.limit or (state.soft and state.clock < state.limit)
        if (block.stop and not skipped) or not fits:
            state.pending = block
            state.why = Why.BLOCK
            state.runner.stop()
            return
        state.skip_pc = NOWHERE
        state.clock += block.count
        state.last = (addr, size)

    def _on_edge(self, _uc: int, now: Any, _before: Any, _data: int) -> None:
        self._blocks.forget(now[0])

    def _on_code(self, _uc: int, addr: int, size: int, _data: int) -> None:
        state = self._state
        block = self._blocks.at(addr, size if 0 < size <= 15 else 1)  # an undefined instruction has no length
        if block.resumable:  # a store into its own block: the same instruction again, once
            state.again = not state.again and addr == state.last_pc and not self._blocks.loops_on_itself(addr)
            if state.again:
                return
        start, end = state.range
        if not state.steps_left or state.attention:
            state.why = Why.DONE
        elif not start <= addr < end and state.last_pc != NOWHERE:
            state.why = Why.RANGE
        elif block.point_first and addr != state.skip_pc:
            state.why = Why.POINT
        elif block.first_kind != Insn.PLAIN and addr != state.allow_pc:
            state.pending = block
            state.why = Why.SPECIAL
        else:
            state.skip_pc = state.allow_pc = NOWHERE
            state.steps_left -= 1
            state.clock += 1
            state.last_pc = addr
            return
        state.stepper.stop()

    def _on_interrupt(self, _uc: int, number: int, _data: int) -> None:
        state = self._state
        state.interrupt = number
        state.why = Why.SYSCALL if number == state.spec["syscall_interrupt"] else Why.INTERRUPT
        state.live.stop()

    def _on_syscall(self, _uc: int, _data: int) -> None:
        state = self._state
        state.why = Why.SYSCALL
        state.live.stop()

    def _on_refused(self, _uc: int, _data: int) -> None:
        state = self._state
        state.why = Why.INVALID
        state.live.stop()

    def _on_invalid(self, _uc: int, _data: int) -> bool:
        state = self._state
        state.why = Why.INVALID
        return False

    def _refuse(self, vaddr: int, access: int, why: Touch) -> bool:
        state = self._state
        state.why = Why.FAULT
        state.fault = Fault(vaddr, access, why)
        return False

    def _fill_of(self, engine: Engine) -> Callable[..., bool]:
        state = self._state

        def on_fill(_uc: int, vaddr: int, kind: int, out: Any, _data: int) -> bool:
            entry = out.contents
            if engine.aliasing:
                entry.paddr = vaddr - ALIAS
                entry.perms = EXEC
                return True
            access = WRITE if kind == MEM_WRITE else EXEC if kind == MEM_FETCH else READ
            table = state.space
            before = table.epoch
            try:
                page = table.touch(vaddr, access, may_replace_code=False)
            except Refused as refused:
                if state.probing and state.probe_page in (NOWHERE, vaddr):
                    state.probe_page = vaddr
                    entry.paddr = state.scratch << SHIFT
                    entry.perms = READ | WRITE
                    return True
                return self._refuse(vaddr, access, refused.why)
            if table.epoch != before and engine.epoch == before:
                engine.epoch = table.epoch
            state.counts["tlb_fills"] += 1
            engine.fills += 1
            if engine.fills > engine.crowd and engine is state.runner:
                state.crowded = True
                state.attend()
            perms = self._perms(engine, page, access)
            if table.watches and not state.probing:
                watched = table.page_watch(vaddr)
                free = perms & ~(READ | WRITE if watched & READ else WRITE if watched & WRITE else 0)
                if free & access:
                    perms = free
                elif engine is state.runner or not state.watching:
                    return self._refuse(vaddr, access, Touch.WATCHED)
                else:
                    self._open(vaddr, page.frame, access)
            entry.paddr = page.frame << SHIFT
            entry.perms = perms
            return True

        return on_fill

    def _perms(self, engine: Engine, page: Entry, access: int) -> int:
        state = self._state
        perms: int = page.prot & 7
        ran = state.arena.ran
        if perms & EXEC and (access == EXEC or (perms & WRITE and not page.cow)):
            if not ran.get(page.frame, 0) & engine.ran:
                if page.shared and page.frame not in ran:
                    state.space.epoch += 1  # another page may show this frame writable: look again
                    state.attend()
                ran[page.frame] = ran.get(page.frame, 0) | engine.ran
        else:
            perms &= ~EXEC
        if page.cow:
            perms &= ~WRITE
        if perms & WRITE and ran.get(page.frame, 0) & RAN:
            if access == WRITE or engine is state.runner:
                engine.writable_code.add(page.frame)
                perms |= EXEC
            else:
                perms &= ~WRITE
        return perms

    def _open(self, page: int, frame: int, access: int) -> None:
        state = self._state
        state.opened.append((page, frame))
        if state.crossing:
            self._compare(page, state.crossing, access)
        state.crossing = 0

    def _compare(self, address: int, size: int, kind: int) -> None:
        state = self._state
        watch = state.space.watch_hit(address, size, kind)
        if watch is None or state.hit is not None:
            return
        state.hit = (max(address, watch.start), watch.kind)
        state.steps_left = 0  # emu_stop here would repeat the store

    def _on_access(self, _uc: int, kind: int, paddr: int, size: int, _value: int, _data: int) -> None:
        state = self._state
        frame, low = paddr >> SHIFT, paddr & MASK
        if state.probing:
            if frame == state.scratch and state.probe_address == NOWHERE:
                state.probe_address = state.probe_page | low
            return
        if not state.watching:
            return
        access = WRITE if kind == MEM_WRITE else READ
        if state.spec["reports_before"] and access == WRITE:
            state.undo.append((paddr, bytes(state.arena.memory[paddr : paddr + size])))
        state.crossing = max(low + size - MASK - 1, 0)
        for page, opened in state.opened:
            if opened == frame:
                self._compare(page | low, size, access)
            elif state.crossing and (before := state.space.pages.get(page - MASK - 1)) and before.frame == frame:
                self._compare(page, state.crossing, access)
