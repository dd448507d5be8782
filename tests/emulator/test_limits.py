"""The guest runs out of what it was given: it is the guest that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from emulator.arch import by_name
from emulator.debug.target import EmulatorTarget
from emulator.kernel.boot import power_on, spawn
from emulator.kernel.events import AllExited
from emulator.kernel.kernel import Config
from emulator.kernel.tasks import Task
from emulator.machine import Machine
from gdbstub.signals import Signal
from gdbstub.stop import ProcessSignalled
from gdbstub.target import ResumeAction, ResumeKind, Stop
from gdbstub.thread_id import EVERY
from tests.emulator.debug import programs

#: Touches a page after the other; with HOW it is the kernel that does, read(2) of /dev/zero.
GLUTTON = """
.globl _start
.data
zero: .asciz "/dev/zero"
.text
_start:
    mov $9, %eax
    xor %edi, %edi
    mov $0x40000000, %esi
    mov $3, %edx
    mov $0x4022, %r10d
    mov $-1, %r8
    xor %r9d, %r9d
    syscall
    mov %rax, %rbx
HOW
    mov $0x40000, %ecx
1:  movb $1, (%rbx)
    add $0x1000, %rbx
    dec %ecx
    jnz 1b
    mov $60, %eax
    mov $9, %edi
    syscall
"""
READS = """
    mov $2, %eax
    lea zero(%rip), %rdi
    xor %esi, %esi
    syscall
    mov %eax, %edi
    xor %eax, %eax
    mov %rbx, %rsi
    mov $0x40000000, %edx
    syscall
"""


@pytest.mark.parametrize("how", ["", READS], ids=["touched", "read into"])
@pytest.mark.parametrize("hooks", ["c", "python"])
def test_a_process_that_uses_up_the_memory_is_killed(how: str, hooks: str) -> None:
    program = programs.build(GLUTTON.replace("HOW", how))
    command = [sys.executable, "-m", "emulator", "--run", "--memory", "16M", "--hooks", hooks, str(program)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    if b"hooks" in done.stderr:
        pytest.skip("these hooks are not built here")
    assert (done.returncode, done.stderr) == (128 + 9, b"")


def test_under_a_debugger_too() -> None:
    path = os.fsencode(programs.build(GLUTTON.replace("HOW", "")))
    machine = Machine(power_on(by_name("x86_64"), Config(memory_limit=16 << 20)))
    task = spawn(machine.kernel, path, [path], [])
    target = EmulatorTarget(machine)
    target.attached()
    target.stop_at_start(task)
    target.resume([ResumeAction(ResumeKind.CONTINUE, EVERY, Signal.SIG0)])
    while not isinstance(result := target.run_slice(), Stop):
        pass
    assert result.events == (ProcessSignalled(task.pid, Signal.SIGKILL),)


def test_a_fault_of_the_emulators_own_ends_one_process(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """Whatever goes wrong outside a system call's handler: logged, and the process is killed."""
    path = os.fsencode(programs.build(GLUTTON.replace("HOW", "")))
    machine = Machine(power_on(by_name("x86_64"), Config()))
    spawn(machine.kernel, path, [path], [])
    turn, broken = machine._turn, [True]

    def turn_once_broken(task: Task, end: int) -> Task:
        if broken:
            broken.clear()
            raise IndexError("of our own")
        return turn(task, end)

    monkeypatch.setattr(machine, "_turn", turn_once_broken)
    while not isinstance(event := machine.run(1_000_000), AllExited):
        pass
    assert event.status == 9
    assert "of our own" in caplog.text
