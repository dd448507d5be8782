"""Pending queues: standard signals once, real-time signals in order (signal(7))."""

from __future__ import annotations

from emulator.abi.signals import SIG_IGN, SIGRTMIN, Siginfo, Signal, SignalAction, signal_bit
from emulator.kernel.signals import SigHand, SignalQueue, TaskSignals, lowest


def test_a_standard_signal_is_pending_once_and_keeps_its_first_siginfo() -> None:
    queue = SignalQueue()
    queue.add(Siginfo(Signal.SIGUSR1, pid=1))
    queue.add(Siginfo(Signal.SIGUSR1, pid=2))
    assert queue.take(Signal.SIGUSR1).pid == 1
    assert queue.mask == 0 and not len(queue)


def test_real_time_signals_queue_in_order() -> None:
    queue = SignalQueue()
    for value in range(3):
        queue.add(Siginfo(SIGRTMIN + 2, value=value))
    assert [queue.take(SIGRTMIN + 2).value for _ in range(3)] == [0, 1, 2]
    assert queue.mask == 0


def test_discard_says_what_it_dropped() -> None:
    queue = SignalQueue()
    queue.add(Siginfo(Signal.SIGCONT))
    queue.add(Siginfo(Signal.SIGTERM))
    assert [info.signo for info in queue.discard(signal_bit(Signal.SIGCONT))] == [Signal.SIGCONT]
    assert queue.mask == signal_bit(Signal.SIGTERM)


def test_kill_and_stop_cannot_be_blocked() -> None:
    signals = TaskSignals()
    signals.set_mask((1 << 64) - 1)
    assert not signals.mask & signal_bit(Signal.SIGKILL)
    assert not signals.mask & signal_bit(Signal.SIGSTOP)
    assert signals.mask & signal_bit(64)


def test_exec_keeps_what_is_ignored_and_resets_what_is_handled() -> None:
    sighand = SigHand()
    sighand.actions[Signal.SIGINT] = SignalAction(handler=SIG_IGN, flags=4)
    sighand.actions[Signal.SIGTERM] = SignalAction(handler=0x1000)
    sighand.reset_for_exec()
    assert sighand.ignores(Signal.SIGINT)
    assert sighand.actions[Signal.SIGTERM] == SignalAction()


def test_sigchld_is_ignored_by_default() -> None:
    assert SigHand().ignores(Signal.SIGCHLD)
    assert not SigHand().ignores(Signal.SIGTERM)


def test_lowest_signal_of_a_mask() -> None:
    assert lowest(signal_bit(9) | signal_bit(17)) == 9
