"""Identity of tasks: a look-up never answers for somebody else, however tids are recycled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from emulator.kernel.tasks import FIRST_PID, Exited, Live, Task, TaskRegistry, TaskState, TaskUid, Unknown


def made(registry: TaskRegistry) -> Task:
    """A task as far as the registry cares."""
    task = cast(
        Task, SimpleNamespace(uid=registry.allocate(), state=TaskState.RUNNABLE, exit_status=0, last_registers=None)
    )
    registry.add(task)
    return task


def test_a_live_task_is_found_by_identity_and_by_number() -> None:
    registry = TaskRegistry()
    task = made(registry)
    assert registry.look_up(task.uid) == Live(task)
    assert registry.look_up_tid(FIRST_PID) == Live(task)


def test_a_zombie_answers_with_its_own_registers() -> None:
    registry = TaskRegistry()
    task = cast(Any, made(registry))
    task.state, task.exit_status, task.last_registers = TaskState.ZOMBIE, 256, "its own"
    assert registry.look_up(task.uid) == Exited(task.uid, 256, "its own")


def test_a_recycled_tid_does_not_revive_the_old_identity() -> None:
    registry = TaskRegistry()
    first = made(registry)
    registry.remove(first)
    registry.set_next(first.uid.tid)
    second = made(registry)
    assert second.uid.tid == first.uid.tid
    assert registry.look_up(first.uid) == Exited(first.uid, 0)
    assert registry.look_up(second.uid) == Live(second)
    assert registry.look_up_tid(first.uid.tid) == Live(second)


def test_exec_by_a_thread_gives_it_a_new_identity() -> None:
    registry = TaskRegistry()
    leader, thread = made(registry), made(registry)
    registry.remove(leader)
    was = thread.uid
    registry.rename(thread, leader.uid.tid)
    assert thread.uid.tid == leader.uid.tid and thread.uid != leader.uid
    assert isinstance(registry.look_up(was), Exited)
    assert isinstance(registry.look_up(leader.uid), Exited)
    assert registry.look_up(thread.uid) == Live(thread)


def test_nobody_is_unknown() -> None:
    assert isinstance(TaskRegistry().look_up(TaskUid(7, 7)), Unknown)
    assert isinstance(TaskRegistry().look_up_tid(7), Unknown)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3))))
def test_whatever_happens_an_identity_answers_for_itself_only(steps: list[tuple[bool, int, int]]) -> None:
    registry = TaskRegistry()
    alive: list[Task] = []
    dead: list[TaskUid] = []
    for create, which, recycle in steps:
        if create or not alive:
            registry.set_next(FIRST_PID + recycle)
            alive.append(made(registry))
        else:
            task = alive.pop(which % len(alive))
            registry.remove(task)
            dead.append(task.uid)
        for task in alive:
            assert registry.look_up(task.uid) == Live(task)
        for uid in dead:
            assert registry.look_up(uid) == Exited(uid, 0)
