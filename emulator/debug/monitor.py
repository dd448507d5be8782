"""`monitor` commands (qRcmd).

Rule: words in, text out; nothing here evaluates code.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from emulator.abi.memory import PAGE_SIZE
from emulator.debug.core import EINVAL
from emulator.debug.stepping import SteppingAbility
from emulator.debug.strace import Strace
from emulator.errors import EmulatorError
from emulator.kernel.tasks import Task
from gdbstub.abilities import MonitorCommand
from gdbstub.errors import TargetError


class MonitorAbility(SteppingAbility):
    """Monitor."""

    def monitor_commands(self) -> Sequence[MonitorCommand]:
        """The table `monitor help` prints."""
        return (
            MonitorCommand("threads", "threads", "every thread of the machine and what it does", self._list_threads),
            MonitorCommand("maps", "maps [PID]", "the mappings of a process, as /proc/PID/maps", self._maps),
            MonitorCommand("fds", "fds [PID]", "open file descriptors", self._fds),
            MonitorCommand("sockets", "sockets", "open sockets of every process", self._sockets),
            MonitorCommand("strace", "strace on|off", "one line a system call, on the server's stderr", self._strace),
            MonitorCommand("stats", "stats", "counters of the engine and of memory", self._stats),
            MonitorCommand(
                "set", "set WHAT VALUE", "gdbserver's settings: debug, remote-debug, debug-format", self._set
            ),
            MonitorCommand("exit", "exit", "end every process and the server", self._exit),
            MonitorCommand("clock", "clock", "instructions retired since power-on", self._clock),
        )

    def _list_threads(self, words: Sequence[str]) -> str:
        lines = [f"{'PID':>6} {'TID':>6} {'STATE':<10} {'PC':<18} NAME"]
        for task in self.kernel.tasks:
            pc = ""
            if (task.alive and task.context is not None) or task is self.kernel.current:
                pc = f"{self.kernel.registers_of(task).read(task.arch.pc):#018x}"
            state = task.state.value if task.wait is None else task.wait.what
            lines.append(f"{task.pid:>6} {task.tid:>6} {state:<10} {pc:<18} {task.name}")
        return "\n".join(lines) + "\n"

    def _process(self, words: Sequence[str]) -> Task:
        return self.leader(int(words[0], 0) if words and words[0].isdigit() else 0)

    def _maps(self, words: Sequence[str]) -> str:
        return self._process(words).space.maps_text()

    def _fds(self, words: Sequence[str]) -> str:
        task = self._process(words)
        lines = [f"{'FD':>4} {'KIND':<12} NAME"]
        for fd, description in task.fds:
            lines.append(f"{fd:>4} {description.kind:<12} {_name(description)}")
        return "\n".join(lines) + "\n"

    def _sockets(self, words: Sequence[str]) -> str:
        lines = [f"{'PID':>6} {'FD':>4} SOCKET"]
        for task in self.kernel.tasks:
            if not task.alive or not task.is_leader:
                continue
            for fd, description in task.fds:
                if description.kind == "socket":
                    lines.append(f"{task.pid:>6} {fd:>4} {_name(description)}")
        return "\n".join(lines) + "\n"

    def _strace(self, words: Sequence[str]) -> str:
        if list(words) == ["on"]:
            self.kernel.strace = Strace(self.write_diagnostic)
        elif list(words) == ["off"]:
            self.kernel.strace = None
        elif words:
            return "usage: monitor strace on|off\n"
        self.watch_calls()
        return f"strace is {'on' if self.kernel.strace is not None else 'off'}\n"

    def _stats(self, words: Sequence[str]) -> str:
        rows = dict(self.kernel.cpu.stats())
        rows["frames used (KiB)"] = self.kernel.arena.used_frames() * PAGE_SIZE // 1024
        rows["tasks"] = len(self.kernel.tasks)
        return "".join(f"{name:<24} {value}\n" for name, value in rows.items())

    def _set(self, words: Sequence[str]) -> str:
        """Answer in gdbserver's words; only the log level and the thread library's path mean anything here."""
        what, value = (*words, "", "")[:2]
        on = value not in ("0", "off", "none", "")
        match what:
            case "debug":
                logging.getLogger("emulator").setLevel(logging.DEBUG if on else logging.ERROR)
                return f"Debug output {_enabled(on)}.\n"
            case "remote-debug":
                logging.getLogger("gdbstub").setLevel(logging.DEBUG if on else logging.ERROR)
                return f"Protocol debug output {_enabled(on)}.\n"
            case "event-loop-debug":
                return f"Event loop debug output {_enabled(on)}.\n"
            case "debug-hw-points":
                return f"H/W point debugging output {_enabled(on)}.\n"
            case "debug-format":
                return f"All extra debug format options {_enabled(on)}.\n"
            case "libthread-db-search-path":
                self.tls_disabled = bool(value)
                return f"libthread-db-search-path set to `{value}'\n"
        raise TargetError(EINVAL, f"there is no setting {what!r}")

    def _exit(self, words: Sequence[str]) -> str:
        for process in list(self.debugged):
            self.kill(process)
        self.exit_requested = True
        return ""

    def _clock(self, words: Sequence[str]) -> str:
        return f"{self.kernel.cpu.clock}\n"


def _enabled(on: bool) -> str:
    return "enabled" if on else "disabled"


def _name(description: object) -> str:
    try:
        return description.readlink_text().decode("utf-8", "replace")  # type: ignore[attr-defined, no-any-return]
    except EmulatorError:
        return "?"
