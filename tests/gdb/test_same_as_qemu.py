"""gdb-multiarch on aarch64 programs: emugdb prints what `qemu-aarch64 -g` prints, where qemu answers at all."""

from __future__ import annotations

import pytest

from tests.gdb.clients import (
    AARCH64_REPLACEMENTS,
    AARCH64_SUBJECTS,
    AARCH64_SYSROOT,
    build,
    compare,
    emugdb,
    free_port,
    missing,
    transcript,
)
from tests.gdb.test_same_as_gdbserver import commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SCRIPTS: dict[str, str] = {
    "backtrace": """
        break leaf
        continue
        bt
        up
        info locals
        finish
        delete
        continue
    """,
    "registers": """
        break leaf
        continue
        p/x $w0
        p $pc
        p $cpsr & 0x1f
        set $x9 = 0x1122334455667788
        p/x $w9
        p $v31.d.u
        set $v31.d.f[0] = 1.25
        p $d31
        p (int)$fpcr
        kill
    """,
    "steps": """
        break main
        continue
        step
        next
        stepi
        x/2i $pc
        nexti
        x/i $pc
        kill
    """,
    "memory": """
        break leaf
        continue
        x/6i $pc
        p counter = 41
        x/4xb &counter
        x/4xb 8
        kill
    """,
    "calls": """
        break work
        continue
        p leaf(2)
        p counter
        finish
        kill
    """,
    "conditions": """
        break leaf if counter > 3
        continue
        p counter
        delete
        continue
        p $_exitcode
    """,
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("subject", AARCH64_SUBJECTS)
def test_script(subject: str, script: str) -> None:
    if reason := missing("gdb-multiarch", "qemu-aarch64", "aarch64-linux-gnu-gcc"):
        pytest.skip(reason)
    program = build(subject, aarch64=True)
    setup = (f"set sysroot {AARCH64_SYSROOT}",)
    port = free_port()
    qemu = ["qemu-aarch64", "-L", AARCH64_SYSROOT, "-g", str(port), str(program)]
    script_lines = commands(SCRIPTS[script])
    expected = transcript(
        qemu, script_lines, program, port=port, gdb="gdb-multiarch", setup=setup, more=AARCH64_REPLACEMENTS
    )
    got = transcript(
        emugdb(program), script_lines, program, gdb="gdb-multiarch", setup=setup, more=AARCH64_REPLACEMENTS
    )
    if difference := compare(got, expected):
        pytest.fail(difference, pytrace=False)
