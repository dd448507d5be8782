"""Every line every program prints is the host kernel's line.

The names of the cases come from a native run at collection; the emulated run happens once per program and session.
"""

from __future__ import annotations

import pytest

from tests.native import harness

# Differences which are meant, each with its reason: program -> case -> why.
EXPLAINED: dict[str, dict[str, str]] = {
    "faults": {
        "sse divide": "the engine raises no unmasked SSE exception, it only sets the flag",
    },
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One pytest case for a line.  Nothing is run when these tests are deselected anyway."""
    if "case" not in metafunc.fixturenames:
        return
    if harness.available() or "not slow" in metafunc.config.getoption("markexpr"):
        metafunc.parametrize(("program", "case"), [])
        return
    pairs = [
        pytest.param(
            program, case, marks=pytest.mark.xfail(reason=why, strict=True) if why else (), id=f"{program}-{case}"
        )
        for program in harness.names()
        for case in harness.cached(program, "native").cases
        for why in [EXPLAINED.get(program, {}).get(case)]
    ]
    metafunc.parametrize(("program", "case"), pairs)


@pytest.mark.slow
@pytest.mark.timeout(2 * harness.TIMEOUT_S + 60)
def test_case(program: str, case: str) -> None:
    emulated = harness.cached(program, "emulated")
    expected = harness.cached(program, "native").cases[case]
    got = emulated.cases.get(case)
    if got is None:
        pytest.fail(f"never printed; status {emulated.status}, stderr ends: {emulated.stderr[-500:]!r}")
    assert got == expected


@pytest.mark.slow
@pytest.mark.timeout(2 * harness.TIMEOUT_S + 60)
@pytest.mark.parametrize("program", harness.names())
def test_program_ends_alike(program: str) -> None:
    """Same status, nothing printed besides, nothing on stderr."""
    if reason := harness.available():
        pytest.skip(reason)
    native, emulated = harness.cached(program, "native"), harness.cached(program, "emulated")
    assert list(emulated.cases) == list(native.cases)
    assert (emulated.status, emulated.stderr) == (native.status, native.stderr)


@pytest.mark.slow
@pytest.mark.timeout(2 * harness.TIMEOUT_S + 60)
@pytest.mark.parametrize("program", harness.names())
def test_static_program_prints_the_same(program: str) -> None:
    if reason := harness.available():
        pytest.skip(reason)
    binary = harness.build(program, "static")
    explained = EXPLAINED.get(program, {})
    found = harness.differences(harness.run_native(binary), harness.run_emulated(binary))
    assert [line for line in found if line.partition(": ")[0] not in explained] == []


@pytest.mark.slow
def test_there_are_enough_cases() -> None:
    """Issue 3: at least 600."""
    if reason := harness.available():
        pytest.skip(reason)
    assert sum(len(harness.cached(program, "native").cases) for program in harness.names()) >= 600
