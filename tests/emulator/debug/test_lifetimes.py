"""Threads come and go between any two packets, their numbers recycled: an answer is that thread's or an error.

Every thread of the guest carries its own number in every kind of register, so an answer that is somebody else's shows.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable

import pytest

from emulator.arch import by_name
from emulator.debug.target import EmulatorTarget
from emulator.kernel.boot import power_on, spawn
from emulator.kernel.kernel import Config
from emulator.kernel.tasks import TaskUid
from emulator.machine import Machine
from gdbstub.encoding import frame, run_length_decode
from gdbstub.session import Session
from tests.emulator.debug import programs

MAGIC = 0x5AFE5AFE5AFE
FIRST_TID = 1000
TURNS = int(os.environ.get("TURNS", "80"))

#: A nursery: a thread keeps making threads; each marks its registers, spins, and ends the way ENDING says.
NURSERY = """
.globl _start, child, marked
.data
turn: .quad 0
path: .asciz "/proc/self/exe"
argv: .quad path, 0
.bss
.space 4096
stack:
.text
_start:
    call clone
    test %eax, %eax
    jz nurse
    mov $PATIENCE, %ecx
1:  dec %ecx
    jnz 1b
LEADER
clone:
    pop %rbx
    mov $56, %eax
    mov $0x50f00, %edi
    lea stack(%rip), %rsi
    xor %edx, %edx
    xor %r10d, %r10d
    xor %r8d, %r8d
    syscall
    jmp *%rbx
nurse:
    call clone
    test %eax, %eax
    jz child
    mov $6000, %ecx
2:  dec %ecx
    jnz 2b
    jmp nurse
child:
    mov $186, %eax
    syscall
    mov %rax, %r12
    movq %r12, %xmm0
    movq %r12, %xmm15
    movq %r12, %mm0
    mov %r12, %rsi
    shl $4, %rsi
    mov $158, %eax
    mov $0x1002, %edi
    syscall
    mov $1, %eax
    lock xadd %rax, turn(%rip)
    mov %rax, %r13
    mov %r12, %rbp
    mov %r12, %r14
    movabs $MAGIC, %r15
marked:
    mov %r12, %rcx
    and $7, %ecx
    inc %ecx
    shl $14, %ecx
3:  dec %ecx
    jnz 3b
ENDING
    mov $60, %eax
    xor %edi, %edi
    syscall
"""
FOREVER = "4:  mov $34, %eax\n    syscall\n    jmp 4b\n"
LEADERS = {
    "stays": FOREVER,
    "exits": "    mov $60, %eax\n    xor %edi, %edi\n    syscall\n",
    "exit_group": "    mov $231, %eax\n    mov $3, %edi\n    syscall\n",
}
ENDINGS = {
    "exit": "",
    "exit_group": "    cmp $LATE, %r13\n    jb 5f\n    mov $231, %eax\n    mov $4, %edi\n    syscall\n5:\n",
    "crash": "    cmp $LATE, %r13\n    jb 5f\n    mov (0), %rax\n5:\n",
    "exec": (
        "    cmp $LATE, %r13\n    jne 5f\n    mov $59, %eax\n    lea path(%rip), %rdi\n    lea argv(%rip), %rsi\n"
        "    xor %edx, %edx\n    syscall\n5:\n"
    ),
}


class Paced(Session):
    """Runs the target only when told to, so that a reply can be checked against the moment it was made in."""

    def receive(self, data: bytes) -> bytes:
        self.holds = True
        try:
            return super().receive(data)
        finally:
            self.holds = False

    def _run(self, until: float) -> None:
        if not self.holds:
            super()._run(until)


class Wire:
    """A client of a session over the emulator, and what it may believe."""

    def __init__(self, leader: str, ending: str, *, non_stop: bool) -> None:
        source = (
            NURSERY.replace("LEADER", LEADERS[leader]).replace("ENDING", ENDINGS[ending]).replace("PATIENCE", "9000000")
        )
        program = programs.build(source.replace("MAGIC", hex(MAGIC)).replace("LATE", "1500"))
        path = os.fsencode(program)
        self.machine = Machine(power_on(by_name("x86_64"), Config()))
        self.task = spawn(self.machine.kernel, path, [path], [])
        self.target = EmulatorTarget(self.machine)
        self.target.stop_at_start(self.task)
        self.meant: dict[int, TaskUid] = {}  # what a number meant when the server named it
        self.non_stop = non_stop
        self.attach()

    def attach(self) -> None:
        self.session = Paced(self.target)
        self.parse(self.session.receive(frame(b"QStartNoAckMode")))
        self.send("qSupported:multiprocess+;swbreak+;fork-events+;exec-events+;QThreadEvents+;no-resumed+")
        if self.non_stop:
            self.send("QNonStop:1")
        self.send("?")

    def parse(self, out: bytes) -> list[bytes]:
        replies: list[bytes] = []
        while out:
            if out[:1] == b"+":
                out = out[1:]
                continue
            end = out.index(b"#")
            payload = run_length_decode(out[1:end])
            assert int(out[end + 1 : end + 3], 16) == sum(out[1:end]) & 0xFF
            self.learn(payload)
            if out[:1] == b"$":
                replies.append(payload)
            out = out[end + 3 :]
        return replies

    def learn(self, payload: bytes) -> None:
        """The server has named threads: from now on their numbers mean those."""
        names: list[bytes] = []
        if payload[:1] == b"m" and b"p" in payload[:2]:
            names = payload[1:].split(b",")
        for part in payload.split(b";"):
            if b"thread:p" in part:
                names.append(part.split(b"thread:")[1])
        if b"w00;p" in payload[:10]:
            self.meant.pop(int(payload.split(b".")[1], 16), None)
        names += [b".%x" % int(word) for word in re.findall(rb'"tid":(\d+)', payload)]
        for name in names:
            tid = int(name.split(b".")[1], 16)
            task = self.machine.kernel.tasks.find(tid)
            if task is not None and task.alive:
                self.meant[tid] = task.uid

    def send(self, packet: str) -> list[bytes]:
        return self.parse(self.session.receive(frame(packet.encode())))

    def run(self, slices: int) -> None:
        for _ in range(slices):
            if self.session.runnable and not self.session.ended:
                self.parse(self.session.run())

    def wait(self) -> None:
        """All-stop: until it has stopped."""
        for turn in range(100):
            if not self.session.busy or self.session.ended:
                return
            if turn == 3 or not self.session.runnable:
                self.parse(self.session.receive(b"\x03"))
            self.parse(self.session.run())
        raise AssertionError("it never stops")

    def ask(self, packet: str) -> bytes:
        replies = self.send(packet)
        assert len(replies) == 1, (packet, replies)
        return replies[0]

    def check(self, tid: int, packet: str, reply: bytes, registers: Callable[[bytes], dict[str, int]]) -> None:
        """An answer about a thread: it is alive, the one that was meant, and the values are its own."""
        if reply[:1] == b"E" and len(reply) == 3:
            return
        task = self.machine.kernel.tasks.find(tid)
        assert task is not None, (packet, reply)
        assert task.alive, (packet, reply)
        assert self.meant.get(tid, task.uid) == task.uid, (packet, reply)
        found = registers(reply)
        if found.get("r15") == MAGIC:
            own = dict.fromkeys(("rbp", "r12", "r14", "xmm0", "xmm15", "st0"), tid) | {"fs_base": tid * 16}
            assert {name: found[name] for name in own if name in found} == {n: own[n] for n in own if n in found}


def all_registers(wire: Wire) -> Callable[[bytes], dict[str, int]]:
    description = wire.target.describe_arch(wire.machine.kernel.arch)

    def decode(reply: bytes) -> dict[str, int]:
        data, at, values = bytes.fromhex(reply.decode()), 0, {}
        for name, size in zip(description.names, description.sizes, strict=True):
            value = int.from_bytes(data[at : at + size], "little")
            values[name] = value & (1 << 64) - 1 if name in ("xmm0", "xmm15", "st0") else value
            at += size
        return values

    return decode


def nothing(_: bytes) -> dict[str, int]:
    return {}


def one_packet(wire: Wire, rng: random.Random, tid: int) -> None:
    """One packet that names a thread, or works on the one that H has chosen."""
    pid = wire.task.pid
    name = f"p{pid:x}.{tid:x}"
    decode = all_registers(wire)
    stack = wire.target.describe_arch(wire.machine.kernel.arch).names.index("rsp")
    kind = rng.choice("gggggGpPTmMXesStZvvjqH")
    if kind in "gGpPmMXsSqtZ":
        if wire.ask(f"Hg{name}") != b"OK":
            return
        if rng.random() < 0.5:
            wire.run(rng.randrange(4))
    match kind:
        case "g":
            wire.check(tid, "g", wire.ask("g"), decode)
        case "G":
            before = wire.ask("g")
            if before[:1] != b"E":
                wire.run(rng.randrange(3))
                reply = wire.ask("G" + before.decode())
                assert reply == b"OK" or reply[:1] == b"E"
        case "p":
            wire.check(tid, "p", wire.ask(f"p{stack:x}"), nothing)
        case "P":
            before = wire.ask(f"p{stack:x}")
            if before[:1] != b"E":
                wire.run(rng.randrange(3))
                reply = wire.ask(f"P{stack:x}={before.decode()}")
                assert reply == b"OK" or reply[:1] == b"E"
        case "T":
            wire.check(tid, "T", wire.ask(f"T{name}"), nothing)
        case "m" | "M" | "X":
            reply = wire.ask("m400000,8") if kind == "m" else wire.ask(f"{kind}400000,0:")
            assert reply == b"OK" or len(reply) in (3, 16)
        case "e":
            wire.check(tid, "qThreadExtraInfo", wire.ask(f"qThreadExtraInfo,{name}"), nothing)
        case "s":
            reply = wire.ask("qXfer:siginfo:read::0,200")
            assert reply[:1] in b"Elm"
        case "S":
            reply = wire.ask("qXfer:siginfo:write::0:" + "a" * 4)
            assert reply[:1] in b"E0123456789"
        case "t":
            wire.check(tid, "qGetTLSAddr", wire.ask(f"qGetTLSAddr:{name},0,0"), nothing)
        case "Z":
            for packet in ("Z0,400000,1", "z0,400000,1", "Z2,400000,4", "z2,400000,4"):
                reply = wire.ask(packet)
                assert reply == b"OK" or reply[:1] == b"E", packet
        case "j":
            reply = wire.ask(f"qThreadStopInfo{tid:x}")
            assert reply[:1] in b"ETSWX"
            assert wire.ask("jThreadsInfo")[:1] in b"E["
        case "q":
            wire.ask("qC")
            text = wire.ask("qXfer:threads:read::0,4000")
            listed = [int(word.split(b'"')[0].split(b".")[1], 16) for word in text.split(b'id="p')[1:]]
            for other in listed:
                task = wire.machine.kernel.tasks.find(other)
                assert task is not None
                assert task.alive
                wire.meant[other] = task.uid
        case "v" if wire.non_stop:
            action = rng.choice(("t", "c", "s", "C0a", "r400000,400010"))
            wire.ask(f"vCont;{action}:{name}")
        case "v":
            action = rng.choice(("s", "c", "r400000,400010", "C00"))
            replies = wire.send(f"vCont;{action}:{name}" + rng.choice(("", ";c", f";c:p{pid:x}.-1")))
            wire.wait()
            assert len(replies) <= 1
        case _:
            reply = wire.ask(f"Hc{name}")
            assert reply == b"OK" or reply[:1] == b"E"


def listed(wire: Wire) -> list[int]:
    reply = wire.ask("qfThreadInfo")
    tids: list[int] = []
    while reply[:1] == b"m":
        tids += [int(word.split(b".")[1], 16) for word in reply[1:].split(b",")]
        reply = wire.ask("qsThreadInfo")
    return tids


@pytest.mark.parametrize("non_stop", [False, True], ids=["all-stop", "non-stop"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("leader", LEADERS)
def test_answers_are_the_threads_own(leader: str, ending: str, non_stop: bool) -> None:
    rng = random.Random(f"{leader} {ending} {non_stop} {os.environ.get('SEED', '')}")
    wire = Wire(leader, ending, non_stop=non_stop)
    registry = wire.machine.kernel.tasks
    wanted: list[int] = [wire.task.pid]
    if non_stop:
        wire.ask(f"vCont;c:p{wire.task.pid:x}.-1")
    for _ in range(TURNS):
        if wire.session.ended or not wire.target.debugged:
            break
        registry.set_next(FIRST_TID + 1 + rng.randrange(4))  # numbers come back soon
        if not non_stop and rng.random() < 0.3:
            wire.send("vCont;c")
            for _ in range(rng.randrange(1, 4)):
                wire.parse(wire.session.run())
            if wire.session.busy:
                wire.parse(wire.session.receive(b"\x03"))
            wire.wait()
        elif non_stop:
            wire.run(rng.randrange(3))
            wire.send("vStopped")
            if rng.random() < 0.3:
                wire.send(f"vCont;c:p{wire.task.pid:x}.-1")
        if wire.session.ended or not wire.target.debugged:
            break
        if rng.random() < 0.4:
            wanted = [*wanted[-6:], *listed(wire)]
        if rng.random() < 0.1:
            wire.ask(f"QThreadEvents:{rng.randrange(2)}")
        if rng.random() < 0.02:
            wire.session.close()
            wire.meant.clear()
            wire.attach()
        one_packet(wire, rng, rng.choice([*wanted, FIRST_TID + rng.randrange(9)]))
    if not wire.session.ended:
        assert wire.ask("vMustReplyEmpty") == b""
        reply = wire.send(f"vKill;{wire.task.pid:x}")
        assert reply[-1:] == [b"OK"] or reply[-1][:1] == b"E"
