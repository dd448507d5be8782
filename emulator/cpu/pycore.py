"""The engines without C: hooks/engine.c, run.c and core.c in Python, same rules, about a hundred times slower.

Callbacks are ctypes functions; a Python exception in one stops the engine and is raised from `run`.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import wraps
from typing import Any, cast

from unicorn.unicorn_py3.unicorn import uclib

from emulator.abi.errno import E
from emulator.cpu.exits import Exit
from emulator.cpu.pymemory import (
    EXEC,
    MASK,
    RAN,
    RAN_RUNNER,
    RAN_STEPPER,
    READ,
    SHIFT,
    WRITE,
    Arena,
    PageTable,
    Refused,
    Touch,
)
from emulator.cpu.pyscan import SCANNERS, Insn
from emulator.errors import LinuxError

HOOK_INTR, HOOK_INSN, HOOK_CODE, HOOK_BLOCK, HOOK_READ, HOOK_WRITE = 1, 2, 4, 8, 1 << 10, 1 << 11
HOOK_INVALID, HOOK_EDGE, HOOK_FILL = 1 << 14, 1 << 15, 1 << 17
MEM_WRITE, MEM_FETCH = 17, 18
ALIAS = 0xFFF << 52
MAX_SHADOWS = 16
CONTEXT_HEADER = 40
MAX_LOOP = 20
RAX, RCX, RDX, _RBX = range(4)  # in spec["general"]
NOWHERE = -1
NEVER = (1 << 64) - 1


def _ctl_write(what: int, arguments: int) -> int:
    return what | arguments << 26 | 1 << 30


FLUSH_TLB, FLUSH_TB, REMOVE_CACHE = _ctl_write(11, 0), _ctl_write(10, 0), _ctl_write(9, 2)
USE_EXITS, EXITS, TLB_MODE = _ctl_write(4, 1), _ctl_write(6, 2), _ctl_write(12, 1)


class TlbEntry(ctypes.Structure):
    """uc_tlb_entry."""

    _fields_ = (("paddr", ctypes.c_uint64), ("perms", ctypes.c_uint32))


_U64, _U32, _INT, _PTR = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
FILL = ctypes.CFUNCTYPE(ctypes.c_bool, _PTR, _U64, _INT, ctypes.POINTER(TlbEntry), _PTR)
CODE = ctypes.CFUNCTYPE(None, _PTR, _U64, _U32, _PTR)
EDGE = ctypes.CFUNCTYPE(None, _PTR, ctypes.POINTER(_U64), ctypes.POINTER(_U64), _PTR)
INTR = ctypes.CFUNCTYPE(None, _PTR, _U32, _PTR)
PLAIN = ctypes.CFUNCTYPE(None, _PTR, _PTR)
INVALID = ctypes.CFUNCTYPE(ctypes.c_bool, _PTR, _PTR)
ACCESS = ctypes.CFUNCTYPE(None, _PTR, _INT, _U64, _INT, ctypes.c_int64, _PTR)


class Why(Enum):
    """What stopped an engine."""

    NONE = auto()
    BLOCK = auto()
    SYSCALL = auto()
    INTERRUPT = auto()
    INVALID = auto()
    FAULT = auto()
    DONE = auto()
    POINT = auto()
    SPECIAL = auto()
    RANGE = auto()


@dataclass(slots=True)
class Block:
    """What the clock knows of a block (or of one instruction)."""

    addr: int
    size: int
    count: int
    first_kind: int
    point_first: bool
    stop: bool  # never run it without looking
    only_point_first: bool
    resumable: bool  # it lies in a page that can be written


@dataclass(slots=True)
class Engine:
    """One Unicorn instance."""

    uc: int
    ran: int
    table: PageTable | None = None
    epoch: int = 0
    fills: int = 0
    crowd: int = 512
    aliasing: bool = False
    writable_code: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Fault:
    """A refused access."""

    address: int
    access: int
    why: Touch


class Core:
    """Two engines over one arena."""

    def __init__(self, arena: Arena, spec: dict[str, Any]) -> None:
        self.arena = arena
        self._spec = spec
        self._scanner = SCANNERS[spec["scanner"]]
        self._runner = Engine(spec["runner"], RAN_RUNNER)
        self._stepper = Engine(spec["stepper"], RAN_STEPPER)
        self._live = self._runner
        self._table: PageTable | None = None
        self.clock = 0
        self._limit = 0
        self._stop = self._attention = self._crowded = self._running = self._soft = False
        self._why = Why.NONE
        self._last: tuple[int, int] | None = None  # address and size of the block that runs
        self._blocks: dict[tuple[int, int], Block] = {}
        self._serial = -1
        self._pending: Block | None = None
        self._fault = Fault(0, 0, Touch.UNMAPPED)
        self._interrupt = 0
        self._steps_left = 0
        self._last_pc = self._skip_pc = self._allow_pc = NOWHERE
        self._range = (0, NEVER)
        self._error: BaseException | None = None
        self._scratch = arena.scratch_frame()
        self._probing = self._watching = self._again = False
        self._probe_page = self._probe_address = NOWHERE
        self._opened: list[tuple[int, int]] = []
        self._crossing = 0
        self._hit: tuple[int, int] | None = None
        self._undo: list[tuple[int, bytes]] = []
        self._shadows = [0] * MAX_SHADOWS
        self._exception_offset = 0
        self._counts = dict.fromkeys(("tlb_fills", "tlb_flushes", "switches", "step_runs", "runs"), 0)
        self._value = ctypes.create_string_buffer(64)
        self._masks = list(struct.iter_unpack("=4I", spec["cpuid"]))
        self._general = [number for (number,) in struct.iter_unpack("=i", spec["general"])]
        self._clobbers = list(struct.iter_unpack("=2i", spec["clobbers"]))
        self._contexts = [self._new_context(), self._new_context()]
        self._fresh = self._save(self._runner)
        self._mxcsr_offset = self._find_mxcsr(spec["mxcsr"]) if spec["mxcsr"] else 0
        for engine in (self._runner, self._stepper):
            self._ctl(engine, USE_EXITS, ctypes.c_int(1))
            self._ctl(engine, TLB_MODE, ctypes.c_int(1))
            size = ctypes.c_uint64(arena.capacity << SHIFT)
            if uclib.uc_mem_map_ptr(engine.uc, _U64(0), size, _U32(7), ctypes.c_void_p(arena.base)):
                raise RuntimeError("the engine refuses the arena")
        self._callbacks: list[Any] = []
        self._hook_all()

    def _find_mxcsr(self, register: int) -> int:
        """Return MXCSR's offset in a context: where two values written to it differ."""
        images = []
        for value in (0x5F80, 0x1F80):
            self._set(self._runner, register, value)
            images.append(self._save(self._runner))
        words = range(8, len(images[0]) - 3, 4)
        wanted = (struct.pack("=I", 0x5F80), struct.pack("=I", 0x1F80))
        return next((n for n in words if (images[0][n : n + 4], images[1][n : n + 4]) == wanted), 0)

    def sync_mxcsr(self) -> None:
        """Bring the SSE exception flags into MXCSR (core_sync_mxcsr of run.c)."""
        at = self._mxcsr_offset
        if not at:
            return
        context = bytearray(self._save(self._live))
        flags = context[at - 6]
        if flags:
            context[at] |= flags & 0x3D | (2 if flags & 0x40 else 0) | (0x10 if flags & 0x80 else 0)
            context[at - 6] = 0
            self._load(self._live, bytes(context))

    # ---- the library

    def _new_context(self) -> ctypes.c_void_p:
        context = ctypes.c_void_p()
        uclib.uc_context_alloc(self._runner.uc, ctypes.byref(context))
        return context

    def __del__(self) -> None:
        for context in getattr(self, "_contexts", ()):
            uclib.uc_context_free(context)

    def _ctl(self, engine: Engine, what: int, *arguments: Any) -> None:
        uclib.uc_ctl(ctypes.c_void_p(engine.uc), ctypes.c_int(what), *arguments)

    def _get(self, engine: Engine, reg: int) -> int:
        ctypes.memset(self._value, 0, 16)
        uclib.uc_reg_read(engine.uc, reg, self._value)
        return int.from_bytes(self._value.raw[:8], "little")

    def _set(self, engine: Engine, reg: int, value: int) -> None:
        self._value.raw = (value & NEVER).to_bytes(64, "little")
        uclib.uc_reg_write(engine.uc, reg, self._value)

    @property
    def _pc(self) -> int:
        return self._get(self._live, self._spec["pc"])

    def _save(self, engine: Engine, which: int = 0) -> bytes:
        context = self._contexts[which]
        uclib.uc_context_save(engine.uc, context)
        size = uclib.uc_context_size(engine.uc)
        return ctypes.string_at((context.value or 0) + CONTEXT_HEADER, size - CONTEXT_HEADER)

    def _load(self, engine: Engine, data: bytes) -> None:
        context = self._contexts[0]
        ctypes.memmove((context.value or 0) + CONTEXT_HEADER, data, len(data))
        uclib.uc_context_restore(engine.uc, context)

    def _hook(self, engine: Engine, kind: int, prototype: Any, function: Callable[..., Any], *extra: Any) -> None:
        core = self

        @wraps(function)
        def guarded(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except BaseException as error:
                core._error = core._error or error
                uclib.uc_emu_stop(engine.uc)
                return False

        callback = prototype(guarded)
        self._callbacks.append(callback)
        handle = ctypes.c_size_t()
        pointer = ctypes.cast(callback, ctypes.c_void_p)
        uclib.uc_hook_add(engine.uc, ctypes.byref(handle), kind, pointer, ctypes.c_void_p(0), _U64(1), _U64(0), *extra)

    def _hook_all(self) -> None:
        for engine in (self._runner, self._stepper):
            self._hook(engine, HOOK_FILL, FILL, self._fill_of(engine))
            self._hook(engine, HOOK_INTR, INTR, self._on_interrupt)
            self._hook(engine, HOOK_INVALID, INVALID, self._on_invalid)
            self._hook(engine, HOOK_EDGE, EDGE, self._on_edge)
            if self._spec["insn_syscall"]:
                self._hook(engine, HOOK_INSN, PLAIN, self._on_syscall, ctypes.c_int(self._spec["insn_syscall"]))
            if self._spec["insn_refused"]:
                self._hook(engine, HOOK_INSN, PLAIN, self._on_refused, ctypes.c_int(self._spec["insn_refused"]))
        self._hook(self._runner, HOOK_BLOCK, CODE, self._on_block)
        self._hook(self._stepper, HOOK_CODE, CODE, self._on_code)
        self._hook(self._stepper, HOOK_READ | HOOK_WRITE, ACCESS, self._on_access)

    @property
    def _space(self) -> PageTable:
        if self._table is None:
            raise RuntimeError("no address space")
        return self._table

    # ---- the clock's knowledge of blocks

    def _code_bytes(self, addr: int, n: int) -> bytes:
        out = bytearray()
        while n > 0:
            entry = self._space.pages.get(addr & ~MASK)
            if entry is None:
                break
            size = min(n, MASK + 1 - (addr & MASK))
            at = entry.frame << SHIFT | addr & MASK
            out += self.arena.memory[at : at + size]
            addr += size
            n -= size
        return bytes(out)

    def _scan_block(self, addr: int, size: int) -> Block:
        code = self._code_bytes(addr, size + self._scanner.lookahead)
        points = self._space.points
        at = n = 0
        first_kind = int(Insn.PLAIN)
        special = point = False
        while at < size and at < len(code):
            length, kind = self._scanner.scan(code[at : at + 15])
            first_kind = kind if at == 0 else first_kind
            special |= kind is not Insn.PLAIN
            point |= at > 0 and addr + at in points
            n += 1
            if length <= 0:
                break
            at += length
        first = addr in points
        entry = self._space.pages.get(addr & ~MASK)
        precise = self._scanner.loops_on_itself is not None
        writable = precise and entry is not None and bool(entry.prot & WRITE)
        stop = special or point or first
        return Block(addr, size, max(n, 1), first_kind, first, stop, first and not special and not point, writable)

    def _block(self, addr: int, size: int) -> Block:
        if self._serial != self._space.serial:
            self._blocks.clear()
            self._serial = self._space.serial
        block = self._blocks.get((addr, size))
        if block is None:
            block = self._blocks[addr, size] = self._scan_block(addr, size)
        return block

    def _count(self, start: int, end: int) -> int:
        return self._scan_block(start, end - start).count if start < end else 0

    def _loops_on_itself(self, addr: int) -> bool:
        loops = self._scanner.loops_on_itself
        return loops is not None and loops(self._code_bytes(addr, MAX_LOOP).ljust(MAX_LOOP, b"\0"))

    def _resumed(self, addr: int) -> None:
        """A store into the block that makes it leaves it and runs again alone; the clock had counted the whole."""
        if self._last is None:
            return
        start, end = self._last[0], sum(self._last)
        if not start <= addr < end or self._loops_on_itself(addr):
            return
        n = self._count(addr, end)
        if addr == start or self._count(start, addr) + n == self._count(start, end):
            self.clock -= n

    # ---- callbacks

    def _on_block(self, uc: int, addr: int, size: int, _data: int) -> None:
        block = self._block(addr, size)
        if block.resumable and block.count == 1 and self._last != (addr, size):
            self._resumed(addr)
        skipped = block.only_point_first and addr == self._skip_pc
        fits = self.clock + block.count <= self._limit or (self._soft and self.clock < self._limit)
        if (block.stop and not skipped) or not fits:
            self._pending = block
            self._why = Why.BLOCK
            uclib.uc_emu_stop(uc)
            return
        self._skip_pc = NOWHERE
        self.clock += block.count
        self._last = (addr, size)

    def _forget_block(self, addr: int) -> None:
        for key in [key for key in self._blocks if key[0] == addr]:
            del self._blocks[key]

    def _on_edge(self, _uc: int, now: Any, _before: Any, _data: int) -> None:
        self._forget_block(now[0])

    def _on_code(self, uc: int, addr: int, size: int, _data: int) -> None:
        block = self._block(addr, size if 0 < size <= 15 else 1)  # an undefined instruction has no length
        if block.resumable:  # a store into its own block: the same instruction again, once
            self._again = not self._again and addr == self._last_pc and not self._loops_on_itself(addr)
            if self._again:
                return
        start, end = self._range
        if not self._steps_left or self._attention:
            self._why = Why.DONE
        elif not start <= addr < end and self._last_pc != NOWHERE:
            self._why = Why.RANGE
        elif block.point_first and addr != self._skip_pc:
            self._why = Why.POINT
        elif block.first_kind != Insn.PLAIN and addr != self._allow_pc:
            self._pending = block
            self._why = Why.SPECIAL
        else:
            self._skip_pc = self._allow_pc = NOWHERE
            self._steps_left -= 1
            self.clock += 1
            self._last_pc = addr
            return
        uclib.uc_emu_stop(uc)

    def _on_interrupt(self, uc: int, number: int, _data: int) -> None:
        self._interrupt = number
        self._why = Why.SYSCALL if number == self._spec["syscall_interrupt"] else Why.INTERRUPT
        uclib.uc_emu_stop(uc)

    def _on_syscall(self, uc: int, _data: int) -> None:
        self._why = Why.SYSCALL
        uclib.uc_emu_stop(uc)

    def _on_refused(self, uc: int, _data: int) -> None:
        self._why = Why.INVALID
        uclib.uc_emu_stop(uc)

    def _on_invalid(self, _uc: int, _data: int) -> bool:
        self._why = Why.INVALID
        return False

    def _attend(self) -> None:
        self._attention = True
        self._limit = 0

    def _refuse(self, vaddr: int, access: int, why: Touch) -> bool:
        self._why = Why.FAULT
        self._fault = Fault(vaddr, access, why)
        return False

    def _fill_of(self, engine: Engine) -> Callable[..., bool]:
        def on_fill(_uc: int, vaddr: int, kind: int, out: Any, _data: int) -> bool:
            entry = out.contents
            if engine.aliasing:
                entry.paddr = vaddr - ALIAS
                entry.perms = EXEC
                return True
            access = WRITE if kind == MEM_WRITE else EXEC if kind == MEM_FETCH else READ
            table = self._space
            before = table.epoch
            try:
                page = table.touch(vaddr, access, may_replace_code=False)
            except Refused as refused:
                if self._probing and self._probe_page in (NOWHERE, vaddr):
                    self._probe_page = vaddr
                    entry.paddr = self._scratch << SHIFT
                    entry.perms = READ | WRITE
                    return True
                return self._refuse(vaddr, access, refused.why)
            if table.epoch != before and engine.epoch == before:
                engine.epoch = table.epoch
            self._counts["tlb_fills"] += 1
            engine.fills += 1
            if engine.fills > engine.crowd and engine is self._runner:
                self._crowded = True
                self._attend()
            perms = self._perms(engine, page, access)
            if table.watches and not self._probing:
                watched = table.page_watch(vaddr)
                free = perms & ~(READ | WRITE if watched & READ else WRITE if watched & WRITE else 0)
                if free & access:
                    perms = free
                elif engine is self._runner or not self._watching:
                    return self._refuse(vaddr, access, Touch.WATCHED)
                else:
                    self._open(vaddr, page.frame, access)
            entry.paddr = page.frame << SHIFT
            entry.perms = perms
            return True

        return on_fill

    def _perms(self, engine: Engine, page: Any, access: int) -> int:
        perms: int = page.prot & 7
        ran = self.arena.ran
        if perms & EXEC and (access == EXEC or (perms & WRITE and not page.cow)):
            if not ran.get(page.frame, 0) & engine.ran:
                if page.shared and page.frame not in ran:
                    self._space.epoch += 1  # another page may show this frame writable: look again
                    self._attend()
                ran[page.frame] = ran.get(page.frame, 0) | engine.ran
        else:
            perms &= ~EXEC
        if page.cow:
            perms &= ~WRITE
        if perms & WRITE and ran.get(page.frame, 0) & RAN:
            if access == WRITE or engine is self._runner:
                engine.writable_code.add(page.frame)
                perms |= EXEC
            else:
                perms &= ~WRITE
        return perms

    def _open(self, page: int, frame: int, access: int) -> None:
        self._opened.append((page, frame))
        if self._crossing:
            self._compare(page, self._crossing, access)
        self._crossing = 0

    def _compare(self, address: int, size: int, kind: int) -> None:
        watch = self._space.watch_hit(address, size, kind)
        if watch is None or self._hit is not None:
            return
        self._hit = (max(address, watch.start), watch.kind)
        self._steps_left = 0  # emu_stop here would repeat the store

    def _on_access(self, _uc: int, kind: int, paddr: int, size: int, _value: int, _data: int) -> None:
        frame, low = paddr >> SHIFT, paddr & MASK
        if self._probing:
            if frame == self._scratch and self._probe_address == NOWHERE:
                self._probe_address = self._probe_page | low
            return
        if not self._watching:
            return
        access = WRITE if kind == MEM_WRITE else READ
        if self._spec["reports_before"] and access == WRITE:
            self._undo.append((paddr, bytes(self.arena.memory[paddr : paddr + size])))
        self._crossing = max(low + size - MASK - 1, 0)
        for page, opened in self._opened:
            if opened == frame:
                self._compare(page | low, size, access)
            elif self._crossing and (before := self._space.pages.get(page - MASK - 1)) and before.frame == frame:
                self._compare(page, self._crossing, access)

    # ---- engines

    def _other(self, engine: Engine) -> Engine:
        return self._stepper if engine is self._runner else self._runner

    def _forget(self, engine: Engine, frame: int) -> None:
        engine.aliasing = True
        start = ALIAS + (frame << SHIFT)
        self._ctl(engine, REMOVE_CACHE, _U64(start), _U64(start + MASK + 1))
        engine.aliasing = False

    def _tell_other(self, engine: Engine) -> None:
        other = self._other(engine)
        for frame in engine.writable_code:
            if self.arena.ran.get(frame, 0) & other.ran:
                self._forget(other, frame)

    def _flush(self, engine: Engine) -> None:
        self._tell_other(engine)
        engine.writable_code.clear()
        self._ctl(engine, FLUSH_TLB)
        engine.fills = 0
        engine.epoch = self._space.epoch
        engine.table = self._space
        self._counts["tlb_flushes"] += 1

    def _enter(self, engine: Engine) -> None:
        if self._live is not engine:
            before = self._live
            uclib.uc_context_save(before.uc, self._contexts[0])
            uclib.uc_context_restore(engine.uc, self._contexts[0])
            self._live = engine
            self._counts["switches"] += 1
            if before.writable_code:
                self._tell_other(before)
                if before is self._stepper:
                    self._flush(before)
        if self.arena.stale:
            for frame in self.arena.stale:
                self._forget(self._runner, frame)
                self._forget(self._stepper, frame)
            self.arena.stale.clear()
            self._blocks.clear()
        if engine.table is not self._space or engine.epoch != self._space.epoch:
            self._flush(engine)

    def _start(self, engine: Engine) -> None:
        self._why = Why.NONE
        if self._runner.writable_code or self._stepper.writable_code:
            self._forget_block(self._pc)  # the first block of a run is not announced as new
        uclib.uc_emu_start(engine.uc, _U64(self._pc), _U64(0), _U64(0), ctypes.c_size_t(0))
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run_runner(self, until: int) -> None:
        self._enter(self._runner)
        self._last = None
        self._attention = False
        self._limit = until
        if self._stop:
            self._attend()
        self._counts["runs"] += 1
        self._start(self._runner)
        self._skip_pc = NOWHERE
        fetch = self._why is Why.FAULT and self._fault.access == EXEC
        if self._why in (Why.BLOCK, Why.SYSCALL) or self._last is None or fetch:
            return
        pc, end = self._pc, sum(self._last)
        if self._last[0] <= pc < end:
            self.clock -= self._count(pc, end)

    def _run_stepper(self, steps: int) -> None:
        self._enter(self._stepper)
        self._last_pc = NOWHERE
        self._attention = False
        if self._stop:
            self._attend()
        self._steps_left = steps
        self._counts["step_runs"] += 1
        self._start(self._stepper)
        self._allow_pc = NOWHERE
        if self._why in (Why.FAULT, Why.INTERRUPT, Why.INVALID):
            self._mend_flags()
        if self._why is Why.FAULT and self._fault.access == EXEC:
            if not self._steps_left:
                self._why = Why.DONE
        elif self._why in (Why.FAULT, Why.INTERRUPT, Why.INVALID) and self._pc == self._last_pc:
            self.clock -= 1
            self._steps_left += 1

    def _mend_flags(self) -> None:
        """See mend_flags in hooks/run.c: after a fault under a code hook CC_SRC holds the flags, CC_OP must say so."""
        if self._spec["lazy_flags_value"] >= 0:
            at, computed = self._spec["lazy_flags_offset"], struct.pack("=i", self._spec["lazy_flags_value"])
            now = self._save(self._live)
            if now[at : at + 4] != computed:
                self._load(self._live, now[:at] + computed + now[at + 4 :])

    # ---- answers

    def _step_over(self) -> bool:
        self._allow_pc = self._skip_pc = self._pc
        self._run_stepper(1)
        self._skip_pc = NOWHERE
        return self._why is Why.DONE

    def _special(self, pending: Block) -> Exit | None:
        spec, engine = self._spec, self._live
        pc = self._pc
        match Insn(pending.first_kind):
            case Insn.UNDEFINED | Insn.UNSUPPORTED | Insn.RDRAND:
                return cast(Exit, spec["Undefined"](pc))
            case Insn.PRIVILEGED:
                return cast(Exit, spec["Privileged"](pc))
            case Insn.RDTSC | Insn.RDTSCP as kind:
                self._set(engine, self._general[RAX], self.clock & 0xFFFFFFFF)
                self._set(engine, self._general[RDX], self.clock >> 32)
                if kind is Insn.RDTSCP:
                    self._set(engine, self._general[RCX], 0)
                self._set(engine, spec["pc"], pc + pending.size)
                self.clock += 1
            case Insn.COUNTER:
                target = self._code_bytes(pc, 4)[0] & 31
                if target != 31:
                    self._set(engine, self._general[target], self.clock)
                self._set(engine, spec["pc"], pc + 4)
                self.clock += 1
            case Insn.CPUID:
                leaf, subleaf = (self._get(engine, self._general[n]) & 0xFFFFFFFF for n in (RAX, RCX))
                if self._step_over():
                    self._mask_cpuid(leaf, subleaf)
            case Insn.MXCSR:
                self.sync_mxcsr()
                self._step_over()
            case Insn.POPF:
                if self._step_over():
                    flags = self._get(self._live, spec["flags"])
                    self._set(self._live, spec["flags"], flags & ~0x1A7000 | 0x202)
            case _:
                self._step_over()
        return None if self._why in (Why.DONE, Why.SPECIAL) else self._answer(NEVER)

    def _mask_cpuid(self, leaf: int, subleaf: int) -> None:
        for mask_leaf, mask_subleaf, register, clear in self._masks:
            if mask_leaf == leaf and (leaf not in (4, 7, 0xB, 0xD) or mask_subleaf == subleaf):
                old = self._get(self._live, self._general[register])
                self._set(self._live, self._general[register], old & ~clear & 0xFFFFFFFF)

    def _locate(self) -> None:
        """Find a fault's exact address: execute once more with a scratch frame in place of the page."""
        fault, why, clock = self._fault, self._why, self.clock
        pc = self._pc
        if fault.access == EXEC:
            fault.address = pc if pc & ~MASK == fault.address else fault.address
            return
        kept = self._save(self._live)
        self._enter(self._stepper)
        self._flush(self._stepper)
        table = self._space
        pages = (fault.address - (1 << SHIFT), fault.address + (1 << SHIFT))
        beside = [page for page in pages if 0 <= page < 1 << 48 and table.resident(page, 1 << SHIFT)[0] & 1]
        bytes_beside = [table.read(page, 1 << SHIFT, force=True) for page in beside]
        self._probing = True
        self._probe_page = self._probe_address = NOWHERE
        self._step_over()
        self._probing = False
        if fault.access == WRITE:  # a straddling store leaves no byte in the neighbours
            for at, old in zip(beside, bytes_beside, strict=True):
                if table.read(at, 1 << SHIFT, force=True) != old:
                    table.write(at, old, force=True)
        self._load(self._stepper, kept)
        self._flush(self._stepper)
        if self._probe_page == fault.address and self._probe_address != NOWHERE:
            fault.address = self._probe_address
        self._fault, self._why, self.clock = fault, why, clock

    def _watch(self) -> Exit | None:
        """Let the stepper execute the instruction at pc with the watched pages open."""
        clock, kept = self.clock, self._save(self._live)
        self._hit = None
        self._opened.clear()
        self._undo.clear()
        self._crossing = 0
        self._watching = True
        self._skip_pc = self._pc
        self._run_stepper(1)
        self._skip_pc = NOWHERE
        self._watching = False
        if self._opened:
            self._flush(self._stepper)
        if self._hit is None or self._why is Why.FAULT:
            return None
        if self._spec["reports_before"]:
            for paddr, old in reversed(self._undo):
                self.arena.memory[paddr : paddr + len(old)] = old
            self._load(self._live, kept)
            self.clock = clock
        return cast(Exit, self._spec["WatchHit"](*self._hit))

    def _forget_exception(self) -> None:
        """See forget_exception in hooks/run.c."""
        if not self._spec["contributory"]:
            return
        now = self._save(self._live)
        number = self._interrupt
        if not self._exception_offset and self._spec["contributory"] >> number & 1:
            wanted, none = struct.pack("=i", number), struct.pack("=i", -1)
            for at in range(0, len(now) - 3, 4):
                if self._fresh[at : at + 4] == none and now[at : at + 4] == wanted:
                    self._exception_offset = at
        at = self._exception_offset
        if at:
            self._load(self._live, now[:at] + struct.pack("=i", -1) + now[at + 4 :])

    def _edge(self, pc: int, page: int) -> int:
        code = self._code_bytes(pc, page - pc)
        at = pc
        while at < page and at - pc < len(code):
            length, _ = self._scanner.scan(code[at - pc : at - pc + 15])
            if length <= 0:
                break
            at += length
        return at

    def _run_up_to_page(self, until: int) -> bool:
        """See run_up_to_page in hooks/run.c."""
        fault, clock, pc = self._fault, self.clock, self._pc
        near = fault.access == EXEC and pc < fault.address <= pc + MASK + 1
        edge = self._edge(pc, fault.address) if near else pc
        if edge <= pc:
            return False
        exits = (_U64 * 1)(edge)
        self._ctl(self._stepper, EXITS, exits, ctypes.c_size_t(1))
        self._run_stepper(until - clock)
        self._ctl(self._stepper, EXITS, exits, ctypes.c_size_t(0))
        if self.clock != clock:
            return True
        self._why, self._fault = Why.FAULT, fault
        return False

    def _answer_fault(self) -> Exit | None:
        fault = self._fault
        if fault.why is Touch.RAN_COW:
            try:
                self._space.touch(fault.address, fault.access)
            except Refused as refused:
                fault.why = refused.why
            else:
                return None
        self._locate()
        if fault.why is Touch.NOMEM:
            raise LinuxError(E.ENOMEM)
        if fault.why is Touch.BUS:
            return cast(Exit, self._spec["BusError"](fault.address))
        return cast(Exit, self._spec["PageFault"](fault.address, fault.access, fault.why is not Touch.UNMAPPED))

    def _stopped_by(self, why: Why) -> bool:
        return self._why is why

    def _answer(self, until: int) -> Exit | None:
        """Return what the last engine run means, None to go on."""
        spec = self._spec
        if self._why is Why.FAULT and self._fault.why is Touch.WATCHED:
            got = self._watch()
            if got is not None:
                return got
            if self._stopped_by(Why.FAULT) and self._fault.why is Touch.WATCHED:
                return None
        match self._why:
            case Why.SYSCALL:
                return self._syscall()
            case Why.FAULT:
                return self._answer(until) if self._run_up_to_page(until) else self._answer_fault()
            case Why.INTERRUPT:
                self._forget_exception()
                return cast(Exit, spec["Interrupt"](self._interrupt))
            case Why.INVALID:
                return cast(Exit, spec["Undefined"](self._pc))
            case Why.POINT:
                return cast(Exit, spec["BreakpointHit"](self._pc))
            case Why.SPECIAL if self._pending is not None:
                return self._special(self._pending)
            case Why.RANGE:
                return cast(Exit, spec["RANGE_DONE"])
            case _:
                return None

    def _syscall(self) -> Exit:
        spec, engine = self._spec, self._live
        for to, of in self._clobbers:
            self._set(engine, to, self._get(engine, of))
        number = self._get(engine, spec["nr"])
        number -= (number >> 63) << 64
        return cast(Exit, spec["Syscall"](number, tuple(self._get(engine, spec[f"arg{n}"]) for n in range(6))))

    # ---- what Cpu calls

    def _finish(self, got: Exit) -> Exit:
        called = type(got) is self._spec["Syscall"]
        self._shadows[self._spec["saved_shadow"]] = cast(Any, got).number & NEVER if called else NEVER
        if got is self._spec["STOP_REQUESTED"]:
            self._stop = False
        return got

    def _begin(self) -> None:
        if self._running:
            raise RuntimeError("the CPU is running")
        self._space  # noqa: B018 - raises without one

    def run(self, until: int, skip_breakpoint: bool = False, soft: bool = False, /) -> Exit:
        """Run until the clock says so or something happens; `soft` lets the block that passes `until` end."""
        self._soft = soft
        self._begin()
        self._skip_pc = self._pc if skip_breakpoint and self._pc in self._space.points else NOWHERE
        self._running = True
        try:
            return self._finish(self._run_until(until))
        finally:
            self._running = False

    def serve_for(self, entries: dict[int, Any], events: Any, queue: Any, _task: type, _call: type, /) -> None:
        """Tell `serve` the kernel's objects."""
        self._served = (entries, events, queue)

    def serve(self, task: Any, until: int, /) -> Any:
        """Run, and make the plain system calls on the way.

        Returns an exit, an exception that a handler raised, or what it returned if that is not its result.
        """
        entries, events, queue = self._served
        while True:
            reason = self.run(until, False, not queue)
            if type(reason) is not self._spec["Syscall"] or task.watch_calls:
                return reason
            number, args = cast(Any, reason)
            entry = entries.get(number)
            if entry is None:
                return reason
            call = task.call
            call.number, call.args = number, args
            try:
                result = entry(task, args)
            except Exception as error:
                return error
            if result is not None and not isinstance(result, int):
                return result
            self.set_syscall_result((result or 0) & NEVER)
            call.memo = call.deadline_ns = None
            if task.attention or events or task.watch_calls or task.special or task.stepping is not None:
                return self._spec["SERVED"]

    def _run_until(self, until: int) -> Exit:
        while True:
            if self._stop:
                return cast(Exit, self._spec["STOP_REQUESTED"])
            if self.clock >= until:
                return cast(Exit, self._spec["BUDGET"])
            skip, clock = self._skip_pc, self.clock
            self._run_runner(until)
            if self.clock == clock:
                self._skip_pc = skip  # nothing ran yet
            self._range = (0, NEVER + 1)
            if self._why is Why.BLOCK and self._pending is not None:
                if self._crowded:
                    self._crowded = False
                    self._flush(self._runner)
                    self._runner.crowd = min(self._runner.crowd * 2, 1 << 19)
                if self._attention or self.clock >= until:
                    continue
                self._run_stepper(min(self._pending.count, until - self.clock))
                self._skip_pc = NOWHERE
            got = self._answer(until)
            if got is not None:
                return got

    def step(self, count: int = 1, skip_breakpoint: bool = True, /) -> Exit:
        """Execute exactly that many instructions."""
        return self.step_range(0, NEVER + 1, self.clock + count, skip_breakpoint)

    def step_range(self, start: int, end: int, until: int, skip_breakpoint: bool = True, /) -> Exit:
        """Step while start <= pc < end."""
        self._begin()
        self._skip_pc = self._pc if skip_breakpoint else NOWHERE
        self._running = True
        try:
            return self._finish(self._step_until(start, end, until))
        finally:
            self._running = False

    def _step_until(self, start: int, end: int, until: int) -> Exit:
        first = True
        while True:
            if self._stop:
                return cast(Exit, self._spec["STOP_REQUESTED"])
            if self.clock >= until:
                return cast(Exit, self._spec["BUDGET"])
            if not first and not start <= self._pc < end:
                return cast(Exit, self._spec["RANGE_DONE"])
            first = False
            self._range = (start, end)
            self._run_stepper(until - self.clock)
            got = self._answer(until)
            if got is not None:
                return got

    def request_stop(self) -> None:
        """Make the run that goes on, or the next, come back."""
        self._stop = True
        self._attend()

    def activate(self, table: PageTable, /) -> None:
        """Switch the address space."""
        if table.arena is not self.arena:
            raise ValueError("the page table belongs to another arena")
        if self._running:
            raise RuntimeError("the CPU is running")
        self._table = table

    def read_reg(self, number: int, size: int, /) -> int:
        """Return a register by Unicorn's number."""
        ctypes.memset(self._value, 0, 64)
        uclib.uc_reg_read(self._live.uc, number, self._value)
        return int.from_bytes(self._value.raw[:size], "little")

    def write_reg(self, number: int, size: int, value: int, /) -> None:
        """Write a register by Unicorn's number."""
        self._value.raw = value.to_bytes(size, "little").ljust(64, b"\0")
        uclib.uc_reg_write(self._live.uc, number, self._value)

    def read_regs(self, plan: bytes, /) -> bytes:
        """Return many registers' bytes; a negative number is a shadow."""
        out = b""
        for number, size in struct.iter_unpack("=2i", plan):
            value = self._shadows[-1 - number] if number < 0 else self.read_reg(number, size)
            out += value.to_bytes(size, "little")
        return out

    def write_regs(self, plan: bytes, data: bytes, /) -> None:
        """Write many registers."""
        at = 0
        for number, size in struct.iter_unpack("=2i", plan):
            value = int.from_bytes(data[at : at + size], "little")
            at += size
            if number < 0:
                self._shadows[-1 - number] = value
            else:
                self.write_reg(number, size, value)

    def set_syscall_result(self, value: int, /) -> None:
        """Write the result register."""
        self._set(self._live, self._spec["result"], value)

    def save(self) -> bytes:
        """Return the guest's registers."""
        return self._save(self._live) + struct.pack(f"={MAX_SHADOWS}Q", *self._shadows)

    def load(self, context: bytes, /) -> None:
        """Put saved registers back."""
        if len(context) != len(self._fresh) + 8 * MAX_SHADOWS:
            raise ValueError("not a context of this CPU")
        self._load(self._live, context[: len(self._fresh)])
        self._shadows = list(struct.unpack(f"={MAX_SHADOWS}Q", context[len(self._fresh) :]))

    def switch(self, context: bytes, table: PageTable, /) -> bytes:
        """Other registers and address space; return the registers of before."""
        mine = self.save()
        self.load(context)
        self.activate(table)
        return mine

    @property
    def table(self) -> PageTable | None:
        """The active address space."""
        return self._table

    def stats(self) -> dict[str, int]:
        """Return counters."""
        return dict(self._counts)
