"""Tiny static programs for the debugger's tests, assembled once a session."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

from tests.native.harness import BUILD, locked

LOOP = """
.globl _start, f, var, done
.data
var: .quad 0
.text
f:  add $1, %rax
    ret
_start:
    xor %eax, %eax
    mov $COUNT, %ecx
1:  call f
    mov %rax, var(%rip)
    dec %ecx
    jnz 1b
done:
    mov $60, %eax
    mov $7, %edi
    syscall
"""

#: The kernel stores into `var`: pipe(2).
STORED = """
.globl _start, var, call, after
.data
var: .quad 0
.text
_start:
    mov $22, %eax
    lea var(%rip), %rdi
call: syscall
after:
    mov $60, %eax
    mov $7, %edi
    syscall
"""

#: Reads a byte from stdin-like pipe it owns, so it blocks for ever.
BLOCKED = """
.globl _start
_start:
    mov $34, %eax
    syscall
    jmp _start
"""

SEGFAULT = """
.globl _start, bad
_start:
    mov $0x1000, %ebx
bad: mov (%rbx), %rax
    mov $60, %eax
    syscall
"""

#: Makes a thread that exits at once, joins it through CHILD_CLEARTID, exits.
THREAD = """
.globl _start, child, joined
.data
tid: .long 1
.bss
.space 4096
stack:
.text
_start:
    mov $56, %eax
    mov $0x250f00, %edi
    lea stack(%rip), %rsi
    lea tid(%rip), %rdx
    lea tid(%rip), %r10
    xor %r8d, %r8d
    syscall
    test %eax, %eax
    jnz parent
child:
    mov $60, %eax
    xor %edi, %edi
    syscall
parent:
    mov tid(%rip), %edx
    test %edx, %edx
    jz joined
    mov $202, %eax
    lea tid(%rip), %rdi
    xor %esi, %esi
    xor %r10d, %r10d
    syscall
    jmp parent
joined:
    nop
    mov $231, %eax
    xor %edi, %edi
    syscall
"""

#: The child spins, the parent goes to `parent`.
FORK = """
.globl _start, parent, child
_start:
    mov $57, %eax
    syscall
    test %eax, %eax
    jnz parent
child:
    inc %rbx
    jmp child
parent:
    nop
    mov $60, %eax
    xor %edi, %edi
    syscall
"""

#: A child by clone(2) that shares memory, but is no thread; both go to `both`, the parent waits for it.
CLONE = """
.globl _start, both
.bss
.space 4096
stack:
.text
_start:
    mov $56, %eax
    mov $0x100, %edi
    lea stack(%rip), %rsi
    xor %edx, %edx
    xor %r10d, %r10d
    xor %r8d, %r8d
    syscall
    mov %rax, %rbx
both:
    nop
    test %rbx, %rbx
    jz gone
    mov $61, %eax
    mov %rbx, %rdi
    xor %esi, %esi
    mov $0x80000000, %edx
    xor %r10d, %r10d
    syscall
gone:
    mov $60, %eax
    xor %edi, %edi
    syscall
"""

#: Two threads count; each tick of the child's count logs where the parent's is.
TWINS = """
.globl _start, tick, log, done
.bss
.space 4096
stack:
count: .quad 0
log: .space 80
.text
tick:
    mov count(%rip), %rax
    mov %rax, (%rdi)
    add $8, %rdi
    ret
_start:
    mov $56, %eax
    mov $0x50f00, %edi
    lea stack(%rip), %rsi
    xor %edx, %edx
    xor %r10d, %r10d
    xor %r8d, %r8d
    syscall
    lea log(%rip), %rdi
    test %eax, %eax
    jz child
1:  incq count(%rip)
    cmpq $0, log+72(%rip)
    je 1b
done:
    nop
    mov $231, %eax
    xor %edi, %edi
    syscall
child:
    mov $70000, %ecx
2:  dec %ecx
    jnz 2b
    call tick
    jmp child
"""

#: vfork, and the child vforks too; each that goes on exits.
VFORKS = """
.globl _start
_start:
    mov $58, %eax
    syscall
    test %eax, %eax
    jnz 1f
    mov $58, %eax
    syscall
1:  mov $60, %eax
    xor %edi, %edi
    syscall
"""

#: One of each: shared memory, semaphores (3), a message queue, a socket that listens.
SHARED = """
.globl _start, done
.macro call number, first, second, third
    mov $\\number, %eax
    mov $\\first, %edi
    mov $\\second, %esi
    mov $\\third, %edx
    syscall
.endm
_start:
    call 29, 17, 4096, 0x3b6
    call 64, 18, 3, 0x3b6
    call 68, 19, 0x380, 0
    call 41, 2, 1, 0
    mov %eax, %ebx
    mov $50, %eax
    mov %ebx, %edi
    syscall
done:
    nop
"""


@cache
def build(source: str) -> Path:
    """Assemble and link, or find it made from the same text."""
    directory = BUILD / "assembled" / hashlib.sha256(source.encode()).hexdigest()[:16]
    program = directory / "program"
    with locked(directory / "lock"):
        if not program.exists():
            (directory / "program.S").write_text(source)
            partial = directory / "partial"
            subprocess.run(["gcc", "-g", "-nostdlib", "-static", "-o", partial, directory / "program.S"], check=True)
            partial.rename(program)
    return program


@cache
def symbols(program: Path) -> dict[str, int]:
    """Its symbols."""
    text = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    return {line.split()[2]: int(line.split()[0], 16) for line in text.splitlines() if len(line.split()) == 3}
