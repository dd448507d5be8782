"""Put a program into a fresh address space: the half of load_elf_binary() behind the point of no return.

Source: fs/binfmt_elf.c (elf_load, load_elf_interp, create_elf_tables), fs/exec.c (setup_arg_pages).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Prot
from emulator.abi.mman import Map
from emulator.arch.model import Arch
from emulator.errors import EmulatorError, LinuxError, MemoryFault
from emulator.kernel.address_space import AddressSpace, Layout, page_align
from emulator.kernel.thread_group import RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK, ThreadGroup
from emulator.kernel.vma import MappableFile, Vma, VmFlag
from emulator.loader import stack
from emulator.loader.elf import Elf, LoadError, Segment
from emulator.loader.stack import ProgramFacts

if TYPE_CHECKING:
    from emulator.kernel.files.description import Description
    from emulator.kernel.tasks import Task

ADDR_NO_RANDOMIZE = 0x0040000  # personality(2)
_RLIMITS = {"AS": RLIMIT_AS, "DATA": RLIMIT_DATA, "STACK": RLIMIT_STACK, "MEMLOCK": RLIMIT_MEMLOCK}


class FatalExec(EmulatorError):  # noqa: N818 - what the kernel calls it
    """The new image could not be set up after the old one was gone: SIGSEGV, as force_fatal_sig() does."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class Program:
    """What `prepare` found and `enter` will run.  It holds its files open; `close` lets go of them."""

    filename: bytes  # bprm->filename: AT_EXECFN, comm
    path: bytes  # the guest's name of the ELF file: /proc/PID/exe
    file: Description
    elf: Elf
    argv: list[bytes]
    envp: list[bytes]
    interpreter: Elf | None = None
    interpreter_file: Description | None = None

    def close(self) -> None:
        """Let go of the files."""
        self.file.release()
        if self.interpreter_file is not None:
            self.interpreter_file.release()


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the new image begins."""

    pc: int
    sp: int
    space: AddressSpace


def rlimit_reader(group: ThreadGroup) -> Callable[[str], int]:
    """Return what AddressSpace asks for limits: "STACK" -> soft bytes."""
    return lambda name: group.rlimits[_RLIMITS[name]][0]


def build_space(t: Task, program: Program) -> Entry:
    """Make the new address space: stack, program, interpreter, sigreturn page.  Raises FatalExec."""
    arch, kernel, group = program.elf.arch, t.kernel, t.group
    rng: Random | None = None
    if kernel.config.aslr and not t.personality & ADDR_NO_RANDOMIZE:
        rng = Random(kernel.host.random(16))
    layout = Layout.linux(arch.layout.task_size, stack_limit=group.rlimits[RLIMIT_STACK][0], rng=rng)
    space = AddressSpace(kernel.arena, layout, rlimit=rlimit_reader(group))
    try:
        return _Builder(t, program, space, rng).build()
    except (LinuxError, MemoryFault) as error:
        space.release()
        raise FatalExec(str(error)) from error


@dataclass(slots=True)
class _Builder:
    """load_elf_binary behind begin_new_exec()."""

    t: Task
    program: Program
    space: AddressSpace
    rng: Random | None
    end: int = 0  # highest p_vaddr + p_memsz so far: where brk starts
    random: bytes = b""  # AT_RANDOM
    jitter: int = 0  # arch_align_stack()

    def build(self) -> Entry:
        program, space, t = self.program, self.space, self.t
        image, arch = program.elf, program.elf.arch
        self.random = t.kernel.host.random(16)
        self.jitter = self.rng.randrange(8192) if self.rng is not None else 0
        first = self._stack(ProgramFacts(0, 0, 0, 0, 0))  # sizes do not depend on the facts
        space.add_stack(first.mapping_start, space.layout.stack_top, executable=image.executable_stack)
        space.start_stack = first.sp

        bias = self._load_program()
        entry = base = 0
        if program.interpreter is not None and program.interpreter_file is not None:
            base = self._load_interpreter(program.interpreter, program.interpreter_file)
            entry = base + program.interpreter.entry
        mask = (1 << arch.bits) - 1
        own_entry = (image.entry + bias) & mask
        self._signal_page(arch)

        credentials = t.credentials
        facts = ProgramFacts(
            phdr=image.phdr_address + bias & mask,
            phnum=len(image.segments),
            phentsize=image.phentsize,
            entry=own_entry,
            interpreter_base=base,
            uid=credentials.ruid,
            euid=credentials.euid,
            secure=(credentials.euid, credentials.egid) != (credentials.ruid, credentials.rgid),
            gid=credentials.rgid,
            egid=credentials.egid,
        )
        final = self._stack(facts)
        space.table.write(final.sp, final.image, force=True)
        space.arg_start, space.arg_end = final.arg_start, final.arg_end
        space.env_start, space.env_end = final.env_start, final.env_end
        space.auxv = final.auxv
        space.exe = program.file
        program.file.retain()
        return Entry((entry if program.interpreter is not None else own_entry) & mask, final.sp, space)

    def _stack(self, facts: ProgramFacts) -> stack.InitialStack:
        program, top = self.program, self.space.layout.stack_top
        return stack.build(
            program.elf.arch,
            top,
            program.filename,
            program.argv,
            program.envp,
            facts,
            self.random,
            jitter=self.jitter,
        )

    def _load_program(self) -> int:
        """Map PT_LOAD segments; return the load bias."""
        image, file, space = self.program.elf, self.program.file, self.space
        total = image.total_size
        if not image.loads or not 0 < total < 1 << 63:
            raise LoadError(E.EINVAL, "it has no loadable segment")
        flags, bias = Map.PRIVATE | Map.FIXED_NOREPLACE, 0
        first = image.loads[0]
        moved_brk = False
        if image.position_independent:
            bias = self._place(image, total)
            moved_brk = self.program.interpreter is None
        low_code, high_code, low_data, high_data = 1 << 64, 0, 0, 0
        for segment in image.loads:
            where = segment.vaddr + bias
            reserve = total if segment is first and image.position_independent else 0
            self._map(file, where, segment, flags, reserve)
            flags = Map.PRIVATE | Map.FIXED
            start = where
            if start >= space.layout.task_size or segment.filesz > segment.memsz:
                raise LoadError(E.EINVAL, "a segment is larger in the file than in memory")
            if segment.memsz > space.layout.task_size - start:
                raise LoadError(E.EINVAL, "a segment does not fit into the address space")
            stop = start + segment.filesz
            low_code = min(low_code, start)
            low_data = max(low_data, start)
            high_data = max(high_data, stop)
            if segment.prot & Prot.EXEC:
                high_code = max(high_code, stop)
            self.end = max(self.end, start + segment.memsz)
        space.start_code, space.end_code = low_code, high_code
        space.start_data, space.end_data = low_data, high_data
        if moved_brk:  # a heap right behind a static PIE would run into the mmap area
            space.set_brk_start(page_align(space.layout.pie_base + PAGE_SIZE - 1))
        else:
            space.set_brk_start(page_align(self.end))
        return bias

    def _place(self, image: Elf, total: int) -> int:
        """Choose the load bias of a position-independent program."""
        space, alignment = self.space, image.alignment
        low = image.loads[0].vaddr
        if self.program.interpreter is not None:
            base = space.layout.pie_base & -alignment
        else:
            room = total + (alignment if alignment > PAGE_SIZE else 0)
            found = space.mmap(0, page_align(room), Prot.NONE, Map.PRIVATE | Map.ANONYMOUS)
            space.munmap(found, page_align(room))
            base = (found + room - page_align(total)) & -alignment if alignment > PAGE_SIZE else found
        return (base - low) & -PAGE_SIZE

    def _load_interpreter(self, image: Elf, file: Description) -> int:
        """Map the dynamic loader below mmap_base; return its load bias (load_elf_interp)."""
        total = image.total_size
        if not image.loads or not 0 < total < 1 << 63:
            raise LoadError(E.EINVAL, "its interpreter has no loadable segment")
        bias, flags = 0, Map.PRIVATE | Map.FIXED
        for number, segment in enumerate(image.loads):
            if segment.filesz > segment.memsz or segment.memsz > self.space.layout.task_size:
                raise LoadError(E.ENOMEM, "its interpreter has a bad segment")
            if number == 0 and image.position_independent:
                found = self.space.mmap(0, page_align(total), Prot.NONE, Map.PRIVATE | Map.ANONYMOUS)
                self.space.munmap(found, page_align(total))
                found &= -image.alignment
                bias = found - (segment.vaddr & -PAGE_SIZE)
            self._map(file, segment.vaddr + bias, segment, flags, 0)
        return bias

    def _map(self, file: MappableFile, where: int, segment: Segment, flags: int, reserve: int) -> None:
        """elf_load: the file's part, then zeroes: the rest of its last page, and whole pages behind it."""
        space, prot = self.space, segment.prot
        offset_in_page = segment.vaddr % PAGE_SIZE
        page = where & -PAGE_SIZE
        if segment.filesz:
            length = page_align(segment.filesz + offset_in_page)
            if reserve:  # one hole for the whole image, so that nothing else lands in it
                space.mmap(page, page_align(reserve), Prot.NONE, Map.PRIVATE | Map.ANONYMOUS | flags)
                space.munmap(page, page_align(reserve))
            if (segment.offset - offset_in_page) % PAGE_SIZE or segment.offset < offset_in_page:
                raise LoadError(E.EINVAL, "a segment's offset does not match its address")
            space.mmap(page, length, prot, flags, file, segment.offset - offset_in_page)
            if segment.memsz > segment.filesz:
                self._zero(where + segment.filesz, where + segment.memsz, writable=bool(prot & Prot.WRITE))
            zero_start = page + length
        else:
            zero_start = page
        zero_end = page_align(page + offset_in_page + segment.memsz)
        if segment.memsz > segment.filesz and zero_end > zero_start:
            anonymous = Prot.READ | Prot.WRITE | prot & Prot.EXEC
            kind = Map.PRIVATE | Map.ANONYMOUS | Map.FIXED
            space.mmap(zero_start, zero_end - zero_start, anonymous, kind)

    def _zero(self, start: int, end: int, *, writable: bool) -> None:
        """padzero(): clear to the end of the page; only a writable segment has to succeed."""
        count = -start % PAGE_SIZE
        try:
            if writable:
                self.space.table.write(start, bytes(count))
        except MemoryFault as fault:
            raise LoadError(E.EFAULT, "a segment lies past the end of the file") from fault

    def _signal_page(self, arch: Arch) -> None:
        """Map the page with the sigreturn trampoline where the ISA has no SA_RESTORER."""
        code = arch.layout.signal_page
        if not code:
            return
        space = self.space
        page = space.mmap(0, PAGE_SIZE, Prot.NONE, Map.PRIVATE | Map.ANONYMOUS)
        rights = VmFlag.READ | VmFlag.EXEC | VmFlag.MAYREAD | VmFlag.MAYEXEC | VmFlag.MAYWRITE
        space.map_special(Vma(page, page + PAGE_SIZE, rights, name="[vdso]"))
        space.table.write(page, code, force=True)
        space.signal_trampoline = page
