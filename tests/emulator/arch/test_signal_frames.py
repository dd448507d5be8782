"""Signal frames: what push saves, pop restores; a hostile frame is refused, not believed."""

from __future__ import annotations

import struct

import pytest

from emulator.abi.memory import Access
from emulator.abi.signals import SEGV_MAPERR, SS_AUTODISARM, AltStack, Sa, Siginfo, Signal, SignalAction
from emulator.arch import AARCH64, ARCHES, X86_64, Arch
from emulator.arch.model import BadFrame, Delivery, Fault, FaultKind
from emulator.errors import MemoryFault
from tests.emulator.arch.fakes import Memory, Registers

STACK = 0x7000_0000
SIZE = 0x8000
HANDLER, RESTORER, TRAMPOLINE = 0x40_1000, 0x40_2000, 0x7FFF_0000
ACTION = SignalAction(HANDLER, Sa.SIGINFO | Sa.RESTORER, RESTORER, 0)
INFO = Siginfo(Signal.SIGSEGV, SEGV_MAPERR, addr=0x1234).pack()
NO_ALTSTACK = AltStack()
UNSAVED = {"orig_rax", "fs_base", "gs_base", "ds", "es", "fs", "gs", "tpidr"}


def machine(arch: Arch, seed: int = 7) -> tuple[Registers, Memory]:
    regs = Registers(arch, seed)
    regs.write(arch.sp, STACK + SIZE - 0x123)
    if arch is AARCH64:
        regs.write("sp", STACK + SIZE - 0x130)
    else:
        regs.write("cs", 0x33)
        regs.write("ss", 0x2B)
        regs.write("mxcsr", 0x1F80)
        regs.write("fctrl", 0x37F)
        regs.write("ftag", 0xFFFF)
        regs.write("eflags", 0x202 | 0x400 | 0x85)
        for name in ("fiseg", "foseg", "fop", "fstat"):
            regs.write(name, 0)
    return regs, Memory(STACK, SIZE)


def push(
    arch: Arch,
    regs: Registers,
    memory: Memory,
    action: SignalAction = ACTION,
    altstack: AltStack = NO_ALTSTACK,
    fault: Fault | None = None,
) -> None:
    arch.signal_frame.push(regs, memory, Delivery(action, 11, INFO, 0x5, altstack, TRAMPOLINE, fault))


def return_from(arch: Arch, regs: Registers) -> None:
    """What the handler's `ret` does on the way to the restorer."""
    if arch is X86_64:
        regs.write("rsp", regs.read("rsp") + 8)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_round_trip(arch: Arch) -> None:
    regs, memory = machine(arch)
    before = dict(regs.values)
    push(arch, regs, memory)
    assert regs.read(arch.pc) == HANDLER
    assert regs.read(arch.convention.args[0] if arch is X86_64 else "x0") == 11
    saved = dict(regs.values)
    return_from(arch, regs)
    for register in arch.registers:  # the handler uses everything else
        if register.name not in (arch.sp, *UNSAVED, "eflags"):
            regs.write(register.name, 0)
    if arch is X86_64:
        regs.write("eflags", 0x202)
    restored = arch.signal_frame.pop(regs, memory)
    assert restored.mask == 0x5
    assert restored.altstack == NO_ALTSTACK
    differ = {n: (hex(before[n]), hex(v)) for n, v in regs.values.items() if v != before[n] and n not in UNSAVED}
    assert differ == {}
    assert saved != before


def test_x86_entry() -> None:
    regs, memory = machine(X86_64)
    old_sp = regs.read("rsp")
    push(X86_64, regs, memory, fault=Fault(FaultKind.PAGE, 0x1234, Access.WRITE, mapped=True))
    sp = regs.read("rsp")
    assert sp % 16 == 8
    assert memory.read(sp, 8) == struct.pack("<Q", RESTORER)
    assert regs.read("rsi") == sp + 312
    assert memory.read(regs.read("rsi"), 128) == INFO
    assert regs.read("rdx") == sp + 8
    assert regs.read("eflags") & 0x400 == 0
    assert regs.read("mxcsr") == 0x1F80
    (fpstate,) = struct.unpack("<Q", memory.read(sp + 8 + 40 + 184, 8))
    assert fpstate % 64 == 0
    assert fpstate + 580 <= old_sp - 128
    magic1, extended, features, size = struct.unpack("<IIQI", memory.read(fpstate + 464, 20))
    assert (magic1, extended, features, size) == (0x46505853, 580, 3, 576)
    assert memory.read(fpstate + 576, 4) == struct.pack("<I", 0x46505845)
    err, trapno, _, cr2 = struct.unpack("<4Q", memory.read(sp + 8 + 40 + 152, 32))
    assert (err, trapno, cr2) == (7, 14, 0x1234)


def test_x86_without_restorer_is_a_fault() -> None:
    regs, memory = machine(X86_64)
    before = dict(regs.values)
    with pytest.raises(MemoryFault):
        push(X86_64, regs, memory, SignalAction(HANDLER, Sa.SIGINFO))
    assert regs.values == before


def test_x86_handlers_change_what_is_restored() -> None:
    regs, memory = machine(X86_64)
    push(X86_64, regs, memory)
    ucontext = regs.read("rdx")
    memory.write(ucontext + 40 + 128, struct.pack("<QQ", 0xDEAD000, (1 << 17) | 0x202 | 0x41))  # rip; VM is not theirs
    (fpstate,) = struct.unpack("<Q", memory.read(ucontext + 40 + 184, 8))
    memory.write(fpstate + 160, b"\x11" * 16)
    return_from(X86_64, regs)
    X86_64.signal_frame.pop(regs, memory)
    assert regs.read("rip") == 0xDEAD000
    assert regs.read("eflags") & (1 << 17) == 0
    assert regs.read("eflags") & 0x41 == 0x41
    assert regs.read("xmm0") == int.from_bytes(b"\x11" * 16, "little")


def test_x86_hostile_frames() -> None:
    for at, new in ((40 + 144, b"\x23\x00"), (40 + 150, b"\x10\x00")):  # cs, ss
        regs, memory = machine(X86_64)
        push(X86_64, regs, memory)
        memory.write(regs.read("rdx") + at, new)
        return_from(X86_64, regs)
        with pytest.raises(BadFrame):
            X86_64.signal_frame.pop(regs, memory)
    regs, memory = machine(X86_64)
    push(X86_64, regs, memory)
    (fpstate,) = struct.unpack("<Q", memory.read(regs.read("rdx") + 40 + 184, 8))
    memory.write(fpstate + 24, b"\xff\xff\xff\xff")  # reserved bits of mxcsr
    return_from(X86_64, regs)
    with pytest.raises(BadFrame):
        X86_64.signal_frame.pop(regs, memory)


def test_x86_null_fpstate_resets() -> None:
    regs, memory = machine(X86_64)
    push(X86_64, regs, memory)
    memory.write(regs.read("rdx") + 40 + 184, bytes(8))
    return_from(X86_64, regs)
    regs.write("xmm3", 99)
    X86_64.signal_frame.pop(regs, memory)
    assert regs.read("xmm3") == 0


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_altstack(arch: Arch) -> None:
    regs, _ = machine(arch)
    memory = Memory(0x5000_0000, 0x4000)
    alternate = AltStack(0x5000_0000, 0, 0x4000)
    on_stack = SignalAction(HANDLER, Sa.SIGINFO | Sa.RESTORER | Sa.ONSTACK, RESTORER)
    push(arch, regs, memory, on_stack, alternate)
    first = regs.read(arch.sp)
    assert alternate.contains(first)
    push(arch, regs, memory, on_stack, alternate)  # nested: stays on it, below
    assert 0x5000_0000 < regs.read(arch.sp) < first
    return_from(arch, regs)
    assert arch.signal_frame.pop(regs, memory).altstack == alternate


def test_x86_altstack_overflow() -> None:
    regs, _ = machine(X86_64)
    small = AltStack(0x5000_0000, 0, 512)
    on_stack = SignalAction(HANDLER, Sa.SIGINFO | Sa.RESTORER | Sa.ONSTACK, RESTORER)
    with pytest.raises(MemoryFault):
        push(X86_64, regs, Memory(0x4FFF_0000, 0x2_0000), on_stack, small)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_unmapped_stack(arch: Arch) -> None:
    regs, _ = machine(arch)
    before = dict(regs.values)
    with pytest.raises(MemoryFault):
        push(arch, regs, Memory(0, 16))
    assert regs.values == before
    regs.write(arch.sp, 64)
    with pytest.raises(MemoryFault):
        push(arch, regs, Memory(0, 16))


def test_aarch64_entry() -> None:
    regs, memory = machine(AARCH64)
    old_sp, fp, lr = regs.read("sp"), regs.read("x29"), regs.read("x30")
    fault = Fault(FaultKind.PAGE, 0x1234, Access.WRITE, mapped=False)
    push(AARCH64, regs, memory, SignalAction(HANDLER, Sa.SIGINFO), fault=fault)
    sp = regs.read("sp")
    assert sp % 16 == 0
    assert regs.read("x30") == TRAMPOLINE + 4
    assert AARCH64.layout.signal_page[4:12] == bytes.fromhex("681180d2010000d4")
    assert regs.read("x29") == old_sp - 16
    assert struct.unpack("<QQ", memory.read(old_sp - 16, 16)) == (fp, lr)
    assert regs.read("x1") == sp
    assert regs.read("x2") == sp + 128
    assert struct.unpack("<Q", memory.read(sp + 128 + 176, 8)) == (0x1234,)
    records = sp + 128 + 176 + 288
    assert struct.unpack("<II", memory.read(records, 8)) == (0x46508001, 528)
    assert struct.unpack("<IIQ", memory.read(records + 528, 16)) == (0x45535201, 16, 0x92000047)
    assert memory.read(records + 544, 16) == bytes(16)


def test_aarch64_hostile_frames() -> None:
    for at, new in (
        (128 + 176 + 8 + 31 * 8 + 16, struct.pack("<Q", 0x5)),  # pstate: EL1
        (128 + 176 + 288, struct.pack("<II", 0x12345678, 16)),  # an unknown record
        (128 + 176 + 288, bytes(8)),  # no fpsimd record
        (128 + 176 + 288 + 4, struct.pack("<I", 0)),
        (128 + 176 + 288 + 528, struct.pack("<II", 0x45535201, 0xFFFFFFF0)),
    ):
        regs, memory = machine(AARCH64)
        push(AARCH64, regs, memory)
        memory.write(regs.read("sp") + at, new)
        with pytest.raises(BadFrame):
            AARCH64.signal_frame.pop(regs, memory)
    regs.write("sp", regs.read("sp") + 8)
    with pytest.raises(BadFrame):
        AARCH64.signal_frame.pop(regs, memory)


def test_autodisarm_is_never_on_the_stack() -> None:
    stack = AltStack(0x1000, SS_AUTODISARM, 0x1000)
    assert not stack.holds(0x1800)
    assert stack.top_for(0x1800, Sa.ONSTACK) == 0x2000
