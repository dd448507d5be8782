"""extended-remote: start programs, attach to processes of the machine (vRun, R, vAttach)."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.debug.core import EINVAL, ESRCH
from emulator.debug.stepping import SteppingAbility
from emulator.errors import LinuxError
from emulator.kernel.boot import spawn
from emulator.kernel.exec import describe
from emulator.kernel.tasks import Live
from gdbstub.abilities import LaunchSettings
from gdbstub.errors import TargetError
from gdbstub.stop import StopEvent


class LaunchAbility(SteppingAbility):
    """Launch."""

    environment: dict[bytes, bytes]  # what programs start with, before the client's changes
    last_launch: tuple[bytes, tuple[bytes, ...]]

    def launch(self, program: bytes, arguments: Sequence[bytes], settings: LaunchSettings) -> StopEvent:
        """Start a program, stopped before its first instruction."""
        path = program or self.last_launch[0]
        words = tuple(arguments) if program or arguments else self.last_launch[1]
        if not path:
            raise TargetError(EINVAL, "no program to run: give vRun a file name")
        environment = dict(self.environment)
        for name, value in settings.environment.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        self.kernel.config.aslr = not settings.disable_randomization
        cwd = settings.working_directory.decode(errors="surrogateescape")
        try:
            envp = [name + b"=" + value for name, value in environment.items()]
            task = spawn(self.kernel, path, [path, *words], envp, cwd=cwd)
        except LinuxError as error:
            raise TargetError(EINVAL, describe(path.decode(errors="replace"), error)) from None
        self.last_launch = (path, words)
        return self.stop_at_start(task)

    def attach(self, process: int) -> StopEvent:
        """Stop a process of the machine that nobody debugs."""
        found = self.kernel.tasks.look_up_tid(process)
        if not isinstance(found, Live) or self.traces(found.task.group):
            raise TargetError(ESRCH, f"no process {process} can be attached to")
        for task in found.task.group.tasks.values():
            task.hold = True
        return self.stop_at_start(found.task)
