"""execve(2): from a path to a process image.

Rule: two halves, as in the kernel.  `prepare` may fail, and then nothing has changed: its `LinuxError` (often a
`LoadError` with a sentence for people) is the call's result.  `enter` is behind the point of no return: it replaces
the address space, and what fails there is `FatalExec`, for which the caller kills the task with SIGSEGV.
Sources: fs/exec.c, fs/binfmt_elf.c, fs/binfmt_script.c, execve(2).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emulator.abi.errno import E
from emulator.abi.signals import AltStack
from emulator.arch.model import Arch, RegisterAccess
from emulator.errors import LinuxError
from emulator.kernel.image import Entry, Program, build_space
from emulator.kernel.thread_group import RLIMIT_STACK
from emulator.kernel.user_memory import UserMemory
from emulator.loader import elf, script
from emulator.loader.elf import LoadError

if TYPE_CHECKING:
    from emulator.kernel.credentials import Credentials
    from emulator.kernel.files.description import Description
    from emulator.kernel.host import Host
    from emulator.kernel.tasks import Task

ARG_MAX = 131072
MAX_ARG_STRLEN = 131072
STACK_LIMIT_SHARE = 6 << 20  # three quarters of _STK_LIM
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EACCESS, AT_EMPTY_PATH = -100, 0x100, 0x200, 0x1000
X_OK, O_NONBLOCK = 1, 0o4000
F_SETLEASE, F_RDLCK, F_UNLCK = 1024, 0, 2
COMM_LENGTH = 15


# -- before the point of no return -----------------------------------------------------------------------------------


def prepare(
    t: Task,
    path: bytes,
    arguments: Callable[[], tuple[list[bytes], list[bytes]]],
    *,
    dirfd: int = AT_FDCWD,
    flags: int = 0,
) -> Program:
    """Open and check a program in the kernel's order: the file, then the arguments, then its format.

    `arguments` reads argv and envp (`read_arguments`, or a lambda for the command line).
    """
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    filename = path
    inaccessible = False
    if not path.startswith(b"/") and dirfd != AT_FDCWD:
        filename = b"/dev/fd/%d" % dirfd + (b"/" + path if path else b"")
        inaccessible = _closes_on_exec(t, dirfd)
    file = open_executable(t, path, dirfd=dirfd, flags=flags)
    try:
        argv, envp = arguments()
        return _recognise(t, file, filename, argv or [b""], envp, inaccessible=inaccessible)
    except BaseException:
        file.release()
        raise


def _closes_on_exec(t: Task, fd: int) -> bool:
    """BINPRM_FLAGS_PATH_INACCESSIBLE: a script's interpreter could not open /dev/fd/N."""
    return bool(t.fds.cloexec(fd))


def open_executable(t: Task, path: bytes, *, dirfd: int = AT_FDCWD, flags: int = 0) -> Description:
    """Open a file for execution (do_open_execat): regular, executable, not being written."""
    kernel: Any = t.kernel
    host, vfs = kernel.host, kernel.vfs
    file: Description
    if not path:
        if not flags & AT_EMPTY_PATH:
            raise LinuxError(E.ENOENT)
        file = t.fds.get_raw(dirfd).reopen(t, 0)
    else:
        place = vfs.walker.resolve(t, dirfd, path, follow=not flags & AT_SYMLINK_NOFOLLOW)
        file = vfs.open_place(t, place, O_NONBLOCK, 0, path, dirfd)  # a FIFO must not block here
    file.retain()
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise LoadError(E.EACCES, "it is a directory" if stat.S_ISDIR(mode) else "it is not a regular file")
        fd = file.host_fd()
        if not mode & 0o111 or (fd is not None and not _may_execute(host, fd)):
            raise LoadError(E.EACCES, "it is not executable (chmod +x)")
        if fd is not None and _open_for_writing(host, fd):
            raise LoadError(E.ETXTBSY, "somebody is writing to it")
    except BaseException:
        file.release()
        raise
    return file


def _may_execute(host: Host, fd: int) -> bool:
    """Ask the host: permissions, noexec mounts."""
    try:
        host.access(b"", X_OK, AT_EMPTY_PATH | AT_EACCESS, fd)
    except LinuxError:
        return False
    return True


def _open_for_writing(host: Host, fd: int) -> bool:
    """Tell whether anybody has the file open for writing: then the host refuses a read lease (fcntl(2))."""
    try:
        host.fcntl(fd, F_SETLEASE, F_RDLCK)
        host.fcntl(fd, F_SETLEASE, F_UNLCK)
    except LinuxError as error:
        return error.errno is E.EAGAIN
    return False


def read_arguments(t: Task, argv: int, envp: int) -> tuple[list[bytes], list[bytes]]:
    """Read execve's two vectors from user memory.  Raises EFAULT, E2BIG (bprm_stack_limits, copy_strings)."""
    stack_limit = t.group.rlimits[RLIMIT_STACK][0]
    limit = max(min(STACK_LIMIT_SHARE, stack_limit // 4), ARG_MAX)
    arguments, environment = _pointers(t, argv, limit // 8), _pointers(t, envp, limit // 8)
    pointers = (max(len(arguments), 1) + len(environment)) * 8
    if limit <= pointers:
        raise LinuxError(E.E2BIG)
    budget = _Budget(limit - pointers)
    env_texts = [budget.take(t, pointer) for pointer in reversed(environment)][::-1]
    arg_texts = [budget.take(t, pointer) for pointer in reversed(arguments)][::-1]
    return arg_texts, env_texts


def _pointers(t: Task, address: int, most: int) -> list[int]:
    found: list[int] = []
    while address:
        pointer = t.memory.read_ptr(address)
        if not pointer:
            break
        if len(found) > most:
            raise LinuxError(E.E2BIG)
        found.append(pointer)
        address += t.arch.pointer_size
    return found


@dataclass(slots=True)
class _Budget:
    """Bytes of argument strings still allowed."""

    left: int

    def take(self, t: Task, pointer: int) -> bytes:
        text = t.memory.read_cstring(pointer, MAX_ARG_STRLEN, E.E2BIG)
        self.left -= len(text) + 1
        if self.left < 0:
            raise LinuxError(E.E2BIG)
        return text


def _reader(t: Task, file: Description) -> elf.Read:
    def read(offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        done = 0
        while done < size:
            count = file.pread(t, [memoryview(buffer)[done:]], offset + done)
            if not count:
                break
            done += count
        return bytes(buffer[:done])

    return read


def _recognise(
    t: Task, file: Description, filename: bytes, argv: list[bytes], envp: list[bytes], *, inaccessible: bool
) -> Program:
    """search_binary_handler, through at most MAX_REWRITES interpreters."""
    name = filename
    first = file
    for _ in range(script.MAX_REWRITES + 1):
        read = _reader(t, file)
        head = read(0, elf.BINPRM_BUF_SIZE)
        if not script.is_script(head):
            try:
                program = _check_elf(t, file, filename, head, read, argv, envp)
            except BaseException:
                if file is not first:
                    file.release()
                raise
            if file is not first:
                first.release()
            return program
        shebang = script.parse(head)
        if inaccessible:
            raise LoadError(E.ENOENT, "it is a script behind a descriptor that closes on exec")
        argv = shebang.rewrite(name, argv)
        name = shebang.interpreter
        try:
            following = open_executable(t, name)
        except LinuxError as error:
            text = name.decode(errors="replace")
            raise LoadError(error.errno, f"its interpreter {text} cannot be run: {error}") from None
        finally:
            if file is not first:
                file.release()
        file = following
    if file is not first:
        file.release()
    raise LoadError(E.ELOOP, "its interpreter is a script of a script of a script ...")


def _check_elf(
    t: Task, file: Description, filename: bytes, head: bytes, read: elf.Read, argv: list[bytes], envp: list[bytes]
) -> Program:
    if not head.strip(b"\0"):
        raise LoadError(E.ENOEXEC, "it is empty")
    image = elf.parse(head, read)
    if image.arch is not t.kernel.arch:
        raise LoadError(E.ENOEXEC, f"it is for {image.arch.name}, this machine is {t.kernel.arch.name}")
    program = Program(filename, file.readlink_text(), file, image, argv, envp)
    wanted = elf.interpreter_path(image, read)
    if wanted is None:
        return program
    try:
        helper = open_executable(t, wanted)
    except LinuxError as error:
        text = wanted.decode(errors="replace")
        raise LoadError(error.errno, f"its interpreter {text} cannot be opened: {error} (-L names a sysroot)") from None
    try:
        helper_read = _reader(t, helper)
        helper_head = helper_read(0, elf.BINPRM_BUF_SIZE)
        if len(helper_head) < 64:
            raise LoadError(E.EIO, "its interpreter is truncated")
        program.interpreter = elf.parse(helper_head, helper_read, interpreter=True)
        if program.interpreter.arch is not image.arch:
            raise LoadError(E.ELIBBAD, f"its interpreter is for {program.interpreter.arch.name}")
    except BaseException:
        helper.release()
        raise
    program.interpreter_file = helper
    return program


# -- behind the point of no return -----------------------------------------------------------------------------------


def enter(t: Task, program: Program, regs: RegisterAccess) -> None:
    """Replace the task's image: memory, registers, and what execve(2) says does not survive.  Raises FatalExec.

    The caller has ended the other threads, and afterwards tells the vfork parent, the tracer and the debugger.
    `regs` is the CPU for the running task, a register file for a new one.
    """
    arch, group = program.elf.arch, t.group
    before = t.credentials
    t.credentials = _credentials(t, program)
    t.kernel.assume_identity(t)
    try:
        entry = build_space(t, program)
        group.exe = program.path.decode(errors="surrogateescape")
    finally:
        program.close()
    old, t.space = t.space, entry.space
    t.memory = UserMemory(entry.space.table, entry.space, arch.byteorder, arch.bits)
    t.arch = arch
    t.kernel.cpu.activate(entry.space.table)
    if old is not None:
        old.release()
    regs.write_many(initial_registers(arch, entry))

    group.argv, group.envp = tuple(program.argv), tuple(program.envp)
    group.exec_count += 1
    who = t.credentials
    group.dumpable = int((who.euid, who.egid) == (who.ruid, who.rgid))
    if (who.euid, who.egid) != (before.euid, before.egid):
        t.pdeathsig = 0
    group.sighand.reset_for_exec()
    t.signals.altstack = AltStack()
    for timer in group.posix_timers.values():
        timer.cancel()
    group.posix_timers.clear()
    t.name = comm_of(program.filename)
    t.clear_child_tid = t.robust_list = t.rseq = t.rseq_length = 0
    t.fds.close_on_exec()


def _credentials(t: Task, program: Program) -> Credentials:
    """Who the task is from now on: set-user-ID files count where the emulator can be somebody else, so for root."""
    found = program.file.stat()
    mode = found.st_mode if t.kernel.host.ids()[0] == 0 else 0
    return t.credentials.executed(mode, found.st_uid, found.st_gid)


def initial_registers(arch: Arch, entry: Entry) -> dict[str, int]:
    """Every register as execve(2) leaves it (start_thread(), ELF_PLAT_INIT)."""
    values = {register.name: register.initial for register in arch.registers}
    values[arch.pc], values[arch.sp] = entry.pc, entry.sp
    return values


def comm_of(filename: bytes) -> str:
    """The task's name: the last component, 15 bytes (__set_task_comm)."""
    return filename.rpartition(b"/")[2][:COMM_LENGTH].decode(errors="surrogateescape")


def describe(path: str, error: LinuxError, argv: Sequence[str] = ()) -> str:
    """Say in a sentence why a program cannot be run, for the command line."""
    if isinstance(error, LoadError):
        return f"{path}: {error.errno.name}: {error.why}"
    return f"{path}: {error.errno.name}"
