"""The CPU: two Unicorn engines over one arena, seen as one.

The runner runs freely, the stepper counts every instruction; the hook module moves the guest's state between them.
What Unicorn 2.1.4 gets wrong or slow is dealt with here and in hooks/; docs of each quirk stand where it is handled.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NewType

from unicorn.unicorn_py3.unicorn import Uc, uclib

from emulator.abi.memory import Access
from emulator.cpu import exits, mmu
from emulator.cpu.exits import Exit, WatchHit, WatchKind
from emulator.cpu.registers import Codec, Layout, RegisterFile, Slot, uc_constant, uc_register

if TYPE_CHECKING:
    from emulator.arch.model import Arch
    from emulator.cpu.mmu import Arena, PageTable

Context = NewType("Context", bytes)

_FUNCTIONS = (
    "uc_emu_start", "uc_emu_stop", "uc_reg_read", "uc_reg_write", "uc_hook_add", "uc_ctl", "uc_mem_map_ptr",
    "uc_context_alloc", "uc_context_save", "uc_context_restore", "uc_context_size", "uc_context_free",
)  # fmt: skip
_CPUID_REGISTERS = ("EAX", "ECX", "EDX", "EBX")  # their places in CpuModel.general
_ACCESS = {access.value: access for access in Access}
# hooks: bit 0 a load, bit 1 a store
_HOOK_KIND = {WatchKind.WRITE: 2, WatchKind.READ: 1, WatchKind.ACCESS: 3}
_WATCH_KIND = {2: WatchKind.WRITE, 1: WatchKind.READ, 3: WatchKind.ACCESS}

MAX_SHADOWS = 16  # engine.h
_I_UNSUPPORTED = 2  # enum Insn of hooks.h

_CHECK = re.compile(rb"\x48\x8b\xb7....\x80\xbe(....)\x00\x74", re.DOTALL)


def spare_exit_checks(arch: Arch, engine: Uc) -> bool:
    """Leave out the call that asks for a stop after every guest load and store; return whether that was possible.

    Unicorn emits it because an access may stop the emulation half-way.  Here it cannot: a refused access leaves the
    block by longjmp (unicorn_fill_tlb), there are no memory hooks in the runner, and every block start asks again.  It
    costs half of the speed of memory-bound code.  The engine's own switch for it, `uc_struct.no_exit_request`, has no
    API: its place is read out of the exported function that tests it, `mov rsi, [rdi + UC]; cmp byte [rsi + X], 0`.
    Where the code does not look like that (another build, another host) nothing is touched.
    """
    try:
        function = getattr(uclib, f"check_exit_request_{arch.cpu.uc_target}")
    except AttributeError:
        return False
    match = _CHECK.match(ctypes.string_at(ctypes.cast(function, ctypes.c_void_p).value or 0, 15))
    if not match:
        return False
    ctypes.memset((engine._uch.value or 0) + int.from_bytes(match[1], "little"), 1, 1)
    return True


class Cpu:
    """One virtual CPU.  Not thread-safe, except `request_stop`."""

    def __init__(self, arch: Arch, arena: Arena, *, hooks: str = "auto") -> None:
        if hooks not in ("auto", mmu.HOOKS_KIND):
            raise ValueError(f"this process uses the {mmu.HOOKS_KIND} hooks (EMUGDB_HOOKS)")
        self.arch = arch
        self.arena = arena
        self.hooks_kind = mmu.HOOKS_KIND
        self._layout = Layout(arch)
        self._codecs: dict[tuple[str, ...], Codec] = {}
        engines = (self._new_engine(), self._new_engine())
        spare_exit_checks(arch, engines[0])
        self._core = mmu.backend.Core(arena, self._spec(*engines))
        for engine in engines:
            for system in arch.cpu.system:
                number = uc_register(arch, "CP_REG")
                engine.reg_write(number, (*system.key, engine.reg_read(number, system.key) | system.set_bits))
            for name, value in arch.cpu.setup:
                engine.reg_write(uc_register(arch, name), value)
        for register in arch.registers:
            if register.initial:
                self.write(register.name, register.initial)
        if arch.cpu.selectors:
            self._set_selectors(arch.cpu.selectors)
        # The hot ones are the hook module's own methods.
        self.core = self._core  # for loops that read `core.clock` at every turn
        self.run: Callable[..., Exit] = self._core.run
        self.serve: Callable[..., Exit | Exception | object] = self._core.serve
        self.step: Callable[..., Exit] = self._core.step
        self.step_range: Callable[..., Exit] = self._core.step_range
        self.request_stop: Callable[[], None] = self._core.request_stop
        self.set_syscall_result: Callable[[int], None] = self._core.set_syscall_result
        self.stats: Callable[[], dict[str, int]] = self._core.stats

    def _new_engine(self) -> Uc:
        cpu = self.arch.cpu
        engine = Uc(uc_constant(cpu.uc_arch), uc_constant(cpu.uc_mode), cpu=uc_constant(cpu.uc_model))
        if cpu.set_page_size:
            engine.ctl_set_page_size(mmu.PAGE)
        return engine

    def _spec(self, runner: Uc, stepper: Uc) -> dict[str, Any]:
        """Return what the hook module has to know: numbers, packed arrays (engine.h), the exits' constructors."""
        arch = self.arch
        cpu = arch.cpu
        convention = arch.convention

        def number(name: str) -> int:
            return uc_register(arch, arch.register[name].uc) if name else 0

        masks = [(m.leaf, m.subleaf, _CPUID_REGISTERS.index(m.register), m.clear) for m in cpu.cpuid]
        return {
            **{name: ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value for name in _FUNCTIONS},
            **{f"arg{n}": number(name) for n, name in enumerate(convention.args)},
            "runner": runner._uch.value,
            "stepper": stepper._uch.value,
            "runner_owner": runner,
            "stepper_owner": stepper,
            "pc": number(arch.pc),
            "nr": number(convention.number),
            "result": number(convention.result),
            "flags": number(cpu.flags),
            "mxcsr": number(cpu.sse_status),
            "general": b"".join(struct.pack("=i", number(name)) for name in cpu.general),
            "clobbers": b"".join(struct.pack("=2i", number(to), number(of)) for to, of in convention.clobbers),
            "syscall_interrupt": cpu.syscall_interrupt,
            "syscall_length": convention.insn_length,
            "insn_syscall": uc_constant(cpu.syscall_insn),
            "insn_refused": uc_constant(cpu.refused_insn),
            "scanner": cpu.scanner,
            "lazy_flags_offset": cpu.lazy_flags.offset if cpu.lazy_flags else 0,
            "lazy_flags_value": cpu.lazy_flags.computed if cpu.lazy_flags else -1,
            "contributory": sum(1 << exception for exception in cpu.contributory),
            "reports_before": int(arch.watch_reports_before),
            "saved_shadow": -1 - self._layout.slots[convention.saved].number if convention.saved else MAX_SHADOWS - 1,
            "cpuid": b"".join(struct.pack("=4I", *mask) for mask in masks),
            "Syscall": exits.Syscall,
            "PageFault": lambda address, access, mapped: exits.PageFault(address, _ACCESS[access], mapped),
            "BusError": exits.BusError,
            "Interrupt": exits.Interrupt,
            "Undefined": self._undefined,
            "Privileged": exits.Privileged,
            "BreakpointHit": exits.BreakpointHit,
            "WatchHit": lambda address, kind: WatchHit(address, _WATCH_KIND[kind]),
            "BUDGET": exits.Simple.BUDGET,
            "RANGE_DONE": exits.Simple.RANGE_DONE,
            "STOP_REQUESTED": exits.Simple.STOP_REQUESTED,
            "SERVED": exits.Simple.SERVED,
        }

    def _undefined(self, address: int) -> exits.Undefined:
        """Name an instruction that the engine does not execute although the guest's hardware might."""
        table, cpu = self._core.table, self.arch.cpu
        code = table.read_partial(address, 15, force=True) if table is not None else b""
        if mmu.backend.scan(cpu.scanner, code)[1] != _I_UNSUPPORTED:
            return exits.Undefined(address, "")
        import capstone

        machine = capstone.Cs(*(getattr(capstone, name) for name in cpu.capstone))
        words = next((f"{m} {ops}".strip() for _, _, m, ops in machine.disasm_lite(code, address, 1)), code.hex(" "))
        return exits.Undefined(address, f"{words}: {cpu.remedy}")

    # ---- address spaces

    def activate(self, table: PageTable) -> None:
        """Switch to an address space."""
        self._core.activate(table)

    def invalidate_code(self, table: PageTable, start: int, length: int) -> None:
        """Forget translations of code the host changed behind `PageTable.write`'s back."""
        table.invalidate_code(start, length)

    # ---- time

    @property
    def clock(self) -> int:
        """Instructions retired since power-on."""
        return self._core.clock

    @clock.setter
    def clock(self, value: int) -> None:
        self._core.clock = value

    # ---- registers

    def _slot(self, name: str) -> Slot:
        layout = self._layout
        if layout.has_stack and name in layout.stack:
            status = layout.slots[layout.status]
            name = layout.physical(name, self._core.read_reg(status.number, status.size))
        return layout.slots[name]

    def read(self, name: str) -> int:
        """Return a register of the loaded context.  Raises KeyError."""
        slot = self._slot(name)
        if name == "mxcsr":
            self._core.sync_mxcsr()
        if slot.number < 0:
            return int.from_bytes(self._core.read_regs(struct.pack("=2i", slot.number, 8)), "little")
        return self._core.read_reg(slot.number, slot.size)

    def write(self, name: str, value: int) -> None:
        """Change a register of the loaded context; superfluous bits are dropped.  Raises KeyError."""
        slot = self._slot(name)
        value &= self._layout.masks[name]
        if name == "mxcsr":
            self._core.sync_mxcsr()
        if slot.number < 0:
            self._core.write_regs(struct.pack("=2i", slot.number, 8), value.to_bytes(8, "little"))
        else:
            self._core.write_reg(slot.number, slot.size, value)

    def _codec(self, names: tuple[str, ...]) -> Codec:
        codec = self._codecs.get(names)
        if codec is None:
            codec = self._codecs[names] = Codec(self._layout, names)
        return codec

    def read_many(self, names: tuple[str, ...]) -> list[int]:
        """Return several registers of the loaded context in one go: the whole x87 stack with fstat, or none of it."""
        codec = self._codec(names)
        if "mxcsr" in names:
            self._core.sync_mxcsr()
        return codec.decode(self._core.read_regs(codec.plan))

    def write_many(self, values: Mapping[str, int]) -> None:
        """Change several registers of the loaded context in one go."""
        codec = self._codec(tuple(values))
        if "mxcsr" in values:
            self._core.sync_mxcsr()
        self._core.write_regs(codec.plan, codec.encode(values.values()))

    def read_file(self) -> RegisterFile:
        """Capture every register."""
        self._core.sync_mxcsr()
        return RegisterFile(self._layout, self._core.read_regs(self._layout.plan))

    def write_file(self, file: RegisterFile) -> None:
        """Write every register."""
        self._core.sync_mxcsr()
        self._core.write_regs(self._layout.plan, file.data)

    # ---- contexts

    def save(self) -> Context:
        """Return the loaded context."""
        return Context(self._core.save())

    def load(self, context: Context) -> None:
        """Replace the loaded context."""
        self._core.load(context)

    def registers_of(self, context: Context) -> RegisterFile:
        """Capture the registers of a context that is not loaded."""
        mine = self._core.save()
        self._core.load(context)
        try:
            return self.read_file()
        finally:
            self._core.load(mine)

    def with_registers(self, context: Context, file: RegisterFile) -> Context:
        """Return `context` with other registers."""
        mine = self._core.save()
        self._core.load(context)
        try:
            self.write_file(file)
            return Context(self._core.save())
        finally:
            self._core.load(mine)

    def _set_selectors(self, selectors: tuple[tuple[int, str], ...]) -> None:
        """Put the selectors a user process has into the engine, where `mov %cs, %eax` finds them.

        Unicorn would load them from a descriptor table, and there is none.  env->segs is an array of {selector, base,
        limit, flags} of 24 bytes in the order es cs ss ds fs gs; the base of fs can be written, so it can be found.
        """
        magic = 0x0123_4567_89AB_CDEF
        self.write("fs_base", magic)
        context = bytearray(self.save())
        fs_base = context.find(magic.to_bytes(8, "little"))
        self.write("fs_base", 0)
        if fs_base < 104 or context.count(magic.to_bytes(8, "little")) != 1:
            return
        context = bytearray(self.save())
        for index, name in selectors:
            at = fs_base - 8 + (index - 4) * 24
            context[at : at + 4] = self.arch.register[name].initial.to_bytes(4, "little")
        self.load(Context(bytes(context)))

    # ---- points

    def insert_breakpoint(self, table: PageTable, address: int) -> None:
        """Stop before the instruction at `address`; inserting twice is inserting once."""
        table.insert_point(address)

    def remove_breakpoint(self, table: PageTable, address: int) -> None:
        """Forget a breakpoint; one that is not there is no error."""
        table.remove_point(address)

    def insert_watchpoint(self, table: PageTable, start: int, length: int, kind: WatchKind) -> None:
        """Stop when [start, start + length) is touched; counted, remove as often.  Raises ValueError."""
        table.insert_watch(start, length, _HOOK_KIND[WatchKind(kind)])

    def remove_watchpoint(self, table: PageTable, start: int, length: int, kind: WatchKind) -> None:
        """Undo one `insert_watchpoint`."""
        table.remove_watch(start, length, _HOOK_KIND[WatchKind(kind)])

    def take_kernel_hits(self) -> list[WatchHit]:
        """Return the first stores of the kernel side into watched ranges of the active table since the last call."""
        table = self._core.table
        return [] if table is None else [WatchHit(address, _WATCH_KIND[kind]) for address, kind in table.take_hits()]
