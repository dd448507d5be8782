"""x86-64 under Linux (System V ABI for AMD64; gdb manual, "i386 Features"; arch/x86 of the kernel).

Without AVX: no CPU model of the engine executes it, so neither cpuid nor the target description promises it.
"""

from __future__ import annotations

from emulator.abi.fcntl import OPEN_FLAGS_GENERIC
from emulator.abi.layouts import STAT_X86_64, STATFS_GENERIC64
from emulator.abi.numbers import errno_numbers, syscall_names
from emulator.arch.model import (
    AddressLayout,
    Arch,
    AuxvFacts,
    CpuidMask,
    CpuModel,
    DtvSlot,
    Feature,
    KernelAbi,
    LazyFlags,
    Register,
    SyscallConvention,
)
from emulator.arch.tdesc_types import flags, union, vectors
from emulator.arch.x86_64_frame import X86SignalFrame
from emulator.arch.x86_64_notes import NOTES
from emulator.arch.x86_64_traps import X86_TRAPS

USER_CS = 0x33
USER_SS = 0x2B

EFLAGS = {
    0: "CF", 1: "", 2: "PF", 4: "AF", 6: "ZF", 7: "SF", 8: "TF", 9: "IF", 10: "DF", 11: "OF",
    14: "NT", 16: "RF", 17: "VM", 18: "AC", 19: "VIF", 20: "VIP", 21: "ID",
}  # fmt: skip
MXCSR = {
    0: "IE", 1: "DE", 2: "ZE", 3: "OE", 4: "UE", 5: "PE", 6: "DAZ", 7: "IM", 8: "DM", 9: "ZM",
    10: "OM", 11: "UM", 12: "PM", 15: "FZ",
}  # fmt: skip
VECTOR_TYPES = {
    "v8bf16": ("bfloat16", 8), "v8h": ("ieee_half", 8), "v4f": ("ieee_single", 4), "v2d": ("ieee_double", 2),
    "v16i8": ("int8", 16), "v8i16": ("int16", 8), "v4i32": ("int32", 4), "v2i64": ("int64", 2),
}  # fmt: skip
VEC128 = {
    "v8_bfloat16": "v8bf16", "v8_half": "v8h", "v4_float": "v4f", "v2_double": "v2d", "v16_int8": "v16i8",
    "v8_int16": "v8i16", "v4_int32": "v4i32", "v2_int64": "v2i64", "uint128": "uint128",
}  # fmt: skip


def _general() -> tuple[Register, ...]:
    ints = tuple(Register(n, 64, "int64", uc=n.upper()) for n in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi"))
    pointers = tuple(Register(n, 64, "data_ptr", uc=n.upper()) for n in ("rbp", "rsp"))
    high = tuple(Register(f"r{n}", 64, "int64", uc=f"R{n}") for n in range(8, 16))
    return (
        *ints,
        *pointers,
        *high,
        Register("rip", 64, "code_ptr", uc="RIP"),
        Register("eflags", 32, "i386_eflags", uc="EFLAGS", initial=0x202),
        Register("cs", 32, "int32", initial=USER_CS),
        Register("ss", 32, "int32", initial=USER_SS),
        *(Register(name, 32, "int32") for name in ("ds", "es", "fs", "gs")),
    )


def _x87() -> tuple[Register, ...]:
    """st0..st7 are relative to TOP: the engine's FP registers are physical, FP[(TOP + i) & 7]."""
    control = (
        ("fctrl", "FPCW", 0x37F), ("fstat", "FPSW", 0), ("ftag", "FPTAG", 0xFFFF), ("fiseg", "FCS", 0),
        ("fioff", "FIP", 0), ("foseg", "FDS", 0), ("fooff", "FDP", 0), ("fop", "FOP", 0),
    )  # fmt: skip
    return (
        *(Register(f"st{n}", 80, "i387_ext", uc=f"ST{n}") for n in range(8)),
        *(Register(name, 32, "int", "float", uc, initial) for name, uc, initial in control),
    )


FEATURES = (
    Feature("org.gnu.gdb.i386.core", (*_general(), *_x87()), flags("i386_eflags", 4, EFLAGS)),
    Feature(
        "org.gnu.gdb.i386.sse",
        (
            *(Register(f"xmm{n}", 128, "vec128", uc=f"XMM{n}") for n in range(16)),
            Register("mxcsr", 32, "i386_mxcsr", "vector", uc="MXCSR", initial=0x1F80),
        ),
        vectors(VECTOR_TYPES) + union("vec128", VEC128) + flags("i386_mxcsr", 4, MXCSR),
    ),
    Feature("org.gnu.gdb.i386.linux", (Register("orig_rax", 64, initial=(1 << 64) - 1),)),
    Feature(
        "org.gnu.gdb.i386.segments",
        (Register("fs_base", 64, uc="FS_BASE"), Register("gs_base", 64, uc="GS_BASE")),
    ),
)

CPU = CpuModel(
    uc_arch="UC_ARCH_X86",
    uc_mode="UC_MODE_64",
    uc_model="UC_CPU_X86_BROADWELL",
    uc_registers="UC_X86_REG_",
    uc_target="x86_64",
    capstone=("CS_ARCH_X86", "CS_MODE_64"),
    scanner="x86_64",
    general=("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))),
    setup=(("CR4", 0x50620),),  # PAE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE
    selectors=((1, "cs"), (2, "ss")),
    cpuid=(
        # RDRAND: not deterministic; XSAVE: adds nothing without AVX, and gdb's process record knows fxsave, not xsave
        CpuidMask(1, 0, "ECX", 1 << 30 | 1 << 27 | 1 << 26),
        CpuidMask(7, 0, "EBX", 1 << 9 | 1 << 18),  # ERMS: rep movsb runs a byte a block; RDSEED
        CpuidMask(0xD, 0, "EAX", 1 << 2),  # XCR0 is x87 | SSE, so is the area
        CpuidMask(0xD, 0, "ECX", 0x100),
    ),
    syscall_insn="UC_X86_INS_SYSCALL",
    refused_insn="UC_X86_INS_SYSENTER",
    flags="eflags",
    lazy_flags=LazyFlags(offset=168, computed=1),  # target/i386/cpu.h: CPUX86State.cc_op, CC_OP_EFLAGS
    contributory=frozenset({0, 10, 11, 12, 13}),  # Intel SDM volume 3, table 6-5
    sse_status="mxcsr",
    remedy="AVX code, which no CPU model of the engine executes and cpuid does not offer; build for -march=x86-64-v2",
)

X86_64 = Arch(
    name="x86_64",
    gdb_name="i386:x86-64",
    triplet="x86_64-linux-gnu",
    elf_machine=62,
    bits=64,
    byteorder="little",
    features=FEATURES,
    pc="rip",
    sp="rsp",
    fp="rbp",
    tls="fs_base",
    dtv_slots=(DtvSlot(8, 2, self_at=16, not_self_at=24), DtvSlot(8, 1)),  # glibc, musl
    convention=SyscallConvention(
        number="rax",
        args=("rdi", "rsi", "rdx", "r10", "r8", "r9"),
        result="rax",
        insn_length=2,
        saved="orig_rax",
        clobbers=(("rcx", "rip"), ("r11", "eflags")),
    ),
    syscalls=syscall_names("x86_64"),
    errno=errno_numbers(),
    expedited=("rbp", "rsp", "rip"),
    breakpoint_kinds=frozenset({1}),
    watch_reports_before=False,
    cpu=CPU,
    layout=AddressLayout(task_size=0x7FFFFFFFF000),
    auxv=AuxvFacts(hwcap=0x078BFBFD, hwcap2=0x2, platform="x86_64", minsigstksz=0x5F0),
    abi=KernelAbi(
        stat=STAT_X86_64,
        statfs=STATFS_GENERIC64,
        open_flags=OPEN_FLAGS_GENERIC,
        epoll_event="<IQ",
        semid_ds="q8xq8xQ16x",  # arch/x86/include/uapi/asm/sembuf.h
    ),
    signal_frame=X86SignalFrame(),
    traps=X86_TRAPS,
    notes=NOTES,
)
