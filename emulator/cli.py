"""The command line: `emugdb [OPTIONS] [COMM] PROG [ARGS...]`, a drop-in for gdbserver, close to qemu-user's.

Rule: options come before PROG; whatever follows it is the program's.  Nothing but "Listening on port N" is printed
while serving, unless asked for; errors are sentences that say what to do.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from emulator.arch.model import Arch
    from emulator.kernel.events import Idle
    from emulator.kernel.kernel import Config
    from emulator.machine import Machine

DEFAULT_COMM = ":1234"
_STDIO = ("-", "stdio")
_RUN_SLICE = 5_000_000
_COMM = re.compile(r"^(?P<host>\[[0-9a-fA-F:.%a-z]*\]|[^:/]*):(?P<port>\d{1,5})$")
_SIZE = re.compile(r"^(\d+)\s*([KMGT]?)(i?B?)$", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def is_comm(text: str) -> bool:
    """Whether a word is HOST:PORT, :PORT, unix:PATH or - (else it is the program)."""
    return text in _STDIO or text.startswith("unix:") or _COMM.match(text) is not None


def parse_size(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """512M, 2GiB, 1000000."""
    if value is None:
        return None
    found = _SIZE.match(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is not a size; write for example 512M or 2G")
    return int(found[1]) * _UNITS[found[2].upper()]


class OptionsFirst(click.Command):
    """Stop looking for options at the first word that is not one."""

    allow_interspersed_args = False


def _version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    from emulator.cpu.mmu import HOOKS_KIND

    try:
        own = version("emugdb")
    except PackageNotFoundError:
        own = "0.1.0 (not installed)"
    hooks = "C hooks" if HOOKS_KIND == "c" else "Python hooks (slow: install a C compiler and reinstall)"
    click.echo(f"emugdb {own}, engine Unicorn {version('unicorn')}, {hooks}")
    context.exit()


@click.command(
    cls=OptionsFirst,
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
    options_metavar="[OPTIONS]",
)
@click.option("--run", is_flag=True, help="Run without a debugger; end with the program's status (128+signal).")
@click.option("--once", is_flag=True, help="Serve one debugger, then end (the default is to end with the program).")
@click.option("--keep", is_flag=True, help="Go on serving after a debugger or the program is gone.")
@click.option("--multi", is_flag=True, help="For `target extended-remote`: PROG is optional, the debugger starts it.")
@click.option("--root", metavar="DIR", default="/", help="The guest's / (it cannot leave it).")
@click.option("-L", "sysroot", metavar="DIR", help="Where a foreign program's interpreter and libraries are.")
@click.option("--env", "-E", metavar="K=V", multiple=True, help="Set an environment variable.")
@click.option("--unset-env", "-U", metavar="K", multiple=True, help="Unset an environment variable.")
@click.option("--argv0", "-0", metavar="NAME", help="The program's argv[0].")
@click.option("--cwd", metavar="DIR", help="The guest's current directory.")
@click.option("--strace", is_flag=True, help="Print one line a system call.")
@click.option("--strace-clock", is_flag=True, help="--strace, each line with the instruction clock.")
@click.option("--strace-output", metavar="FILE", help="Where --strace prints (default: stderr).")
@click.option("--log-packets", metavar="FILE", help="Log every packet.")
@click.option("--seed", type=int, help="Vary the thread interleaving, reproducibly.")
@click.option("--memory", metavar="SIZE", callback=parse_size, help="Guest memory limit, for example 512M.")
@click.option("--net", type=click.Choice(["host", "loopback", "none"]), default="host", help="What sockets may reach.")
@click.option("--hooks", type=click.Choice(["auto", "c", "python"]), default="auto", help="Engine hooks to use.")
@click.option("--aslr/--no-aslr", default=False, help="Randomise the address space (off, as under a debugger).")
@click.option("-v", "--verbose", count=True, help="Say more on stderr.")
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Say what runs.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMM] PROG [ARGS...]")
def command(words: tuple[str, ...], **options: Any) -> None:
    """Serve PROG, in an emulated Linux, to a debugger that speaks GDB's remote protocol.

    COMM is HOST:PORT, :PORT (loopback), unix:PATH or - (stdio); 127.0.0.1:1234 if left out.  Port 0 picks a free one.
    """
    raise SystemExit(_main(list(words), options))


def main() -> None:
    """Entry point of the `emugdb` script."""
    _keep_bytecode()
    gc.disable()  # nothing made while starting is garbage; looking for it is a fifth of the start
    command()


def _started() -> None:
    """What exists now stays: collections from here on look at what comes after it."""
    gc.freeze()
    gc.enable()


def _keep_bytecode() -> None:
    """Keep compiled modules in the user's cache where PYTHONDONTWRITEBYTECODE keeps them out of the source tree.

    Without them every start compiles two megabytes of Python: a second instead of a quarter.
    """
    if sys.dont_write_bytecode and sys.pycache_prefix is None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        sys.pycache_prefix = os.path.join(cache, "emugdb", "bytecode")
        sys.dont_write_bytecode = False


def _main(words: list[str], options: dict[str, Any]) -> int:
    address = DEFAULT_COMM
    if words and not options["run"] and is_comm(words[0]):
        address, *words = words
    if not words and not options["multi"]:
        raise click.UsageError("no program: emugdb [OPTIONS] [COMM] PROG [ARGS...]")
    _logging(options["verbose"])
    options["stdio"] = _take_stdio() if address in _STDIO else None
    if options["hooks"] != "auto":
        os.environ["EMUGDB_HOOKS"] = options["hooks"]
    if words:
        return _with_program(words, address, options)
    return _serve(_power_on(None, options), address, options, None)


def _take_stdio() -> tuple[int, int]:
    """Keep stdin and stdout for the debugger; the program gets /dev/null and stderr, as under gdbserver."""
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return reading, writing


def _logging(verbose: int) -> None:
    import logging

    level = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 3)]
    logging.basicConfig(level=level, format="emugdb: %(message)s", stream=sys.stderr)


def _environment(options: dict[str, Any]) -> dict[bytes, bytes]:
    environment = dict(os.environb)
    for item in options["env"]:
        name, equals, value = os.fsencode(item).partition(b"=")
        if not equals:
            raise click.UsageError(f"--env {item}: write --env NAME=VALUE")
        environment[name] = value
    for name in options["unset_env"]:
        environment.pop(os.fsencode(name), None)
    return environment


def find_program(name: str, root: str, search: str) -> str:
    """The guest's path of a program: as given if it has a slash, else here, else along PATH."""
    if "/" in name:
        return name
    if root == "/" and os.path.isfile(name):
        return os.path.abspath(name)
    for directory in search.split(":"):
        candidate = os.path.join(directory or ".", name)
        inside = root.rstrip("/") + "/" + candidate.lstrip("/") if root != "/" else candidate
        if os.path.isfile(inside) and os.access(inside, os.X_OK):
            return candidate
    return name


def _power_on(program: str | None, options: dict[str, Any]) -> Machine:
    from emulator.errors import EmulatorError
    from emulator.kernel.boot import power_on
    from emulator.kernel.kernel import Config
    from emulator.machine import Machine

    try:
        arch = _arch_of(program, options["root"])
        config: Config = Config(
            root=options["root"],
            cwd=options["cwd"] or "",
            net=options["net"],
            memory_limit=options["memory"],
            seed=options["seed"],
            aslr=options["aslr"],
            own_mounts=options["root"] == "/",
            hooks=options["hooks"],
            library_path=_sysroots(arch, options),
        )
        kernel = power_on(arch, config)
    except EmulatorError as error:
        raise click.ClickException(str(error)) from None
    if options["strace"] or options["strace_clock"]:
        kernel.strace = _tracer(kernel, options)
        kernel.watch_calls = True
    return Machine(kernel)


def _arch_of(program: str | None, root: str) -> Arch:
    """The ISA the machine must have: the program's, or its interpreter's."""
    from emulator.arch import ARCHES
    from emulator.errors import LinuxError
    from emulator.loader.identify import identify

    def head_of(path: bytes) -> bytes:
        inside = os.fsencode(root).rstrip(b"/") + os.path.abspath(path) if root != "/" else path
        try:
            with open(inside, "rb") as file:
                return file.read(1 << 16)
        except OSError:
            return b""  # execve says why

    if program is None:
        return ARCHES[0]
    try:
        return identify(os.fsencode(program), head_of)
    except LinuxError as error:
        raise click.ClickException(f"cannot run {program}: {getattr(error, 'why', error)}") from None


def _sysroots(arch: Arch, options: dict[str, Any]) -> tuple[str, ...]:
    """-L, or Debian's cross libraries for a foreign program."""
    from emulator.loader.identify import sysroot_of

    if options["root"] != "/" and not options["sysroot"]:
        return ()
    found = sysroot_of(arch, os.uname().machine, options["sysroot"] or "", os.path.isdir)
    return (found,) if found else ()


def _tracer(kernel: Any, options: dict[str, Any]) -> Any:
    from emulator.debug.strace import Strace

    stream = open(options["strace_output"], "w", buffering=1) if options["strace_output"] else sys.stderr  # noqa: SIM115

    def sink(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return Strace(sink, clock=(lambda: kernel.cpu.clock) if options["strace_clock"] else None)


def _with_program(words: list[str], address: str, options: dict[str, Any]) -> int:
    from emulator.errors import LinuxError
    from emulator.kernel.boot import spawn
    from emulator.kernel.exec import describe

    environment = _environment(options)
    search = environment.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").decode(errors="surrogateescape")
    program = find_program(words[0], options["root"], search)
    machine = _power_on(program, options)
    argv = [os.fsencode(options["argv0"] or program), *(os.fsencode(word) for word in words[1:])]
    envp = [name + b"=" + value for name, value in environment.items()]
    try:
        task = spawn(machine.kernel, os.fsencode(program), argv, envp, cwd=options["cwd"] or "")
    except LinuxError as error:
        raise click.ClickException(_why_not(program, error, describe(program, error))) from None
    if machine.kernel.strace is not None:
        machine.kernel.strace.launched(task, os.fsencode(program), argv, len(envp))
    if options["run"]:
        return run(machine)
    return _serve(machine, address, options, task)


def _why_not(program: str, error: Any, known: str) -> str:
    """A sentence that says what to do."""
    from emulator.debug.errno_text import TEXT

    if hasattr(error, "why"):
        return f"cannot run {known}"
    remedy = {"ENOENT": "; give the program's path, or a name that is in PATH"}.get(error.errno.name, "")
    return f"cannot run {program}: {TEXT.get(error.errno, 'error')} ({error.errno.name}){remedy}"


def run(machine: Machine) -> int:
    """Run to the end without a debugger."""
    from emulator.kernel.events import AllExited, Idle

    _started()
    console = _Console(machine)
    while True:
        event = machine.run(_RUN_SLICE)
        console.deliver()
        if type(event) is AllExited:
            if machine.kernel.strace is not None:
                machine.kernel.strace.finished(event.status)
            return exit_status(event.status)
        if console.first_has_left():
            status = exit_status(machine.kernel.first_status)
            if os.fork():
                return status  # as natively: whoever waits for the program goes on, its children stay behind
            console.let_go()
        if type(event) is Idle:
            console.wait(event)


class _WokenError(Exception):
    """A host signal ended the sleep."""


class _Console:
    """Hands host signals to the guest: the keyboard's to its foreground process group, others to its first process."""

    def __init__(self, machine: Machine) -> None:
        import signal

        self.machine = machine
        self.pending: list[int] = []
        self.sleeping = False
        self.detached = False
        self.caught: list[int] = []
        self.keyboard = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH}
        for number in (*self.keyboard, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._caught)
                self.caught.append(number)

    def _caught(self, number: int, _frame: object) -> None:
        self.pending.append(number)
        self.machine.interrupt()
        if self.sleeping:
            self.sleeping = False
            raise _WokenError

    def first_has_left(self) -> bool:
        """Has the program ended while others of its making go on? Said once."""
        first = self.machine.kernel.first_group
        return not self.detached and first is not None and not first.tasks

    def let_go(self) -> None:
        """There is no first process to hand signals to any more: they are for the emulator itself."""
        import signal

        self.detached = True
        for number in self.caught:
            signal.signal(number, signal.SIG_DFL)

    def wait(self, idle: Idle) -> None:
        """Sleep until the machine has something to do, or a signal comes."""
        try:
            self.sleeping = True
            if not self.pending:
                self.machine.wait(idle)
            self.sleeping = False
        except _WokenError:
            pass
        self.deliver()

    def deliver(self) -> None:
        """Send what has been caught."""
        from emulator.abi.signals import SI_KERNEL, Siginfo
        from emulator.kernel import signals

        while self.pending:
            number = self.pending.pop(0)
            kernel = self.machine.kernel
            first = kernel.first_group
            if first is None:
                return
            foreground = first.session.foreground_pgid
            if number in self.keyboard and foreground:
                kernel.send_to_pgrp(foreground, Siginfo(number, SI_KERNEL))
            elif not first.zombie:
                signals.send_to_group(first, Siginfo(number, SI_KERNEL))


def exit_status(status: int) -> int:
    """A wait status as a shell tells it."""
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def _to_stderr(text: str) -> None:
    sys.stderr.write(text if text.endswith("\n") else text + "\n")
    sys.stderr.flush()


def _serve(machine: Machine, address: str, options: dict[str, Any], task: Any) -> int:
    from functools import partial

    import trio

    from emulator.debug.target import EmulatorTarget, LaunchingTarget
    from gdbstub.server import Address, Ending, StdioAddress, parse_address, serve

    where: Address
    if options["stdio"] is not None:
        where = StdioAddress(*options["stdio"])
    else:
        try:
            where = parse_address(address.replace("localhost:", "127.0.0.1:"))
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    target = (LaunchingTarget if options["multi"] or options["keep"] else EmulatorTarget)(machine, _to_stderr)
    if isinstance(target, LaunchingTarget):
        target.environment = _environment(options)
    if task is not None:
        target.stop_at_start(task)
    log = _packet_log(options["log_packets"])
    _started()
    try:
        ending = trio.run(partial(serve, target, where, keep=not options["once"], log=log))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address}: {error.strerror}; choose another COMM") from None
    if ending is Ending.DETACHED or (ending is Ending.FINISHED and machine.kernel.groups):
        return run(machine)
    return 0


def _packet_log(path: str | None) -> Callable[[str, bytes], None] | None:
    if path is None:
        return None
    stream = open(path, "w", buffering=1)  # noqa: SIM115 - for the life of the server

    def write(direction: str, payload: bytes) -> None:
        stream.write(f"{direction} {payload.decode('latin-1')}\n")

    return write
