"""Every packet against the in-memory target, in the manual's order, and the rules of the conversation."""

from __future__ import annotations

import json

import pytest

from gdbstub import registry
from gdbstub.encoding import escape, frame, unescape
from gdbstub.session import Session
from gdbstub.signals import Signal
from gdbstub.stop import (
    Execed,
    Forked,
    ForkKind,
    HardwareBreakpoint,
    LibraryEvent,
    NoResumed,
    ProcessExited,
    ProcessSignalled,
    Reason,
    SoftwareBreakpoint,
    StopEvent,
    Stopped,
    SyscallEntry,
    SyscallReturn,
    ThreadCreated,
    ThreadExitedEvent,
    VforkDone,
    Watchpoint,
    WatchType,
)
from gdbstub.target import RUNNING, ResumeAction, ResumeKind, Stop, Waiting
from gdbstub.thread_id import EVERY, ThreadId
from tests.gdbstub.fake import BASE, DESCRIPTION, MAIN, PC, PID, SIZE, Client, FakeTarget

OFFERS = (
    "multiprocess+", "swbreak+", "hwbreak+", "fork-events+", "vfork-events+", "exec-events+", "no-resumed+",
    "xmlRegisters=i386",
)  # fmt: skip
OTHER = ThreadId(PID, 43)


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def client(target: FakeTarget) -> Client:
    return Client(target, *OFFERS)


def hexed(text: str | bytes) -> str:
    return (text.encode() if isinstance(text, str) else text).hex()


# ------------------------------------------------------------------------------------------------------- negotiation


def test_every_advertised_feature_answers(client: Client) -> None:
    """gdb: an advertised packet that answers empty is an error ("conflicting enabled responses")."""
    samples = {
        "QStartNoAckMode": "QStartNoAckMode",
        "QPassSignals": "QPassSignals:e;10",
        "QProgramSignals": "QProgramSignals:0;1",
        "QCatchSyscalls": "QCatchSyscalls:1;0;1",
        "QThreadEvents": "QThreadEvents:1",
        "QThreadOptions": "QThreadOptions;3:p2a.2a",
        "QNonStop": "QNonStop:0",
        "QStartupWithShell": "QStartupWithShell:1",
        "QDisableRandomization": "QDisableRandomization:1",
        "QEnvironmentHexEncoded": "QEnvironmentHexEncoded:" + hexed("A=b"),
        "QEnvironmentUnset": "QEnvironmentUnset:" + hexed("A"),
        "QEnvironmentReset": "QEnvironmentReset",
        "QSetWorkingDir": "QSetWorkingDir:" + hexed("/tmp"),
        "ReverseContinue": "bc",
        "ReverseStep": "bs",
        "qEcho": "qEcho:7",
        "binary-upload": "x1000,4",
        "ConditionalBreakpoints": "Z0,1000,1;X3,220127",
        "BreakpointCommands": "Z0,1000,1;cmds:1,X3,220127",
        "qXfer:features:read": "qXfer:features:read:target.xml:0,100",
        "qXfer:libraries-svr4:read": "qXfer:libraries-svr4:read::0,100",
        "augmented-libraries-svr4-read": "qXfer:libraries-svr4:read:start=10;prev=0:0,100",
        "qXfer:siginfo:write": "qXfer:siginfo:write::0:abc",
    }
    answer = client.ask("qSupported").decode().split(";")
    assert answer[0] == "PacketSize=40000"
    plain = {"multiprocess", "no-resumed", "error-message", "vContSupported", "swbreak", "hwbreak"}
    plain |= {"fork-events", "vfork-events", "exec-events"}
    names = {feature.rstrip("+").split("=")[0] for feature in answer[1:]}
    for name in names - plain:
        packet = samples.get(name, f"{name}::0,100")
        reply = client.ask(packet)
        assert reply and not reply.startswith(b"E"), (name, packet, reply)
    assert set(samples) <= names


def test_a_target_without_abilities_advertises_nothing_of_them() -> None:
    abilities = {row.needs for row in registry.REGISTRY.rows if row.needs}
    assert len(abilities) > 15

    class Plain:
        def __getattr__(self, name: str) -> object:
            if name in ("attached", "is_running"):
                return lambda: None
            raise AttributeError(name)

    session = Session(Plain())  # type: ignore[arg-type]
    reply = session.receive(frame(b"qSupported:multiprocess+"))
    for word in (b"QCatch", b"siginfo", b"swbreak", b"Reverse", b"QNonStop", b"auxv", b"fork", b"QThread"):
        assert word not in reply
    assert session.receive(frame(b"Z0,1000,1")) == b"+$#00"


def test_a_bare_qsupported_changes_nothing(client: Client) -> None:
    client.ask("qSupported")
    assert client.ask("?").startswith(b"T05thread:p2a.2a;")


def test_vmustreplyempty_and_unknown_packets(client: Client) -> None:
    for packet in (
        "vMustReplyEmpty",
        "qUnknown",
        "Qqemu.sstepbits",
        "vFlashErase:0,1",
        "y",
        "\x00",
        "qXfer:nothing:read::0,1",
    ):
        assert client.ask(packet) == b""
    assert client.ask("") == b""


def test_acks_and_resend(target: FakeTarget) -> None:
    session = Session(target)
    assert session.receive(b"$qC#b4") == b"+" + frame(b"QC2a")
    assert session.receive(b"-") == frame(b"QC2a")
    assert session.receive(b"$qC#b5") == b"-"
    assert session.receive(frame(b"QStartNoAckMode")) == b"+$OK#9a"
    assert session.receive(b"+$qC#b4") == frame(b"QC2a")
    assert session.receive(b"-") == b""


def test_pipelined_packets(target: FakeTarget) -> None:
    session = Session(target)
    session.receive(frame(b"QStartNoAckMode"))
    out = session.receive(b"".join(frame(packet) for packet in (b"qC", b"T2a", b"Hg0")))
    assert out == frame(b"QC2a") + frame(b"OK") * 2


def test_an_impatient_first_packet_has_one_reply(target: FakeTarget) -> None:
    first, next_ = frame(b"qSupported:swbreak+"), frame(b"vMustReplyEmpty")
    out = Session(target).receive(first * 3)
    assert out == Session(target).receive(first)
    session = Session(target)
    session.receive(first)
    assert session.receive(first) == out  # asked again on purpose
    assert session.receive(next_ * 2) == (b"+" + frame(b"")) * 2


def test_errors_have_text_only_for_who_can_read_it(target: FakeTarget) -> None:
    assert Client(target).ask("m0,4") == b"E0e"
    assert Client(target, "error-message+").ask("m0,4") == b"E.cannot access memory at address 0x0"
    lldb = Client(target)
    lldb.ask("QEnableErrorStrings")
    assert lldb.ask("m0,4") == b"E0e;" + hexed("cannot access memory at address 0x0").encode()


def test_a_crashing_handler_is_an_error_reply(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.ask("qRcmd," + hexed("crash")) == b"E01"
    assert "qRcmd" in caplog.text
    assert "a bug" in caplog.text
    assert client.ask("qC") == b"QCp2a.2a"


# --------------------------------------------------------------------------------------------- registers and memory


def test_registers(client: Client, target: FakeTarget) -> None:
    assert client.ask("g")[PC * 16 : PC * 16 + 16] == b"0010000000000000"
    assert client.ask("p10") == b"0010000000000000"
    assert client.ask("P10=2010000000000000") == b"OK"
    assert target.pc() == 0x1020
    assert client.ask("P10=20") == b"E16"
    assert client.ask("p999") == b"E16"
    assert client.ask("P999=00") == b"E16"
    assert client.ask("p") == b"E16"
    target.registers[MAIN][0] = None
    assert client.ask("p0") == b"x" * 16
    assert client.ask("g")[:20] == b"x" * 16 + b"0000"
    assert client.ask(b"G" + b"x" * 16 + b"01" * 8) == b"OK"
    assert target.registers[MAIN][1] == b"\1" * 8
    target.registers[MAIN][0] = b"\2" * 8
    assert client.ask(b"G" + client.ask("g")) == b"OK"
    assert client.ask("G01") == b"E16"
    assert client.ask("G0g") == b"E16"


def test_lldb_register_forms(client: Client, target: FakeTarget) -> None:
    target.add_thread(OTHER)
    target.registers[OTHER][0] = b"\7" * 8
    assert client.ask("QThreadSuffixSupported") == b"OK"
    assert client.ask("p0;thread:002b;") == b"07" * 8
    assert client.ask("P0=0800000000000000;thread:2b;") == b"OK"
    assert target.registers[OTHER][0] == b"\x08" + bytes(7)
    assert client.ask("g;thread:2b;")[:4] == b"0800"
    saved = client.ask("QSaveRegisterState;thread:2b;")
    assert client.ask("P0=0900000000000000;thread:2b;") == b"OK"
    assert client.ask(b"QRestoreRegisterState:" + saved + b";thread:2b;") == b"OK"
    assert target.registers[OTHER][0] == b"\x08" + bytes(7)
    assert client.ask(b"QRestoreRegisterState:" + saved) == b"E16"


def test_memory(client: Client, target: FakeTarget) -> None:
    assert client.ask("m1000,4") == b"90909090"
    assert client.ask(f"m{BASE + SIZE - 2:x},8") == b"9090"  # partial
    assert client.ask("m1000,0") == b""
    assert client.ask("M1000,2:abcd") == b"OK"
    assert target.memory[:2] == b"\xab\xcd"
    assert client.ask("M1000,2:ab") == b"E16"
    assert client.ask("M1000,2:a") == b"E16"
    assert client.ask("M0,1:ab") == b"E0e"
    assert client.ask(b"X1000,4:" + escape(b"#$}*")) == b"OK"
    assert target.memory[:4] == b"#$}*"
    assert client.ask("X0,0:") == b"OK"
    assert client.ask("X1000,1:}") == b"E16"
    for packet in (
        "mffffffffffffffff,10",
        "m0,ffffffffffffffff",
        "m1000",
        "m",
        "mzz,1",
        "m-1,1",
        "Mffffffffffffffff,2:0000",
    ):
        assert client.ask(packet).startswith(b"E"), packet
    assert len(client.ask("m1000,ffffffffffffffff")) <= 0x40000


def test_memory_as_binary(target: FakeTarget) -> None:
    target.memory[:4] = b"#$}*"
    assert Client(target).ask("x1000,4") == b"b" + escape(b"#$}*")
    lldb = Client(target)
    assert lldb.ask("x0,0") == b"OK"
    assert lldb.ask("x1000,4") == escape(b"#$}*")
    target.memory[:] = b"#" * SIZE
    reply = lldb.ask("x1000,40000")
    assert len(reply) < 0x40000
    assert set(unescape(reply)) == {ord("#")}


def test_search_and_checksum(client: Client, target: FakeTarget) -> None:
    target.memory[0x3FFFE:0x40000] = b"}#"
    assert client.ask(b"qSearch:memory:1000;40000;" + escape(b"}#")) == b"1,40ffe"
    assert client.ask("qSearch:memory:1000;3fff0;xyz") == b"0"
    assert client.ask("qSearch:memory:1000;50000;xyz") == b"E0e"
    target.memory[:9] = b"123456789"
    assert client.ask("qCRC:1000,9") == b"C376e6e7"  # CRC-32/MPEG-2's check value
    assert client.ask("qCRC:0,9") == b"E0e"


# ---------------------------------------------------------------------------------------------------------- threads


def test_threads(client: Client, target: FakeTarget) -> None:
    target.add_thread(OTHER)
    assert client.ask("qfThreadInfo") == b"mp2a.2a,p2a.2b"
    assert client.ask("qsThreadInfo") == b"l"
    assert client.ask("qC") == b"QCp2a.2a"
    assert client.ask("Hgp2a.2b") == b"OK"
    assert client.ask("qC") == b"QCp2a.2b"
    assert client.ask("Tp2a.2b") == b"OK"
    assert client.ask("qThreadExtraInfo,p2a.2b") == hexed("R (running)").encode()
    assert client.ask("qGetTLSAddr:p2a.2b,10,0") == b"7010"
    xml = client.ask("qXfer:threads:read::0,1000").decode()
    assert '<thread id="p2a.2b" core="0" name="na&lt;me43" handle="0102">R (running)</thread>' in xml


def test_a_thousand_threads(client: Client, target: FakeTarget) -> None:
    for tid in range(100, 3100):
        target.add_thread(ThreadId(PID, tid))
    found = client.ask("qfThreadInfo")[1:].split(b",")
    while (more := client.ask("qsThreadInfo")) != b"l":
        found += more[1:].split(b",")
    assert len(found) == len(set(found)) == 3001


@pytest.mark.parametrize(
    "packet",
    ["g", "p0", "P0=0000000000000000", "Tp2a.2b", "qThreadExtraInfo,p2a.2b", "qGetTLSAddr:p2a.2b,0,0",
     "qXfer:siginfo:read::0,80", "Hgp2a.2b", "Hcp2a.2b", "qThreadStopInfop2a.2b", "g;thread:2b;"],
)  # fmt: skip
def test_a_thread_exits_between_h_and_any_packet(client: Client, target: FakeTarget, packet: str) -> None:
    target.add_thread(OTHER)
    assert client.ask("Hgp2a.2b") == b"OK"
    target.end_thread(OTHER)
    assert client.ask(packet) == b"E03"
    assert client.ask("Hgp2a.2a") == b"OK"
    assert client.ask("p10") == b"0010000000000000"


def test_thread_events(client: Client, target: FakeTarget) -> None:
    assert client.ask("QThreadEvents:1") == b"OK"
    assert client.ask("QThreadOptions;2:p2a.2a;1") == b"OK"
    assert target.calls[-2:] == [("thread_events", True), ("thread_options", {MAIN: 2})]
    assert client.ask("QThreadOptions;8").startswith(b"E")


# ------------------------------------------------------------------------------------------------------------ stops


STOPS: list[tuple[StopEvent, bytes]] = [
    (Stopped(MAIN, Signal.SIGSEGV), b"T0bthread:p2a.2a;"),
    (Stopped(MAIN, core=3), b"T05thread:p2a.2a;core:3;"),
    (ProcessExited(PID, 7), b"W07;process:2a"),
    (ProcessSignalled(PID, Signal.SIGKILL), b"X09;process:2a"),
    (ThreadExitedEvent(OTHER, 1), b"w01;p2a.2b"),
    (NoResumed(), b"N"),
]
REASONS: list[tuple[Reason, bytes, bytes]] = [
    (SoftwareBreakpoint(), b"swbreak:;", b""),
    (HardwareBreakpoint(), b"hwbreak:;", b""),
    (Watchpoint(WatchType.WRITE, 0x1234), b"watch:1234;", b"watch:1234;"),
    (Watchpoint(WatchType.READ, 1), b"rwatch:1;", b"rwatch:1;"),
    (Watchpoint(WatchType.ACCESS, 1), b"awatch:1;", b"awatch:1;"),
    (SyscallEntry(231), b"syscall_entry:e7;", b"syscall_entry:e7;"),
    (SyscallReturn(0), b"syscall_return:0;", b"syscall_return:0;"),
    (Forked(ForkKind.FORK, ThreadId(44, 44)), b"fork:p2c.2c;", b""),
    (Forked(ForkKind.VFORK, ThreadId(44, 44)), b"vfork:p2c.2c;", b""),
    (Forked(ForkKind.CLONE, OTHER), b"clone:p2a.2b;", b"clone:2b;"),
    (VforkDone(), b"vforkdone:;", b""),
    (Execed("/bin/ls"), b"exec:" + hexed("/bin/ls").encode() + b";", b""),
    (LibraryEvent(), b"library:;", b"library:;"),
    (ThreadCreated(), b"create:;", b"create:;"),
]


@pytest.mark.parametrize(("event", "text"), STOPS)
def test_stop_replies(client: Client, target: FakeTarget, event: StopEvent, text: bytes) -> None:
    target.script.append(Stop((event,)))
    assert client.ask("vCont;c").startswith(text)


@pytest.mark.parametrize(("reason", "offered", "plain"), REASONS)
def test_reasons_are_told_to_who_asked(target: FakeTarget, reason: Reason, offered: bytes, plain: bytes) -> None:
    target.script.append(Stop((Stopped(MAIN, reason=reason),)))
    assert Client(target, *OFFERS).ask("c").startswith(b"T05" + offered + b"thread:p2a.2a;06:")
    target.script.append(Stop((Stopped(MAIN, reason=reason),)))
    assert Client(target).ask("c").startswith(b"T05" + plain + b"thread:2a;06:")


def test_expedited_registers(client: Client) -> None:
    assert client.ask("?") == b"T05thread:p2a.2a;06:" + b"0" * 16 + b";07:" + b"0" * 16 + b";10:0010000000000000;"


def test_exit_without_multiprocess_is_two_digits(target: FakeTarget) -> None:
    target.script.append(Stop((ProcessExited(PID, 0),)))
    assert Client(target).ask("c") == b"W00"


def test_no_resumed_is_a_stop_for_older_clients(target: FakeTarget) -> None:
    target.script.append(Stop((NoResumed(),)))
    assert Client(target).ask("c").startswith(b"T05thread:2a;")


# --------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize(
    ("packet", "actions"),
    [
        ("vCont;c", [ResumeAction(ResumeKind.CONTINUE, EVERY)]),
        ("vCont;s:p2a.2a;c", [ResumeAction(ResumeKind.STEP, MAIN), ResumeAction(ResumeKind.CONTINUE, EVERY)]),
        ("vCont;c:0", [ResumeAction(ResumeKind.CONTINUE, MAIN)]),
        ("vCont;s:2a", [ResumeAction(ResumeKind.STEP, MAIN)]),
        ("vCont;C0b:p2a.-1", [ResumeAction(ResumeKind.CONTINUE, ThreadId(PID, -1), Signal.SIGSEGV)]),
        ("vCont;S0f:p2a", [ResumeAction(ResumeKind.STEP, ThreadId(PID, -1), Signal.SIGTERM)]),
        ("vCont;r1000,1010:p2a.2a", [ResumeAction(ResumeKind.RANGE_STEP, MAIN, start=0x1000, end=0x1010)]),
        ("s", [ResumeAction(ResumeKind.STEP, MAIN), ResumeAction(ResumeKind.CONTINUE, EVERY)]),
        ("C05", [ResumeAction(ResumeKind.CONTINUE, MAIN, Signal.SIGTRAP), ResumeAction(ResumeKind.CONTINUE, EVERY)]),
    ],
)
def test_resume_actions(client: Client, target: FakeTarget, packet: str, actions: list[ResumeAction]) -> None:
    target.script.append(Stop((Stopped(MAIN),)))
    assert client.ask(packet).startswith(b"T05")
    assert list(target.actions) == actions


def test_legacy_resume_with_hc_and_address(client: Client, target: FakeTarget) -> None:
    target.add_thread(OTHER)
    assert client.ask("Hcp2a.2b") == b"OK"
    assert client.ask("s1100").startswith(b"T05thread:p2a.2b;")
    assert (target.pc(OTHER), target.pc()) == (0x1101, 0x1000)
    assert client.ask("S0f;1100").startswith(b"T05thread:p2a.2b;")


@pytest.mark.parametrize(
    "packet", ["vCont;", "vCont;z", "vCont;c1", "vCont;r1000", "vCont;C", "vCont;Cff", "vCont;c:pp", "C"]
)
def test_bad_resumes_do_not_resume(client: Client, target: FakeTarget, packet: str) -> None:
    assert client.ask(packet).startswith(b"E")
    assert not target.running


def test_step_and_breakpoint(client: Client, target: FakeTarget) -> None:
    assert client.ask("vCont?") == b"vCont;c;C;s;S;t;r"
    assert client.ask("vCont;s:p2a.2a").startswith(b"T05thread:p2a.2a;")
    assert target.pc() == 0x1001
    assert client.ask("Z0,1010,1") == b"OK"
    assert client.ask("vCont;c").startswith(b"T05swbreak:;")
    assert target.pc() == 0x1010
    assert client.ask("vCont;r1000,1020:p2a.2a").startswith(b"T05")
    assert target.pc() == 0x1020
    assert client.ask("z0,1010,1") == b"OK"
    assert not target.breakpoints
    assert client.ask("Z2,2000,8") == b"OK"
    assert target.watchpoints == {(WatchType.WRITE, 0x2000, 8)}
    assert client.ask("z2,2000,8") == b"OK"
    for packet in ("Z5,0,0", "Z0,zz,1", "Z0", "Z2,2000,0"):
        assert client.ask(packet) == b"E16"


def test_a_condition_is_evaluated_here(client: Client, target: FakeTarget) -> None:
    target.memory[0xFF] = 0xEB  # a loop of 0x100
    target.memory[0x80:0x81] = b"\x90"
    false = "26 0000 22 05 13 27".replace(" ", "")  # rax == 5
    assert client.ask(f"Z0,1010,1;X{len(false) // 2:x},{false}") == b"OK"
    client.session.receive(frame(b"vCont;c"))
    assert client.session.busy
    target.registers[MAIN][0] = (5).to_bytes(8, "little")
    out = b""
    while not out:
        out = client.session.run()
    assert client.parse(out)[0].startswith(b"T05swbreak")
    assert client.ask("Z0,1010,1;X3,ffffff") == b"E16"
    assert client.ask("Z0,1010,1;X7,22") == b"E16"


def test_a_command_prints_and_goes_on(client: Client, target: FakeTarget) -> None:
    target.memory[0x20] = 0xF4
    code = ("2200 2200 34 00 0003".replace(" ", "")) + b"hi\0".hex() + "27"
    assert client.ask(f"Z0,1010,1;cmds:1,X{len(code) // 2:x},{code}") == b"OK"
    assert client.ask("vCont;c") == b"W00;process:2a"
    assert target.printed == b"hi"


def test_interrupt(client: Client, target: FakeTarget) -> None:
    target.memory[0xFF] = 0xEB
    assert client.session.receive(frame(b"vCont;c")) == b""
    assert client.session.runnable
    assert client.parse(client.session.receive(b"\x03"))[0].startswith(b"T02")
    # the same in one read, before anything has run
    assert client.parse(client.session.receive(frame(b"vCont;c") + b"\x03"))[0].startswith(b"T02")
    # it came just behind a stop: kept for the next resume, as gdbserver keeps its SIGINT
    assert client.session.receive(b"\x03") == b""
    assert client.ask("vCont;s").startswith(b"T02")
    assert client.ask("vCont;s").startswith(b"T05")


def test_interrupt_while_blocked(client: Client, target: FakeTarget) -> None:
    target.memory[:] = b"\xcb" * SIZE
    assert client.session.receive(frame(b"vCont;c")) == b""
    assert client.session.busy
    assert not client.session.runnable
    assert client.session.waiting == Waiting()
    assert client.parse(client.session.receive(b"\x03"))[0].startswith(b"T02")


def test_packets_wait_for_the_stop(client: Client, target: FakeTarget) -> None:
    target.script.extend([RUNNING] * 3)
    target.memory[0xFF] = 0xEB
    assert client.session.receive(frame(b"vCont;c") + frame(b"qC")) == b""
    replies = client.parse(client.session.receive(b"\x03"))
    assert [reply[:3] for reply in replies] == [b"T02", b"QCp"]


def test_exit_and_what_comes_after(client: Client, target: FakeTarget) -> None:
    target.memory[5] = 0xF4
    client.ask("P0=2a00000000000000")
    assert client.ask("vCont;c") == b"W2a;process:2a"
    assert client.ask("?") == b"W2a;process:2a"
    assert client.ask("g") == b"E03"
    assert client.ask("qC") == b"E03"
    assert client.ask("m1000,4") == b"E03"
    assert client.ask("vCont;c") == b"E03"
    assert client.ask("qfThreadInfo") == b"l"


def test_kill(client: Client, target: FakeTarget) -> None:
    assert client.ask("vKill;999") == b"E03"
    assert client.ask("vKill;2a") == b"OK"
    assert target.calls[-1] == ("kill", PID)
    other = Client(FakeTarget())
    assert other.talk("k") == []
    assert other.session.ended


def test_kill_while_running(client: Client, target: FakeTarget) -> None:
    target.memory[0xFF] = 0xEB
    client.session.receive(frame(b"vCont;c"))
    assert client.session.receive(frame(b"k")) == b""
    assert client.session.ended
    assert target.calls[-1] == ("kill", PID)


def test_detach(client: Client, target: FakeTarget) -> None:
    assert client.ask("D;2a") == b"OK"
    assert target.calls[-1] == ("detach", PID)
    other = Client(FakeTarget())
    assert other.ask("D") == b"OK"


def test_reverse(client: Client, target: FakeTarget) -> None:
    assert client.ask("bc").startswith(b"T05replaylog:begin;")
    assert client.ask("bs").startswith(b"T05thread")
    assert target.pc() == 0xFFF


def test_an_exception_while_running_is_an_error(client: Client, target: FakeTarget) -> None:
    target.script.append(7)  # type: ignore[arg-type]
    client.session.receive(frame(b"vCont;c"))
    assert client.session.busy  # whatever it was, it is no Stop
    del target.breakpoints
    client.session.receive(b"\x03")
    assert client.ask("qC") == b"QCp2a.2a"


# --------------------------------------------------------------------------------------------------------- non-stop


def test_non_stop(client: Client, target: FakeTarget) -> None:
    target.add_thread(OTHER)
    assert client.ask("QNonStop:1") == b"OK"
    target.last = [Stopped(MAIN), Stopped(OTHER)]
    assert client.ask("?").startswith(b"T05thread:p2a.2a;")
    assert client.ask("vStopped").startswith(b"T05thread:p2a.2b;")
    assert client.ask("vStopped") == b"OK"
    target.script.append(Stop((Stopped(OTHER), Stopped(MAIN, Signal.SIGINT))))
    assert client.ask("vCont;c:p2a.2b;c") == b"OK"
    assert [notice[:8] for notice in client.notices] == [b"Stop:T05"]
    assert client.ask("vStopped").startswith(b"T02thread:p2a.2a;")
    assert client.ask("vStopped") == b"OK"
    client.notices.clear()
    target.memory[0xFF] = 0xEB
    assert client.ask("vCont;c") == b"OK"
    assert client.session.busy
    assert client.ask("qC").startswith(b"QC")  # answered while it runs
    assert client.ask("vCtrlC") == b"OK"
    assert client.notices[0].startswith(b"Stop:T02")
    assert client.ask("vStopped") == b"OK"
    client.notices.clear()
    assert client.ask("vCont;t:p2a.-1") == b"OK"
    assert client.notices[0].startswith(b"Stop:T00")
    assert client.ask("QNonStop:0") == b"OK"
    assert client.ask("vCont;s").startswith(b"T05")


# ------------------------------------------------------------------------------------------------- objects and files


def test_transfer_in_pieces(client: Client) -> None:
    whole, offset = b"", 0
    while True:
        reply = client.ask(f"qXfer:features:read:target.xml:{offset:x},3f")
        piece = unescape(reply[1:])
        whole += piece
        offset += len(piece)
        if reply[:1] == b"l":
            break
    assert whole == DESCRIPTION.xml
    assert b"<architecture>i386:x86-64</architecture>" in whole
    assert b"<osabi>GNU/Linux</osabi>" in whole
    assert client.ask("qXfer:features:read:target.xml:ffffff,10") == b"l"
    assert client.ask("qXfer:features:read:other.xml:0,10").startswith(b"E")
    assert client.ask("qXfer:features:read:target.xml:0").startswith(b"E")


def test_objects(client: Client, target: FakeTarget) -> None:
    def read(name: str, annex: str = "") -> bytes:
        reply = client.ask(f"qXfer:{name}:read:{annex}:0,1000")
        assert reply[:1] == b"l", reply
        return unescape(reply[1:])

    assert read("auxv")[:10] == b"\x06" + bytes(7) + b"\x00\x10"
    assert read("exec-file", "2a") == read("exec-file") == b"/bin/prog"
    assert read("siginfo") == bytes(range(128))
    assert client.ask("qXfer:siginfo:write::4:ab}\x03") == b"3"
    assert target.calls[-1] == ("siginfo", 4, b"ab#")
    assert b'<library-list-svr4 version="1.0" main-lm="0x1800"><library name="/lib/l&lt;ibc.so.6" lm="0x2000"' in read(
        "libraries-svr4"
    )
    assert b"main-lm" not in read("libraries-svr4", "start=2000;prev=0")
    assert b'<column name="Type">processes</column>' in read("osdata")
    assert b'<column name="pid">42</column>' in read("osdata", "processes")
    assert client.ask("qXfer:osdata:read:nothing:0,100") == b"l"
    assert client.ask("qXfer:auxv:read:annex:0,100").startswith(b"E")


def test_host_io(client: Client, target: FakeTarget) -> None:
    name = hexed("/bin/prog")
    assert client.ask("vFile:setfs:2a") == b"F0"
    assert client.ask(f"vFile:open:{name},0,0") == b"F3"
    assert client.ask("vFile:pread:3,8,0") == b"F8;" + escape(b"ELF*#$}E")
    assert client.ask("vFile:pread:3,8,fffff") == b"F0;"
    status = client.ask("vFile:fstat:3")
    assert status[:4] == b"F40;"
    assert len(unescape(status[4:])) == 64
    assert client.ask(f"vFile:stat:{name}")[:4] == b"F40;"
    assert client.ask(f"vFile:lstat:{name}")[:4] == b"F40;"
    assert client.ask("vFile:close:3") == b"F0"
    assert client.ask("vFile:close:3") == b"F-1,9"
    assert client.ask(f"vFile:open:{hexed('/nothing')},0,0") == b"F-1,2"
    assert client.ask(f"vFile:open:{hexed('/new')},601,1b6") == b"F3"
    assert client.ask(b"vFile:pwrite:3,2," + escape(b"#}")) == b"F2"
    assert target.files[b"/new"] == b"\0\0#}"
    assert client.ask(f"vFile:open:{name},7000,0") == b"F-1,16"
    assert client.ask(f"vFile:unlink:{hexed('/new')}") == b"F0"
    assert client.ask(f"vFile:readlink:{hexed('/proc/42/exe')}") == b"F9;/bin/prog"
    assert client.ask(f"vFile:readlink:{name}") == b"F-1,16"
    assert client.ask("vFile:nothing:1") == b""
    assert client.ask("vFile:pread:3") == b"E16"


def test_catching(client: Client, target: FakeTarget) -> None:
    assert client.ask("QCatchSyscalls:1;e7;0") == b"OK"
    assert target.calls[-1] == ("catch", True, frozenset((231, 0)))
    assert client.ask("QCatchSyscalls:0") == b"OK"
    assert client.ask("QCatchSyscalls:2") == b"E16"
    assert client.ask("QPassSignals:e;14") == b"OK"
    assert ("pass", frozenset((Signal.SIGALRM, Signal.SIGCHLD))) in target.calls
    assert client.ask("QPassSignals:") == b"OK"
    assert client.ask("QProgramSignals:0;1") == b"OK"


def test_launch(client: Client, target: FakeTarget) -> None:
    assert client.ask("!") == b"OK"
    assert client.ask("QEnvironmentHexEncoded:" + hexed("A=1=2")) == b"OK"
    assert client.ask("QEnvironmentUnset:" + hexed("B")) == b"OK"
    assert client.ask("QEnvironmentHexEncoded:" + hexed("bad")) == b"E16"
    assert client.ask(f"vRun;{hexed('/bin/ls')};{hexed('-l')};").startswith(b"T05thread:p2a.2a;")
    assert target.calls[-1] == ("launch", b"/bin/ls", (b"-l", b""), {b"A": b"1=2", b"B": None})
    assert client.ask(f"vRun;{hexed('/missing')}") == b"E02"
    assert client.ask("vRun;") != b""
    assert client.ask("vAttach;2a").startswith(b"T00")
    assert client.ask("vAttach;1") == b"E03"
    assert client.talk("R00") == []
    assert client.ask("?").startswith(b"T05")
    assert client.talk("k") == []
    assert not client.session.ended
    assert client.ask("D") == b"OK"


def test_monitor(client: Client) -> None:
    def monitor(text: str) -> str:
        reply = client.ask("qRcmd," + hexed(text))
        return bytes.fromhex(reply.decode()).decode()

    assert monitor("stats a b") == monitor("stat a b") == "clock 7 a b\n"
    assert "strace on|off   trace system calls" in monitor("help")
    assert monitor("help stats") == "stats [WHAT]  show counters\n"
    assert monitor("strace") == "it failed\n"
    for text in ("st", "import os", ""):  # as gdbserver: the help as console output, then an error
        *console, verdict = client.talk("qRcmd," + hexed(text))
        assert verdict == b"E01"
        assert b"monitor command" in bytes.fromhex(console[0][1:].decode())
    assert client.ask("qRcmd,zz") == b"E16"


# ------------------------------------------------------------------------------------------------------------- LLDB


def test_lldb(client: Client, target: FakeTarget) -> None:
    target.add_thread(OTHER)
    assert f"triple:{hexed('x86_64-pc-linux-gnu')};endian:little;ptrsize:8;".encode() in client.ask("qHostInfo")
    assert client.ask("qProcessInfo").startswith(b"pid:2a;parent-pid:1;")
    assert client.ask("qRegisterInfo10").startswith(b"name:rip;bitsize:64;offset:128;encoding:uint;format:hex;")
    assert client.ask("qRegisterInfo999").startswith(b"E")
    assert client.ask("qMemoryRegionInfo") == b"OK"
    assert client.ask("qMemoryRegionInfo:1010").startswith(b"start:1000;size:40000;permissions:rwx;name:")
    assert client.ask("qMemoryRegionInfo:0") == b"start:0;size:1000;"
    assert client.ask("qMemoryRegionInfo:ffffffffffffffff") == b"start:41000;size:fffffffffffbf000;"
    assert client.ask("_M1000,rwx") == b"8000"
    assert client.ask("_m8000") == b"OK"
    assert client.ask("qEcho:42") == b"qEcho:42"
    assert client.ask("qWatchpointSupportInfo:") == b"num:1024;"
    assert client.ask("QListThreadsInStopReply") == b"OK"
    assert client.ask("?").endswith(b"threads:p2a.2a,p2a.2b;")
    assert client.ask("qThreadStopInfo2a").startswith(b"T05thread:p2a.2a;")
    assert client.ask("qThreadStopInfo2b").startswith(b"T00thread:p2a.2b;")
    threads = json.loads(unescape(client.ask("jThreadsInfo")))
    assert [thread["tid"] for thread in threads] == [42, 43]
    assert threads[0]["registers"]["16"] == "0010000000000000"


# ------------------------------------------------------------------------------------------------------ re-attaching


def test_a_new_client_begins_anew(target: FakeTarget) -> None:
    first = Client(target, *OFFERS)
    first.ask("Z0,1010,1")
    first.session.close()
    assert not target.breakpoints
    second = Client(target)
    assert second.ask("qC") == b"QC2a"


def test_attaching_to_a_running_target_stops_it(target: FakeTarget) -> None:
    target.memory[0xFF] = 0xEB
    first = Client(target)
    first.session.receive(frame(b"vCont;c"))
    first.session.close()
    assert target.is_running()
    second = Client(target)
    assert not target.is_running()
    assert second.ask("?").startswith(b"T02thread:2a;")
