"""aarch64 under Linux (gdb manual, "AArch64 Features"; arch/arm64 of the kernel).

The CPU model is the engine's MAX, without what it announces and does not execute (SVE, MTE) and without what makes a
run differ from the next (RNDR) or needs keys (PAC).
"""

from __future__ import annotations

from emulator.abi.fcntl import OPEN_FLAGS_ARM
from emulator.abi.layouts import STAT_GENERIC64, STATFS_GENERIC64
from emulator.abi.numbers import errno_numbers, syscall_names
from emulator.arch.aarch64_frame import TRAMPOLINE, Aarch64SignalFrame
from emulator.arch.aarch64_notes import NOTES
from emulator.arch.aarch64_traps import AARCH64_TRAPS
from emulator.arch.model import (
    AddressLayout,
    Arch,
    AuxvFacts,
    CpuModel,
    DtvSlot,
    Feature,
    KernelAbi,
    Register,
    SyscallConvention,
    SystemRegister,
)
from emulator.arch.tdesc_types import field_flags, union, vectors

CPSR = (
    ("SP", 0, 0), ("EL", 2, 3), ("nRW", 4, 4), ("F", 6, 6), ("I", 7, 7), ("A", 8, 8), ("D", 9, 9), ("BTYPE", 10, 11),
    ("SSBS", 12, 12), ("IL", 20, 20), ("SS", 21, 21), ("PAN", 22, 22), ("UAO", 23, 23), ("DIT", 24, 24),
    ("TCO", 25, 25), ("V", 28, 28), ("C", 29, 29), ("Z", 30, 30), ("N", 31, 31),
)  # fmt: skip
FPSR = (("IOC", 0, 0), ("DZC", 1, 1), ("OFC", 2, 2), ("UFC", 3, 3), ("IXC", 4, 4), ("IDC", 7, 7), ("QC", 27, 27))
FPCR = (
    ("FIZ", 0, 0), ("AH", 1, 1), ("NEP", 2, 2), ("IOE", 8, 8), ("DZE", 9, 9), ("OFE", 10, 10), ("UFE", 11, 11),
    ("IXE", 12, 12), ("EBF", 13, 13), ("IDE", 15, 15), ("Len", 16, 18), ("FZ16", 19, 19), ("Stride", 20, 21),
    ("RMode", 22, 23), ("FZ", 24, 24), ("DN", 25, 25), ("AHP", 26, 26),
)  # fmt: skip
VECTOR_TYPES = {
    "v2d": ("ieee_double", 2), "v2u": ("uint64", 2), "v2i": ("int64", 2),
    "v4f": ("ieee_single", 4), "v4u": ("uint32", 4), "v4i": ("int32", 4),
    "v8f": ("ieee_half", 8), "v8u": ("uint16", 8), "v8i": ("int16", 8), "v8bf16": ("bfloat16", 8),
    "v16u": ("uint8", 16), "v16i": ("int8", 16),
    "v1u": ("uint128", 1), "v1i": ("int128", 1),
}  # fmt: skip
VECTOR_UNIONS = (
    union("vnd", {"f": "v2d", "u": "v2u", "s": "v2i"})
    + union("vns", {"f": "v4f", "u": "v4u", "s": "v4i"})
    + union("vnh", {"bf": "v8bf16", "f": "v8f", "u": "v8u", "s": "v8i"})
    + union("vnb", {"u": "v16u", "s": "v16i"})
    + union("vnq", {"u": "v1u", "s": "v1i"})
    + union("aarch64v", {"d": "vnd", "s": "vns", "h": "vnh", "b": "vnb", "q": "vnq"})
)

PSTATE_USER = 0xF0000000  # N Z C V: the rest of PSTATE is the kernel's, and zero in user mode

FEATURES = (
    Feature(
        "org.gnu.gdb.aarch64.core",
        (
            *(Register(f"x{n}", 64, uc=f"X{n}") for n in range(31)),
            Register("sp", 64, "data_ptr", uc="SP"),
            Register("pc", 64, "code_ptr", uc="PC"),
            Register("cpsr", 32, "cpsr_flags", uc="PSTATE", user_mask=PSTATE_USER),
        ),
        field_flags("cpsr_flags", 4, CPSR),
    ),
    Feature(
        "org.gnu.gdb.aarch64.fpu",
        (
            *(Register(f"v{n}", 128, "aarch64v", uc=f"Q{n}") for n in range(32)),
            Register("fpsr", 32, "fpsr_flags", "float", uc="FPSR"),
            Register("fpcr", 32, "fpcr_flags", "float", uc="FPCR"),
        ),
        vectors(VECTOR_TYPES) + VECTOR_UNIONS + field_flags("fpsr_flags", 4, FPSR) + field_flags("fpcr_flags", 4, FPCR),
    ),
    Feature("org.gnu.gdb.aarch64.tls", (Register("tpidr", 64, "data_ptr", uc="TPIDR_EL0"),)),
)

# <asm/hwcap.h>
HWCAP = sum(1 << bit for bit in (
    0,  # FP
    1,  # ASIMD
    3, 4, 5, 6,  # AES PMULL SHA1 SHA2
    7, 8,  # CRC32 ATOMICS
    9, 10, 12,  # FPHP ASIMDHP ASIMDRDM
    13, 14, 15,  # JSCVT FCMA LRCPC
    17, 18, 19, 20, 21,  # SHA3 SM3 SM4 ASIMDDP SHA512
    23, 27,  # ASIMDFHM FLAGM
))  # fmt: skip
HWCAP2 = 1 << 7 | 1 << 8  # FLAGM2 FRINT

# What Linux allows EL0 (arch/arm64/include/asm/sysreg.h, INIT_SCTLR_EL1_MMU_ON; arch_timer_configure_evtstream).
SYSTEM = (
    SystemRegister(
        "SCTLR_EL1", (1, 0, 3, 0, 0), 1 << 26 | 1 << 18 | 1 << 16 | 1 << 15 | 1 << 14
    ),  # UCI nTWE nTWI UCT DZE
    SystemRegister("CNTKCTL_EL1", (14, 1, 3, 0, 0), 0x2),  # EL0VCTEN
)

AARCH64 = Arch(
    name="aarch64",
    gdb_name="aarch64",
    triplet="aarch64-linux-gnu",
    elf_machine=183,
    bits=64,
    byteorder="little",
    features=FEATURES,
    pc="pc",
    sp="sp",
    fp="x29",
    tls="tpidr",
    dtv_slots=(DtvSlot(0, 2), DtvSlot(-8, 1)),  # glibc, musl
    convention=SyscallConvention(
        number="x8",
        args=("x0", "x1", "x2", "x3", "x4", "x5"),
        result="x0",
        insn_length=4,
        clone_args=("flags", "stack", "parent_tid", "tls", "child_tid"),
    ),
    syscalls=syscall_names("aarch64"),
    errno=errno_numbers(),
    expedited=("x29", "sp", "pc"),
    breakpoint_kinds=frozenset({4}),
    watch_reports_before=True,
    cpu=CpuModel(
        uc_arch="UC_ARCH_ARM64",
        uc_mode="UC_MODE_ARM",
        uc_model="UC_CPU_ARM64_MAX",
        uc_registers="UC_ARM64_REG_",
        uc_target="aarch64",
        capstone=("CS_ARCH_ARM64", "CS_MODE_ARM"),
        scanner="aarch64",
        general=tuple(f"x{n}" for n in range(31)),
        set_page_size=True,
        setup=(("PSTATE", 0),),  # EL0: what user mode may not do traps
        system=SYSTEM,
        syscall_interrupt=2,  # EXCP_SWI of the engine's target/arm/cpu.h
    ),
    layout=AddressLayout(
        task_size=1 << 48,
        signal_page=TRAMPOLINE,
    ),
    auxv=AuxvFacts(hwcap=HWCAP, hwcap2=HWCAP2, platform="aarch64", minsigstksz=0x1250),
    abi=KernelAbi(stat=STAT_GENERIC64, statfs=STATFS_GENERIC64, open_flags=OPEN_FLAGS_ARM, epoll_event="<I4xQ"),
    signal_frame=Aarch64SignalFrame(),
    traps=AARCH64_TRAPS,
    notes=NOTES,
)
