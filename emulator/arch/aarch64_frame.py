"""The aarch64 signal frame (arch/arm64/kernel/signal.c, <asm/sigcontext.h>) and the page its trampoline lives on."""

from __future__ import annotations

import struct

from emulator.abi.memory import Access
from emulator.abi.signals import UNBLOCKABLE_MASK, AltStack, Sa
from emulator.arch.model import BadFrame, Delivery, Fault, FaultKind, MemoryAccess, RegisterAccess, Restored
from emulator.errors import MemoryFault

SIGINFO_SIZE = 128
MCONTEXT = 176  # offset in ucontext: it is 16-byte aligned
RESERVED = 288  # offset of __reserved in sigcontext
RESERVED_SIZE = 4096
FRAME_SIZE = SIGINFO_SIZE + MCONTEXT + RESERVED + RESERVED_SIZE
FRAME_RECORD_SIZE = 16

FPSIMD_MAGIC, FPSIMD_SIZE = 0x46508001, 528
ESR_MAGIC, ESR_SIZE = 0x45535201, 16
EXTRA_MAGIC = 0x45585401
IGNORED_MAGICS = frozenset({ESR_MAGIC, EXTRA_MAGIC})

PSR_NZCV = 0xF0000000
PSR_MODE_AND_DAIF = 0x3DF  # mode, nRW, DAIF: all zero in user mode
PSR_RES0 = ~(PSR_NZCV | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 20 | 1 << 12 | 0xC00 | PSR_MODE_AND_DAIF)
PSR_BTYPE, PSR_TCO = 0xC00, 1 << 25

# __kernel_rt_sigreturn: mov x8, #139; svc #0.  gdb and libgcc recognise a signal frame by these two instructions.
TRAMPOLINE = struct.pack("<III", 0xD503201F, 0xD2801168, 0xD4000001)
TRAMPOLINE_ENTRY = 4  # behind a nop: unwinders look up pc - 1

GENERAL = (*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr")
FPSIMD = ("fpsr", "fpcr", *(f"v{n}" for n in range(32)))
_CONTEXT = struct.Struct("<Q31QQQQ")  # fault_address, x0..x30, sp, pc, pstate


def syndrome(fault: Fault | None) -> tuple[int, int]:
    """Return (fault_address, ESR_EL1) as a fault taken from EL0 leaves them; ESR 0 means: no esr_context."""
    if fault is not None and fault.kind is FaultKind.ALIGNMENT:
        return fault.address, 0x24 << 26 | 1 << 25 | 0x21
    if fault is None or fault.kind is not FaultKind.PAGE:
        return 0, 0
    exception_class = 0x20 if fault.access is Access.FETCH else 0x24
    status = 0x0F if fault.mapped else 0x07  # permission or translation fault, level 3
    write = (fault.access is Access.WRITE) << 6
    return fault.address, exception_class << 26 | 1 << 25 | write | status


class Aarch64SignalFrame:
    """struct rt_sigframe_user_layout: siginfo, ucontext with records in __reserved; a frame record above."""

    def push(self, regs: RegisterAccess, memory: MemoryAccess, signal: Delivery) -> None:
        """See `emulator.arch.model.SignalFrame`."""
        action, altstack = signal.action, signal.altstack
        top = altstack.top_for(regs.read("sp"), action.flags)
        record = (top - FRAME_RECORD_SIZE) & ~15
        frame = record - FRAME_SIZE
        if frame < 0:
            raise MemoryFault(frame & ((1 << 64) - 1), Access.WRITE, mapped=False)
        general = regs.read_many(GENERAL)
        address, esr = syndrome(signal.fault)
        context = _CONTEXT.pack(address, *general)
        fpsr, fpcr, *vectors = regs.read_many(FPSIMD)
        records = struct.pack("<IIII", FPSIMD_MAGIC, FPSIMD_SIZE, fpsr, fpcr)
        records += b"".join([value.to_bytes(16, "little") for value in vectors])
        if esr:
            records += struct.pack("<IIQ", ESR_MAGIC, ESR_SIZE, esr)
        ucontext = struct.pack("<QQ", 0, 0) + altstack.saved().pack() + struct.pack("<Q", signal.mask)
        body = signal.siginfo + ucontext.ljust(MCONTEXT, b"\0") + context.ljust(RESERVED, b"\0") + records + bytes(16)
        memory.write(frame, body)
        memory.write(record, struct.pack("<QQ", general[29], general[30]))

        restorer = action.restorer if action.flags & Sa.RESTORER else signal.trampoline + TRAMPOLINE_ENTRY
        entry = {
            "x0": signal.signo,
            "sp": frame,
            "x29": record,
            "x30": restorer,
            "pc": action.handler,
            "cpsr": general[33] & ~(PSR_BTYPE | PSR_TCO),
        }
        if action.flags & Sa.SIGINFO:
            entry |= {"x1": frame, "x2": frame + SIGINFO_SIZE}
        regs.write_many(entry)

    def pop(self, regs: RegisterAccess, memory: MemoryAccess) -> Restored:
        """See `emulator.arch.model.SignalFrame`."""
        frame = regs.read("sp")
        if frame & 15:
            raise BadFrame("sp is not aligned")
        data = memory.read(frame, FRAME_SIZE)
        altstack = AltStack.restored(data[SIGINFO_SIZE + 16 : SIGINFO_SIZE + 40])
        (mask,) = struct.unpack_from("<Q", data, SIGINFO_SIZE + 40)
        _address, *general, sp, pc, pstate = _CONTEXT.unpack_from(data, SIGINFO_SIZE + MCONTEXT)
        pstate &= ~PSR_RES0
        if pstate & PSR_MODE_AND_DAIF:
            raise BadFrame(f"pstate {pstate:#x}")
        fpsimd = self._fpsimd(data[SIGINFO_SIZE + MCONTEXT + RESERVED :])

        values = dict(zip(GENERAL, (*general, sp, pc, pstate), strict=True))
        fpsr, fpcr = struct.unpack_from("<II", fpsimd, 8)
        vectors = [int.from_bytes(fpsimd[at : at + 16], "little") for at in range(16, FPSIMD_SIZE, 16)]
        values.update(zip(FPSIMD, (fpsr, fpcr, *vectors), strict=True))
        regs.write_many(values)
        return Restored(mask & ~UNBLOCKABLE_MASK, altstack)

    @staticmethod
    def _fpsimd(records: bytes) -> bytes:
        """Find the fpsimd_context (parse_user_sigframe); it must be there, once, and every record known."""
        at, found = 0, b""
        while at + 8 <= len(records):
            magic, size = struct.unpack_from("<II", records, at)
            if magic == 0:
                if size or not found:
                    break
                return found
            if size < 16 or size & 15 or at + size > len(records):
                break
            if magic == FPSIMD_MAGIC:
                if found or size != FPSIMD_SIZE:
                    break
                found = records[at : at + size]
            elif magic not in IGNORED_MAGICS:
                break
            at += size
        raise BadFrame("records of the signal frame")
