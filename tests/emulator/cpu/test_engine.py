"""The CPU without an operating system: exits, the exact clock, points, two engines that agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.abi.memory import Access
from emulator.cpu.exits import BreakpointHit, Interrupt, PageFault, Privileged, Simple, Syscall, Undefined
from tests.emulator.cpu.machine import AARCH64, CODE, DATA, FOREVER, RWX, STACK, Bare, assemble


def test_syscall_exit_is_behind_the_instruction_with_its_arguments(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "mov eax, 39; mov edi, 1; mov rsi, -1; syscall; behind: nop; 1: jmp 1b")
    m = Bare(code)
    assert m.cpu.run(FOREVER) == Syscall(39, (1, (1 << 64) - 1, 0, 0, 0, 0))
    assert m.read("rip") == m.read("rcx") == at["behind"]
    assert m.read("r11") == m.read("eflags")
    assert m.cpu.clock == 4
    m.cpu.set_syscall_result(-38)
    assert m.read("rax") == (1 << 64) - 38
    assert m.cpu.run(10) == Simple.BUDGET
    assert m.cpu.clock == 10


def test_aarch64_syscall(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "mov x8, #64; mov x0, #1; svc #0; behind: nop; b behind", AARCH64)
    m = Bare(code, arch=AARCH64)
    assert m.cpu.run(FOREVER) == Syscall(64, (1, 0, 0, 0, 0, 0))
    assert (m.read("pc"), m.cpu.clock) == (at["behind"], 3)


@pytest.mark.parametrize(
    ("text", "access", "address", "mapped"),
    [
        ("mov rax, [0x1234]", Access.READ, 0x1234, False),
        ("mov rbx, 0x1238; mov [rbx], eax", Access.WRITE, 0x1238, False),
        (f"mov byte ptr [{CODE + 5}], 1", Access.WRITE, CODE + 5, True),
        ("mov rax, 0x8000000000001238; mov al, [rax]", Access.READ, 0x8000000000001238, False),
        ("mov rax, -8; mov rax, [rax]", Access.READ, (1 << 64) - 8, False),
        ("mov rax, -8; push [rax]", Access.READ, (1 << 64) - 8, False),
        (f"mov rsp, {DATA}; push rax", Access.WRITE, DATA - 8, False),
        (f"mov rbx, {DATA + 4 * 4096 - 4}; mov [rbx], rax", Access.WRITE, DATA + 4 * 4096, False),
        (f"mov rsi, {DATA}; mov rdi, 0x777; movsb", Access.WRITE, 0x777, False),
        ("movups [0x9008], xmm0", Access.WRITE, 0x9008, False),
        ("lock inc dword ptr [0x9008]", Access.READ, 0x9008, False),
        (f"mov rax, {DATA + 8}; jmp rax", Access.FETCH, DATA + 8, True),
        ("mov rax, 0x1000; jmp rax", Access.FETCH, 0x1000, False),
        ("mov rax, 0xfff0000000001000; jmp rax", Access.FETCH, 0xFFF0000000001000, False),
    ],
)
def test_page_faults_tell_address_and_access_and_commit_nothing(
    tmp_path: Path, text: str, access: Access, address: int, mapped: bool
) -> None:
    setup, fault = ([*text.rsplit(";", 1), ""] if ";" in text else ["", text, ""])[:2]
    code, at = assemble(tmp_path, f"xor eax, eax; {setup}; here: {fault}; nop; nop")
    m = Bare(code)
    got = m.cpu.run(FOREVER)
    assert got == PageFault(address, access, mapped)
    assert m.read("rip") == (address if access is Access.FETCH else at["here"])
    # the clock counted what completed, and a stepped run agrees
    stepped = Bare(code)
    for _ in range(m.cpu.clock):
        assert stepped.cpu.step() is Simple.BUDGET
    assert stepped.cpu.step() == got
    assert stepped.cpu.clock == m.cpu.clock
    assert stepped.cpu.read_file() == m.cpu.read_file()


def test_a_repaired_fault_goes_on(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "mov eax, 7; mov [0x5000], eax; mov ebx, [0x5000]; syscall")
    m = Bare(code)
    assert isinstance(m.cpu.run(FOREVER), PageFault)
    m.table.map_anonymous(0x5000, 0x1000, 3)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert (m.read("rbx"), m.cpu.clock) == (7, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int3", Interrupt(3)),
        ("xor ecx, ecx; div ecx", Interrupt(0)),
        ("int 0x80", Interrupt(0x80)),
        ("ud2", Undefined),
        ("vpxor xmm0, xmm1, xmm2", Undefined),
        ("vzeroupper", Undefined),
        ("vmovups ymm0, [rsp]", Undefined),
        *(
            (text, Privileged)
            for text in (
                "cli", "sti", "hlt", "in al, 0x60", "out 0x60, al", "rdmsr", "wrmsr", "mov rax, cr0", "mov cr3, rax",
                "lgdt [rsp]", "invlpg [rsp]", "swapgs", "sysretq", "wbinvd", "mov rax, dr7", "ltr ax",
            )
        ),
    ],
)  # fmt: skip
def test_traps(tmp_path: Path, text: str, expected: object) -> None:
    code, at = assemble(
        tmp_path, f"nop; {text.rsplit(';')[0] if ';' in text else 'nop'}; here: {text.split(';')[-1]}; behind: nop"
    )
    for stepped in (False, True):
        m = Bare(code)
        got = [m.cpu.step() for _ in range(3)][-1] if stepped else m.cpu.run(FOREVER)
        if isinstance(expected, type):
            assert isinstance(got, expected)
            assert got.address == at["here"]  # type: ignore[union-attr]
        else:
            assert got == expected
        behind = isinstance(got, Interrupt) and got.number != 0
        assert m.read("rip") == at["behind" if behind else "here"]
        assert m.cpu.clock == 2 + behind


def test_breakpoints_stop_before_and_are_free_elsewhere(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "mov ecx, 5; loop: inc eax; here: inc ebx; dec ecx; jnz loop; syscall")
    m = Bare(code)
    m.cpu.insert_breakpoint(m.table, at["here"])
    for n in range(5):
        assert m.cpu.run(FOREVER, True) == BreakpointHit(at["here"])
        assert (m.read("rip"), m.read("rax"), m.read("rbx")) == (at["here"], n + 1, n)
        assert m.cpu.clock == 2 + 4 * n
    m.cpu.remove_breakpoint(m.table, at["here"])
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.cpu.clock == 22


def test_a_breakpoint_at_the_start_is_skipped_on_request_only(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "here: nop; inc eax; jmp here")
    m = Bare(code)
    m.cpu.insert_breakpoint(m.table, at["here"])
    assert m.cpu.run(FOREVER) == BreakpointHit(CODE)
    assert m.cpu.run(FOREVER) == BreakpointHit(CODE)
    assert m.cpu.clock == 0
    assert m.cpu.run(FOREVER, True) == BreakpointHit(CODE)
    assert m.cpu.clock == 3
    assert m.cpu.step(3) is Simple.BUDGET
    assert m.cpu.clock == 6
    assert m.cpu.step(1, False) == BreakpointHit(CODE)
    assert m.cpu.step(4) == BreakpointHit(CODE)
    assert m.cpu.clock == 9


def test_orig_rax_is_the_call_at_a_call_only(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "mov eax, 39; syscall; 1: jmp 1b")
    m = Bare(code)
    m.cpu.run(FOREVER)
    m.cpu.set_syscall_result(5)
    assert m.read("orig_rax") == 39
    m.cpu.run(10)
    assert m.read("orig_rax") == (1 << 64) - 1


def test_exceptions_do_not_become_double_faults(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "xor ecx, ecx; div ecx; nop")
    m = Bare(code)
    for _ in range(4):
        for _ in range(3):
            assert m.cpu.run(FOREVER) == Interrupt(0)
        assert m.cpu.step() == Interrupt(0)
    assert m.cpu.clock == 1


def test_step_range(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "start: mov ecx, 1000; 1: dec ecx; jnz 1b; end: nop; syscall")
    m = Bare(code)
    assert m.cpu.step_range(at["start"], at["end"], FOREVER) is Simple.RANGE_DONE
    assert (m.read("rip"), m.cpu.clock) == (at["end"], 2001)
    m = Bare(code)
    assert m.cpu.step_range(at["start"], at["end"], 100) is Simple.BUDGET
    assert m.cpu.clock == 100


def test_self_modifying_code_is_seen_by_both_engines(tmp_path: Path) -> None:
    text = """
        mov ecx, 4
    again: mov eax, 1          # the immediate is changed below
        mov ebx, eax
        inc dword ptr [rip + again + 1 - next]
    next: dec ecx
        jnz again
        syscall
    """
    code, at = assemble(tmp_path, text.replace("again + 1 - next", "again + 1"))
    m = Bare(code, code_prot=RWX)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.read("rbx") == 4
    total = m.cpu.clock
    for turns in range(1, 24):
        m = Bare(code, code_prot=RWX)
        while m.cpu.clock < total:
            m.cpu.run(min(total, m.cpu.clock + turns))
            m.cpu.step(1)
        assert m.read("rbx") == 4
        assert m.read("rip") == at["next"] + 6


def test_host_writes_into_code_are_seen(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "again: mov ebx, 1; syscall; jmp again")
    m = Bare(code)
    for n in range(1, 10):
        m.table.write(CODE + 1, bytes([n]), force=True)
        assert isinstance(m.cpu.run(FOREVER), Syscall)
        assert m.read("rbx") == n
        m.table.write(CODE + 1, bytes([n + 100]), force=True)
        m.cpu.step(2)
        assert m.read("rbx") == n + 100
        assert isinstance(m.cpu.step(), Syscall)
        assert m.cpu.step() is Simple.BUDGET


def test_contexts_are_values(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "1: inc rax; addsd xmm1, xmm0; jmp 1b")
    m = Bare(code)
    m.cpu.write("xmm0", 0x3FF0000000000000)
    m.cpu.run(30)
    m.cpu.write("orig_rax", 5)
    saved, file = m.cpu.save(), m.cpu.read_file()
    m.cpu.run(60)
    m.cpu.write("orig_rax", 9)
    assert m.cpu.registers_of(saved) == file
    assert m.read("rax") == 20
    m.cpu.load(saved)
    assert (m.read("rax"), m.read("orig_rax")) == (10, 5)
    assert m.cpu.read_file() == file
    file.write("rax", 77)
    other = m.cpu.with_registers(saved, file)
    assert m.read("rax") == 10
    m.cpu.load(other)
    assert m.read("rax") == 77


def test_x87_registers_are_relative_to_the_top(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "fld1; fldpi; fldz; syscall; fstp st(0); syscall")
    m = Bare(code)
    m.cpu.run(FOREVER)
    one, pi = 0x3FFF8000000000000000, 0x4000C90FDAA22168C235
    assert [m.read(f"st{n}") for n in range(3)] == [0, pi, one]
    assert m.cpu.read_file().read("st2") == one
    assert m.read("ftag") == 0b00_00_01_1111111111
    m.cpu.write("st1", one)
    m.cpu.run(FOREVER)
    assert [m.read(f"st{n}") for n in range(2)] == [one, one]


def test_initial_state_is_a_linux_process(tmp_path: Path) -> None:
    m = Bare(b"\x90")
    want = {"eflags": 0x202, "mxcsr": 0x1F80, "fctrl": 0x37F, "ftag": 0xFFFF, "cs": 0x33, "ss": 0x2B, "rax": 0}
    assert {name: m.read(name) for name in want} == want
    assert m.read("orig_rax") == (1 << 64) - 1
    assert m.read("rsp") == STACK - 64


def test_cpuid_hides_what_the_engine_cannot_do(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "mov eax, 1; cpuid; mov r8d, ecx; mov eax, 7; xor ecx, ecx; cpuid; syscall")
    m = Bare(code)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    avx, fma, rdrand = 1 << 28, 1 << 12, 1 << 30
    assert m.read("r8") & (avx | fma | rdrand) == 0
    assert m.read("r8") & 1 << 20  # SSE4.2
    assert m.read("rbx") & (1 << 5 | 1 << 9 | 1 << 16) == 0  # AVX2, ERMS, AVX512F
    assert m.cpu.clock == 7


def test_popf_keeps_interrupts_on_and_the_privilege_out(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "push 0x3047; popfq; syscall")
    m = Bare(code)
    m.cpu.run(FOREVER)
    assert m.read("eflags") == 0x247
    assert m.cpu.clock == 3


def test_rdtsc_is_the_clock(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "nop; nop; rdtsc; mov ebx, eax; rdtscp; syscall")
    m = Bare(code)
    m.cpu.run(FOREVER)
    assert (m.read("rbx"), m.read("rax"), m.cpu.clock) == (2, 4, 6)


def test_bmi_runs_although_it_is_vex_encoded(tmp_path: Path) -> None:
    text = """
        mov rdx, 0x123456789abcdef1; mov rcx, 0xfedcba9876543210; mov rbx, 0xff00ff00ff00ff00
        mulx r9, r8, rcx; andn r10, rdx, rcx; pdep r11, rcx, rbx; pext r12, rcx, rbx; rorx r13, rcx, 12
        shlx r14, rcx, rdx; bzhi r15, rcx, rdi; blsr rsi, rcx; bextr rdi, rcx, rdi; vpxor xmm0, xmm1, xmm2
    """
    code, _ = assemble(tmp_path, text)
    m = Bare(code)
    assert isinstance(m.cpu.run(FOREVER), Undefined)
    whole = (1 << 64) - 1
    d, c, b = 0x123456789ABCDEF1, 0xFEDCBA9876543210, 0xFF00FF00FF00FF00
    bits = [n for n in range(64) if b >> n & 1]
    assert m.read("r9") << 64 | m.read("r8") == d * c
    assert m.read("r10") == ~d & c & whole
    assert m.read("r11") == sum((c >> i & 1) << n for i, n in enumerate(bits))
    assert m.read("r12") == sum((c >> n & 1) << i for i, n in enumerate(bits))
    assert m.read("r13") == (c >> 12 | c << 52) & whole
    assert m.read("r14") == c << (d & 63) & whole
    assert m.read("r15") == 0  # an index beyond 63, which must change nothing, clears bit 63: engine bug
    assert m.read("rsi") == c & c - 1
    assert m.read("rdi") == 0
    assert m.cpu.clock == 12


def test_avx_is_named(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "nop; here: vpaddd ymm1, ymm2, ymm3")
    m = Bare(code)
    got = m.cpu.run(FOREVER)
    assert isinstance(got, Undefined)
    assert got.address == at["here"]
    assert got.reason.startswith("vpaddd ymm1, ymm2, ymm3: AVX code")


def test_skipping_a_breakpoint_in_front_of_another_point(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "here: nop; there: nop; rdtsc; jmp here")
    m = Bare(code)
    for name in ("here", "there"):
        m.cpu.insert_breakpoint(m.table, at[name])
    assert m.cpu.run(FOREVER) == BreakpointHit(at["here"])
    for n in range(4):
        assert m.cpu.run(FOREVER, True) == BreakpointHit(at["there"])
        assert m.cpu.run(FOREVER, True) == BreakpointHit(at["here"])
        assert m.cpu.clock == 4 * (n + 1)


@pytest.mark.parametrize("tail", ["mov eax, 1", "inc ecx; .byte 0xb8, 1", "mov [0x9000], eax; .byte 0xb8, 1, 1"])
@pytest.mark.parametrize("stepped", [False, True])
def test_code_that_runs_into_a_page_it_must_not_enter(tmp_path: Path, tail: str, stepped: bool) -> None:
    size = len(assemble(tmp_path, tail)[0])
    code, at = assemble(tmp_path, f".skip {4096 - size - 20}, 0x90; start: .skip 20, 0x90; here: {tail}")
    m = Bare(code)
    m.table.unmap(CODE + 4096, 4096)
    m.cpu.write("rip", at["start"])
    got = m.cpu.step(1000) if stepped else m.cpu.run(FOREVER)
    if "0x9000" in tail:
        assert got == PageFault(0x9000, Access.WRITE, False)
        assert (m.read("rip"), m.cpu.clock) == (at["here"], 20)
    else:
        assert got == PageFault(CODE + 4096, Access.FETCH, False)
        assert m.read("rip") == (CODE + 4096 if "mov" in tail else at["here"] + 2)
        assert m.cpu.clock == 21
    m.table.map_anonymous(CODE + 4096, 4096, 5)
    m.table.map_anonymous(0x9000, 4096, 3)
    m.table.write(CODE + 4096, bytes([0, 0, 0, 0x90, 0x0F, 5]), force=True)
    assert isinstance(m.cpu.run(FOREVER), (Syscall, PageFault))


def test_aarch64_counter_is_the_clock(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "nop; nop; mrs x7, cntvct_el0; mrs xzr, cntvct_el0; svc #0", AARCH64)
    m = Bare(code, arch=AARCH64)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert (m.read("x7"), m.cpu.clock) == (2, 5)


@pytest.mark.parametrize("text", ["mrs x0, midr_el1", "msr daifset, #2", "hvc #0", "smc #0", "eret", "tlbi vmalle1"])
def test_aarch64_privileged(tmp_path: Path, text: str) -> None:
    code, at = assemble(tmp_path, f"nop; here: {text}; nop", AARCH64)
    m = Bare(code, arch=AARCH64)
    got = m.cpu.run(FOREVER)
    assert isinstance(got, Privileged)
    assert (got.address, m.cpu.clock) == (at["here"], 1)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("mov eax, 3; cvtsi2sd xmm1, eax; mov eax, 1; cvtsi2sd xmm0, eax; divsd xmm0, xmm1", 0x20),  # inexact
        ("xorps xmm1, xmm1; mov eax, 1; cvtsi2sd xmm0, eax; divsd xmm0, xmm1", 0x04),  # division by zero
        ("xorps xmm0, xmm0; divsd xmm0, xmm0", 0x01),  # invalid
        ("nop", 0),
    ],
)
def test_sse_exceptions_are_in_mxcsr(tmp_path: Path, text: str, flags: int) -> None:
    """The engine keeps them apart; the guest's stmxcsr and the debugger's view have them, ldmxcsr clears them."""
    clear = f"mov dword ptr [{DATA + 8}], 0x1f80; ldmxcsr [{DATA + 8}]; stmxcsr [{DATA + 4}]"
    code, _ = assemble(tmp_path, f"{text}; stmxcsr [{DATA}]; syscall; {clear}; syscall")
    m = Bare(code)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert int.from_bytes(m.table.read(DATA, 4), "little") == 0x1F80 | flags
    assert m.read("mxcsr") == m.cpu.read_file().read("mxcsr") == 0x1F80 | flags
    assert m.cpu.read_many(("mxcsr",)) == [0x1F80 | flags]
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert int.from_bytes(m.table.read(DATA + 4, 4), "little") == 0x1F80
    assert m.read("mxcsr") == 0x1F80


def test_the_debugger_sees_sse_exceptions_at_once(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "xorps xmm0, xmm0; divsd xmm0, xmm0; syscall")
    m = Bare(code)
    m.cpu.run(FOREVER)
    assert m.cpu.registers_of(m.cpu.save()).read("mxcsr") == 0x1F81
    m.cpu.write("mxcsr", 0x1F80)
    assert m.read("mxcsr") == 0x1F80


def test_a_straddling_store_that_faults_stores_nothing(tmp_path: Path) -> None:
    end = DATA + 4 * 4096
    code, _ = assemble(tmp_path, f"mov rbx, {end - 4}; mov byte ptr [rbx], 7; mov rax, -1; mov [rbx], rax")
    m = Bare(code)
    assert m.cpu.run(FOREVER) == PageFault(end, Access.WRITE, mapped=False)
    assert m.table.read(end - 4, 4) == b"\x07\0\0\0"
