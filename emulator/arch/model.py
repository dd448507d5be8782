"""What an instruction set is to the rest of the emulator.

Rule: everything that differs between ISAs is a field here; nobody outside `arch/` asks which ISA it is.  An ISA is one
file with one `Arch` value, and one line in `emulator.arch.ARCHES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

from emulator.abi.errno import E
from emulator.abi.layouts import StructLayout
from emulator.abi.memory import Access
from emulator.abi.signals import AltStack, SignalAction
from emulator.errors import EmulatorError

if TYPE_CHECKING:
    from emulator.arch.traps import Traps


@dataclass(frozen=True, slots=True)
class Register:
    """One register as gdb numbers it.

    `uc` is Unicorn's constant without its prefix ("RAX"); "" means the emulator keeps it (orig_rax, segment selectors).
    `type` and `group` are the target description's words; `initial` is its value after execve(2); `user_mask` holds
    the bits of Unicorn's register that user mode sees (a debugger's write changes only these).
    """

    name: str
    bits: int
    type: str = "int"
    group: str = ""
    uc: str = ""
    initial: int = 0
    user_mask: int = -1


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of the target description: its standard name, its registers in gdb's order, extra <type> XML."""

    name: str
    registers: tuple[Register, ...]
    types: str = ""


class RegisterAccess(Protocol):
    """Registers by gdb's name, whatever holds them: the live CPU or a captured file."""

    def read(self, name: str) -> int: ...
    def write(self, name: str, value: int) -> None: ...
    def read_many(self, names: tuple[str, ...]) -> list[int]:
        """Several in one go; of x87's st0..st7 all (then fstat too) or none."""
        ...

    def write_many(self, values: Mapping[str, int]) -> None:
        """Several in one go, with the same condition."""
        ...


class MemoryAccess(Protocol):
    """Guest memory as the kernel side sees it; raises MemoryFault (or LinuxError(EFAULT)) on a bad address."""

    def read(self, addr: int, n: int) -> bytes: ...
    def write(self, addr: int, data: bytes) -> object: ...


@dataclass(frozen=True, slots=True)
class SyscallConvention:
    """Where number, arguments and result live (man 2 syscall).

    `saved` is the register that keeps the restart value across a call ("orig_rax"; "" where the kernel hides it).
    `clobbers` are the registers the instruction itself overwrites: (name, source register) as SYSCALL does rcx and r11.
    """

    number: str
    args: tuple[str, str, str, str, str, str]
    result: str
    insn_length: int
    saved: str = ""
    clobbers: tuple[tuple[str, str], ...] = ()
    clone_args: tuple[str, str, str, str, str] = ("flags", "stack", "parent_tid", "child_tid", "tls")


@dataclass(frozen=True, slots=True)
class CpuidMask:
    """Bits to take away from what cpuid answers."""

    leaf: int
    subleaf: int
    register: Literal["EAX", "EBX", "ECX", "EDX"]
    clear: int


@dataclass(frozen=True, slots=True)
class SystemRegister:
    """Bits to set in a system register: `key` is what Unicorn's CP_REG takes in front of the value."""

    name: str
    key: tuple[int, ...]  # arm64: (crn, crm, op0, op1, op2)
    set_bits: int


@dataclass(frozen=True, slots=True)
class LazyFlags:
    """Where the engine says how its flags are to be computed, and the word for "they are"."""

    offset: int  # in the registers of a saved context, of an int32
    computed: int


@dataclass(frozen=True, slots=True)
class CpuModel:
    """How to make a Unicorn engine that behaves like a user-mode CPU of this ISA.

    Names are Unicorn's constants (uc_*, *_insn), capstone's, or gdb's register names; the defaults say that the ISA or
    its engine does not have the thing.
    """

    uc_arch: str  # "UC_ARCH_X86"
    uc_mode: str  # "UC_MODE_64"
    uc_model: str  # "UC_CPU_X86_BROADWELL"
    uc_registers: str  # prefix of the register constants: "UC_X86_REG_"
    uc_target: str  # suffix of the engine's functions of which every ISA has its own: "x86_64"
    capstone: tuple[str, str]  # ("CS_ARCH_X86", "CS_MODE_64")
    scanner: str  # who tells instruction boundaries and kinds: a name in hooks/scan.c and pyhooks/scan.py
    general: tuple[str, ...]  # the general registers in the order in which an instruction encodes them
    set_page_size: bool = False  # call ctl_set_page_size(4096) first of all
    setup: tuple[tuple[str, int], ...] = ()  # registers written once, by Unicorn's name
    system: tuple[SystemRegister, ...] = ()  # bits set once in system registers, before `setup`
    selectors: tuple[tuple[int, str], ...] = ()  # segment registers with an initial value: (place in env->segs, name)
    cpuid: tuple[CpuidMask, ...] = ()
    syscall_insn: str = ""  # the system call, where the engine has a hook for that instruction,
    syscall_interrupt: int = -1  # ... or where it comes as an interrupt
    refused_insn: str = ""  # another way into the kernel that Linux does not offer: SIGILL
    flags: str = ""  # the flags register POPF changes
    lazy_flags: LazyFlags | None = None
    contributory: frozenset[int] = frozenset()  # exceptions of which the second makes a double fault
    sse_status: str = ""  # the register whose exception flags the engine keeps elsewhere: "mxcsr"
    remedy: str = ""  # what to tell of an instruction which no model of the engine executes


@dataclass(frozen=True, slots=True)
class AddressLayout:
    """The address space as Linux lays it (arch/*/include/asm/{processor,elf}.h)."""

    task_size: int  # first address that is not the user's; everything else follows (kernel/address_space.py, Layout)
    signal_page: bytes = b""  # what this ISA's "[vdso]" must hold: a sigreturn trampoline; b"" where libc brings it


@dataclass(frozen=True, slots=True)
class AuxvFacts:
    """The ISA's part of the auxiliary vector."""

    hwcap: int
    hwcap2: int
    platform: str
    minsigstksz: int
    has_hwcap2: bool = True


@dataclass(frozen=True, slots=True)
class KernelAbi:
    """Structure layouts and flag values that differ between ISAs under Linux' 64- and 32-bit ABIs."""

    stat: StructLayout
    statfs: StructLayout
    open_flags: Mapping[str, int]  # the O_* that differ between ISAs (abi.fcntl.translate_open_flags)
    epoll_event: str  # struct format of struct epoll_event: events, data
    semid_ds: str = "qqQ16x"  # struct semid64_ds behind its ipc_perm: otime, ctime, nsems


@dataclass(frozen=True, slots=True)
class Restored:
    """What sigreturn found in a frame, besides the registers: the caller sets these."""

    mask: int
    altstack: AltStack


@dataclass(frozen=True, slots=True)
class Delivery:
    """A signal on its way to its handler: what the frame has to hold, besides the registers."""

    action: SignalAction
    signo: int
    siginfo: bytes  # struct siginfo, 128 bytes
    mask: int  # the blocked set to restore
    altstack: AltStack
    trampoline: int = 0  # address of the "[vdso]" page; 0 if none
    fault: Fault | None = None  # the task's last


class SignalFrame(Protocol):
    """Builds and takes down the frame a handler runs on (arch/*/kernel/signal.c)."""

    def push(self, regs: RegisterAccess, memory: MemoryAccess, signal: Delivery) -> None:
        """Save the user's state, then aim `regs` at the handler.

        Raises MemoryFault when the frame cannot be written; then nothing has changed in `regs` and the caller forces
        SIGSEGV.
        """

    def pop(self, regs: RegisterAccess, memory: MemoryAccess) -> Restored:
        """Undo `push` for sigreturn(2).  Raises MemoryFault or BadFrame: the caller forces SIGSEGV."""


@dataclass(frozen=True, slots=True)
class DtvSlot:
    """Where a libc's thread control block keeps the dynamic thread vector, relative to the thread pointer.

    `entry_words` is the size of a DTV entry.  The slot counts only if the block points to itself at `self_at`, and not
    at `not_self_at` (that tells glibc's from musl's).
    """

    offset: int
    entry_words: int
    self_at: int | None = None
    not_self_at: int | None = None


class FaultKind(Enum):
    """Which CPU exception."""

    PAGE = "page"
    DIVIDE = "divide"
    X87 = "x87"
    SIMD = "simd"
    UNDEFINED = "undefined"
    PRIVILEGED = "privileged"
    BREAKPOINT = "breakpoint"
    STEP = "step"
    ALIGNMENT = "alignment"


@dataclass(frozen=True, slots=True)
class Fault:
    """A task's last CPU exception, for sigcontext (x86: trapno, err, cr2; aarch64: fault_address, ESR).

    It stays with the task, as the kernel's thread struct keeps it: a later SIGUSR1's frame shows it too.
    """

    kind: FaultKind
    address: int = 0
    access: Access = Access.READ
    mapped: bool = False  # the page is there, the right is missing
    error_code: int = 0  # what the hardware pushes, for kinds other than PAGE


class BadFrame(EmulatorError):  # noqa: N818 - the kernel's word
    """sigreturn(2) found a frame the kernel would not accept: SIGSEGV."""


@dataclass(frozen=True)
class Arch:
    """An instruction set under Linux."""

    name: str  # Linux' name: x86_64, aarch64 (uname -m)
    gdb_name: str  # i386:x86-64
    triplet: str  # Debian's: x86_64-linux-gnu, for the sysroot
    elf_machine: int
    bits: Literal[32, 64]
    byteorder: Literal["little", "big"]
    features: tuple[Feature, ...]
    pc: str
    sp: str
    fp: str
    tls: str  # the thread-pointer register CLONE_SETTLS writes
    convention: SyscallConvention
    syscalls: Mapping[int, str]  # number -> name
    errno: Mapping[E, int]
    expedited: tuple[str, ...]
    breakpoint_kinds: frozenset[int]
    watch_reports_before: bool
    cpu: CpuModel
    layout: AddressLayout
    auxv: AuxvFacts
    abi: KernelAbi
    signal_frame: SignalFrame
    traps: Traps
    dtv_slots: tuple[DtvSlot, ...]  # of the libcs there are, most specific first
    notes: Mapping[str, RegisterNote]  # "NT_PRSTATUS" -> how ptrace(2) and core files lay registers out

    @cached_property
    def registers(self) -> tuple[Register, ...]:
        """All registers in gdb's numbering."""
        return tuple(register for feature in self.features for register in feature.registers)

    @cached_property
    def register(self) -> Mapping[str, Register]:
        """Registers by name."""
        return {register.name: register for register in self.registers}

    @cached_property
    def syscall_numbers(self) -> Mapping[str, int]:
        """name -> number."""
        return {name: number for number, name in self.syscalls.items()}

    @cached_property
    def errno_names(self) -> Mapping[int, E]:
        """number -> name, for people."""
        return {number: name for name, number in self.errno.items()}

    @property
    def pointer_size(self) -> int:
        """Bytes of a pointer, which are those of a long."""
        return self.bits // 8

    @property
    def struct_order(self) -> str:
        """The byte-order prefix for `struct`."""
        return "<" if self.byteorder == "little" else ">"


class RegisterNote(Protocol):
    """A register set as PTRACE_GETREGSET and core notes hold it (NT_* of <linux/elf.h>)."""

    size: int

    def pack(self, regs: RegisterAccess) -> bytes: ...
    def unpack(self, data: bytes, regs: RegisterAccess) -> None:
        """Write `data`, possibly shorter than the set, back.  Raises LinuxError for values the kernel refuses."""
