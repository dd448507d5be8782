"""The same gdb, the same script, the same program: emugdb prints what gdbserver prints.

Seventeen scripts, five programs in five ways to link (issue 2, "What it must show" 2).
"""

from __future__ import annotations

import re

import pytest

from tests.gdb.clients import SUBJECTS, build, compare, emugdb, gdbserver, missing, transcript

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# One command a line.
SCRIPTS: dict[str, str] = {
    "backtrace": """
        break leaf
        continue
        bt
        up
        info locals
        info frame
        finish
        bt 1
        detach
    """,
    "first instruction": """
        info threads
        x/2i $pc
        stepi
        x/i $pc
        p $sp % 16
        kill
    """,
    "main": """
        break main
        continue
        info source
        info args
        p argc
        p *argv@argc
        next
        next
        detach
    """,
    "registers": """
        break leaf
        continue
        info registers rip cs ss ds es fs gs
        p $rip
        p/x $rdi & 0xffffffff
        p $orig_rax
        set $rax = 0x1122334455667788
        p/x $rax
        p/x $al
        set $eflags = 0x246
        p $eflags
        set $xmm0.v4_float[0] = 1.5
        p $xmm0.v4_float[0]
        set $xmm0.v4_float[1] = 2.5
        p $xmm0.v4_float[1]
        p $mxcsr
        detach
    """,
    "float": """
        break leaf
        continue
        info float
        p $fctrl
        p $ftag
        p $st0
        set $st0 = 1.5
        p $st0
        detach
    """,
    "libraries": """
        break main
        continue
        info sharedlibrary
        info symbol main
        p &counter
        info auxv
        detach
    """,
    "watch": """
        break main
        continue
        watch counter
        continue
        continue
        info watchpoints
        bt 1
        delete
        continue
    """,
    "read watch": """
        break main
        continue
        rwatch counter
        continue
        awatch counter
        continue
        continue
        detach
    """,
    "steps": """
        break main
        continue
        step
        step
        step
        next
        next
        stepi
        nexti
        x/i $pc
        finish
        detach
    """,
    "memory": """
        break leaf
        continue
        x/8i $pc
        x/16xb $pc
        p counter = 41
        continue
        p counter
        printf "%s\\n", "made in the target"
        p $_siginfo.si_signo
        x/4xb 0
        p *(int*)8
        find &counter, +64, (char)41
        kill
    """,
    "calls": """
        break leaf
        continue
        p leaf(2)
        p counter
        p (int)getpid() > 0
        p (unsigned long)strlen("twelve chars")
        p $_exitcode
        finish
        kill
    """,
    "conditions": """
        break leaf if counter > 3
        info breakpoints
        continue
        p counter
        ignore 1 1
        continue
        tbreak leaf
        info breakpoints
        delete 1
        continue
        detach
    """,
    "catch system calls": """
        catch syscall write
        continue
        p $_exitcode
        continue
        delete
        catch syscall exit_group
        continue
        p $orig_rax
        kill
    """,
    "signals": """
        handle SIGUSR1 stop print
        handle SIGALRM nostop noprint pass
        break leaf
        continue
        continue
        p $_siginfo.si_signo
        continue
        bt 1
        detach
    """,
    "to the end": """
        break leaf
        commands 1
        silent
        printf "leaf %d\\n", counter
        end
        continue
        continue
        delete
        continue
        p $_exitcode
        info threads
    """,
    "advance": """
        break main
        continue
        advance leaf
        bt
        until
        return
        bt 1
        kill
    """,
    "the guest's files": """
        info inferiors
        info proc exe
        info proc cmdline
        maint info sections .text
        detach
    """,
}

# Where gdbserver 13 is the one that is wrong: it must stay a difference.
EXPLAINED = {
    (
        "files",
        "catch system calls",
    ): "gdbserver takes the first entry for a return: it counts from the execve it started with",
}

# A processor with AVX shows more registers than ours promises, and numbers what comes after them differently.
MACHINE = re.compile(r"^(ymm|zmm|k\d|pkru|bnd|x/)|AT_HWCAP|AT_SYSINFO_EHDR|AT_MINSIGSTKSZ|AT_RSEQ|AT_RANDOM|AT_FLAGS")


def commands(script: str) -> list[str]:
    return [line.strip() for line in script.splitlines() if line.strip()]


def comparable(lines: list[str]) -> list[str]:
    return [line for line in lines if not MACHINE.search(line)]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_script(subject: str, script: str) -> None:
    if reason := missing("gdb", "gdbserver", "gcc", "g++"):
        pytest.skip(reason)
    program = build(subject)
    expected = comparable(transcript(gdbserver(program), commands(SCRIPTS[script]), program))
    got = comparable(transcript(emugdb(program), commands(SCRIPTS[script]), program))
    if reason := EXPLAINED.get((subject, script)):
        pytest.xfail(reason) if got != expected else pytest.fail(f"no longer: {reason}")
    if difference := compare(got, expected):
        pytest.fail(difference, pytrace=False)
