"""The x86-64 signal frame (arch/x86/kernel/signal_64.c, arch/x86/kernel/fpu/signal.c, <asm/sigcontext.h>)."""

from __future__ import annotations

import struct

from emulator.abi.memory import Access
from emulator.abi.signals import UNBLOCKABLE_MASK, AltStack, Sa
from emulator.arch import xstate
from emulator.arch.model import BadFrame, Delivery, Fault, FaultKind, MemoryAccess, RegisterAccess, Restored
from emulator.errors import MemoryFault

UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS = 1, 2, 4
FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2 = 0x46505853, 0x46505845
RED_ZONE = 128
FRAME_SIZE = 440  # pretcode, ucontext, siginfo
UCONTEXT, SIGINFO = 8, 312
FPSTATE_SIZE = xstate.XSAVE_SIZE + 4  # with FP_XSTATE_MAGIC2
USER_CS, USER_SS = 0x33, 0x2B
NO_CALL = (1 << 64) - 1  # orig_rax outside of a system call

ORDER = (
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip",
    "eflags",
)  # fmt: skip
SAVED = (*ORDER, "cs", "gs", "fs", "ss")
_HEAD = struct.Struct("<QQQiIQ")  # uc_flags uc_link ss_sp ss_flags ss_size
_CONTEXT = struct.Struct("<18Q4H5Q64x")  # registers, cs gs fs ss, err trapno oldmask cr2 fpstate, reserved
_SW = struct.Struct("<IIQI28x")  # struct _fpx_sw_bytes

CF_PF_AF_ZF_SF, TF, DF, OF, RF, AC = 0xD5, 0x100, 0x400, 0x800, 0x10000, 0x40000
FIX_EFLAGS = CF_PF_AF_ZF_SF | TF | DF | OF | RF | AC

_TRAPS = {
    FaultKind.DIVIDE: 0,
    FaultKind.STEP: 1,
    FaultKind.BREAKPOINT: 3,
    FaultKind.UNDEFINED: 6,
    FaultKind.PRIVILEGED: 13,
    FaultKind.PAGE: 14,
    FaultKind.X87: 16,
    FaultKind.SIMD: 19,
    FaultKind.ALIGNMENT: 17,
}


def trap_fields(fault: Fault | None) -> tuple[int, int, int]:
    """Return sigcontext's (err, trapno, cr2)."""
    if fault is None:
        return 0, 0, 0
    if fault.kind is not FaultKind.PAGE:
        return fault.error_code, _TRAPS[fault.kind], 0
    write, fetch = fault.access is Access.WRITE, fault.access is Access.FETCH
    return 4 | fault.mapped | write << 1 | fetch << 4, 14, fault.address


class X86SignalFrame:
    """struct rt_sigframe below the red zone, the XSAVE area above it on a 64-byte boundary."""

    def push(self, regs: RegisterAccess, memory: MemoryAccess, signal: Delivery) -> None:
        """See `emulator.arch.model.SignalFrame`."""
        action, altstack = signal.action, signal.altstack
        sp = regs.read("rsp") - RED_ZONE
        top = altstack.top_for(sp, action.flags)
        fpstate = (top - FPSTATE_SIZE) & ~63
        frame = ((fpstate - FRAME_SIZE) & ~15) - 8
        if frame < 0 or ((top != sp or altstack.holds(sp)) and not altstack.contains(frame)):
            raise MemoryFault(frame & ((1 << 64) - 1), Access.WRITE, mapped=False)  # would overflow the altstack
        if not action.flags & Sa.RESTORER:  # there is no other way back on this ISA: the kernel refuses
            raise MemoryFault(frame, Access.WRITE, mapped=True)

        image = xstate.pack_xsave(regs)
        _SW.pack_into(image, xstate.XCR0_OFFSET, FP_XSTATE_MAGIC1, FPSTATE_SIZE, xstate.XFEATURES, xstate.XSAVE_SIZE)
        image += FP_XSTATE_MAGIC2.to_bytes(4, "little")
        err, trapno, cr2 = trap_fields(signal.fault)
        *values, cs, gs, fs, ss = regs.read_many(SAVED)
        selectors = (cs & 0xFFFF, gs & 0xFFFF, fs & 0xFFFF, ss & 0xFFFF)
        context = _CONTEXT.pack(*values, *selectors, err, trapno, signal.mask, cr2, fpstate)
        uc_flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
        ucontext = struct.pack("<QQ", uc_flags, 0) + altstack.saved().pack() + context + struct.pack("<Q", signal.mask)
        memory.write(fpstate, bytes(image))
        memory.write(frame, struct.pack("<Q", action.restorer) + ucontext + signal.siginfo)

        regs.write_many({
            "rdi": signal.signo,
            "rsi": frame + SIGINFO,
            "rdx": frame + UCONTEXT,
            "rax": 0,
            "rsp": frame,
            "rip": action.handler,
            "cs": USER_CS,
            "ss": USER_SS,
            "eflags": values[-1] & ~(DF | RF | TF),
            "orig_rax": NO_CALL,
        })  # fmt: skip
        xstate.reset(regs)

    def pop(self, regs: RegisterAccess, memory: MemoryAccess) -> Restored:
        """See `emulator.arch.model.SignalFrame`."""
        data = memory.read(regs.read("rsp"), SIGINFO - UCONTEXT)  # `ret` took pretcode off
        uc_flags, _link = struct.unpack_from("<QQ", data)
        altstack = AltStack.restored(data[16:40])
        *values, cs, gs, fs, ss, _err, _trapno, _oldmask, _cr2, fpstate = _CONTEXT.unpack_from(data, 40)
        (mask,) = struct.unpack_from("<Q", data, 296)
        if cs | 3 != USER_CS or (uc_flags & UC_STRICT_RESTORE_SS and ss | 3 != USER_SS):
            raise BadFrame(f"selectors {cs:#x} {ss:#x}")
        self._restore_fpstate(regs, memory, fpstate)

        flags = (regs.read("eflags") & ~FIX_EFLAGS) | (values[-1] & FIX_EFLAGS)
        restored = dict(zip(ORDER, values, strict=True))
        regs.write_many(restored | {"eflags": flags, "cs": USER_CS, "ss": USER_SS, "orig_rax": NO_CALL})
        del gs, fs  # 64-bit sigreturn leaves them alone
        return Restored(mask & ~UNBLOCKABLE_MASK, altstack)

    @staticmethod
    def _restore_fpstate(regs: RegisterAccess, memory: MemoryAccess, fpstate: int) -> None:
        """fpu__restore_sig: no pointer resets, a frame without the magics is a plain FXSAVE image."""
        if not fpstate:
            xstate.reset(regs)
            return
        legacy = memory.read(fpstate, xstate.FXSAVE_SIZE)
        if xstate.mxcsr_of(legacy) & ~xstate.MXCSR_MASK:
            raise BadFrame("reserved bits in MXCSR")
        magic1, extended, xfeatures, xstate_size = _SW.unpack_from(legacy, xstate.XCR0_OFFSET)
        if (
            magic1 != FP_XSTATE_MAGIC1
            or not xstate.XSAVE_SIZE <= xstate_size <= min(xstate.XSAVE_SIZE, extended)
            or int.from_bytes(memory.read(fpstate + xstate_size, 4), "little") != FP_XSTATE_MAGIC2
        ):
            xstate.unpack_fxsave(legacy, regs)
            return
        image = memory.read(fpstate, xstate.XSAVE_SIZE)
        if not xstate.xsave_is_valid(image):
            raise BadFrame("XSAVE header")
        present = int.from_bytes(image[512:520], "little") & xfeatures
        xstate.unpack_fxsave(image, regs, x87=bool(present & 1), sse=bool(present & 2))
