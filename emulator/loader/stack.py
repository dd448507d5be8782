"""The initial stack: strings, auxiliary vector, pointers (fs/exec.c, create_elf_tables(); getauxval(3)).

From the top down: a null pointer, the file name, the environment's strings, the arguments' strings; a gap to 16 bytes;
the platform's name, 16 random bytes; the vectors; argc, where the stack pointer is, 16-byte aligned.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from emulator.abi.auxv import At
from emulator.abi.memory import PAGE_SIZE
from emulator.arch.model import Arch

STACK_EXPAND = 131072  # setup_arg_pages: mapped below the strings from the start
CLOCK_TICKS = 100
RSEQ_FEATURE_SIZE, RSEQ_ALIGN = 28, 32


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """What the loader tells the program about itself."""

    phdr: int
    phnum: int
    phentsize: int
    entry: int
    interpreter_base: int
    uid: int = 0
    euid: int = 0
    gid: int = 0
    egid: int = 0
    secure: bool = False


@dataclass(frozen=True, slots=True)
class InitialStack:
    """The bytes from `sp` up to the top of the stack, and where the parts are (/proc/PID/{cmdline,environ,stat})."""

    sp: int
    image: bytes
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    auxv: bytes

    @property
    def mapping_start(self) -> int:
        """The lowest mapped page of the new stack."""
        return (self.arg_start & -PAGE_SIZE) - STACK_EXPAND


def build(
    arch: Arch,
    top: int,
    filename: bytes,
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    facts: ProgramFacts,
    random: bytes,
    *,
    jitter: int = 0,
) -> InitialStack:
    """Lay out the stack below `top`; `random` is AT_RANDOM, `jitter` arch_align_stack()'s when ASLR is on."""
    word = arch.pointer_size
    filename_at = top - word - len(filename) - 1
    environment = b"".join(text + b"\0" for text in envp)
    arguments = b"".join(text + b"\0" for text in argv)
    env_start = filename_at - len(environment)
    arg_start = env_start - len(arguments)

    platform = arch.auxv.platform.encode() + b"\0"
    platform_at = ((arg_start - jitter) & ~15) - len(platform)
    random_at = platform_at - len(random)

    hwcap2 = [(At.HWCAP2, arch.auxv.hwcap2)] if arch.auxv.has_hwcap2 else []
    auxv = [
        (At.MINSIGSTKSZ, arch.auxv.minsigstksz),
        (At.HWCAP, arch.auxv.hwcap),
        (At.PAGESZ, PAGE_SIZE),
        (At.CLKTCK, CLOCK_TICKS),
        (At.PHDR, facts.phdr),
        (At.PHENT, facts.phentsize),
        (At.PHNUM, facts.phnum),
        (At.BASE, facts.interpreter_base),
        (At.FLAGS, 0),
        (At.ENTRY, facts.entry),
        (At.UID, facts.uid),
        (At.EUID, facts.euid),
        (At.GID, facts.gid),
        (At.EGID, facts.egid),
        (At.SECURE, int(facts.secure)),
        (At.RANDOM, random_at),
        *hwcap2,
        (At.EXECFN, filename_at),
        (At.PLATFORM, platform_at),
        (At.RSEQ_FEATURE_SIZE, RSEQ_FEATURE_SIZE),
        (At.RSEQ_ALIGN, RSEQ_ALIGN),
        (At.NULL, 0),
    ]
    letter = arch.struct_order + "%d" + ("Q" if word == 8 else "I")
    flat = [int(value) & ((1 << arch.bits) - 1) for pair in auxv for value in pair]
    auxv_bytes = struct.pack(letter % len(flat), *flat)

    pointers = [len(argv)]
    for start, strings in ((arg_start, argv), (env_start, envp)):
        for text in strings:
            pointers.append(start)
            start += len(text) + 1
        pointers.append(0)
    vectors = struct.pack(letter % len(pointers), *pointers) + auxv_bytes
    sp = (random_at - len(vectors)) & ~15
    image = vectors.ljust(random_at - sp, b"\0") + random + platform
    image = image.ljust(arg_start - sp, b"\0") + arguments + environment + filename + b"\0" + bytes(word)
    return InitialStack(sp, image, arg_start, env_start, env_start, filename_at, auxv_bytes)
