"""Timers run in order of their deadlines, once, unless cancelled."""

from __future__ import annotations

from emulator.kernel.clock import Clock


class Source:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000

    def monotonic_ns(self) -> int:
        return self.now

    def realtime_ns(self) -> int:
        return self.now + 5_000


def test_timers_run_when_due_and_in_order() -> None:
    source, ran = Source(), list[str]()
    clock = Clock(source)
    clock.call_at(1300, lambda: ran.append("later"))
    clock.call_at(1100, lambda: ran.append("sooner"))
    cancelled = clock.call_at(1050, lambda: ran.append("never"))
    cancelled.cancel()
    assert clock.next_deadline_ns() == 1100
    assert clock.run_due() == 0
    source.now = 2000
    assert clock.run_due() == 2
    assert ran == ["sooner", "later"]
    assert clock.next_deadline_ns() is None


def test_cancelled_timers_do_not_pile_up() -> None:
    clock = Clock(Source())
    for _ in range(10_000):
        clock.call_at(10**12, lambda: None).cancel()
    assert len(clock._heap) < 2048


def test_setting_the_time_moves_realtime_only() -> None:
    source = Source()
    clock = Clock(source)
    clock.realtime_offset_ns += 100
    assert clock.realtime_ns() == source.now + 5_100
    assert clock.monotonic_ns() == source.now
    assert clock.realtime_to_monotonic(clock.realtime_ns() + 7) == source.now + 7
