"""Breakpoints and watchpoints with conditions and commands (Z0-Z4).

Rule: the engine knows addresses; whose point it is, its conditions and commands are known here.  A breakpoint with a
condition costs no event while the condition is false: `breakpoint_holds` answers the run loop directly.
Points belong to a process; processes that share memory (vfork) count their claims on the one page table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from emulator.cpu.exits import WatchHit, WatchKind
from emulator.cpu.mmu import PageTable
from emulator.debug.core import EINVAL
from emulator.debug.registers import RegistersAbility
from emulator.errors import MemoryFault
from emulator.kernel.events import WatchStop
from emulator.kernel.tasks import Task
from gdbstub.abilities import BreakpointKind, BreakpointSite
from gdbstub.agent import AgentError, Expression
from gdbstub.errors import MemoryUnreadable, TargetError
from gdbstub.stop import HardwareBreakpoint, Reason, SoftwareBreakpoint, Watchpoint, WatchType

_KINDS = {WatchType.WRITE: WatchKind.WRITE, WatchType.READ: WatchKind.READ, WatchType.ACCESS: WatchKind.ACCESS}


@dataclass(slots=True)
class Breakpoint:
    """What is inserted at one address of one process."""

    kinds: set[BreakpointKind] = field(default_factory=set)
    conditions: tuple[Expression, ...] = ()
    commands: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """One watchpoint."""

    type: WatchType
    address: int
    length: int
    conditions: tuple[Expression, ...] = ()


@dataclass(slots=True)
class PointSet:
    """The points of one process."""

    table: PageTable
    breakpoints: dict[int, Breakpoint] = field(default_factory=dict)
    watchpoints: dict[tuple[WatchType, int, int], Watched] = field(default_factory=dict)


class LiveContext:
    """What agent bytecode sees: the live CPU and the task's memory."""

    __slots__ = ("_ability", "_task", "output")

    def __init__(self, ability: PointsAbility, task: Task) -> None:
        self._ability = ability
        self._task = task
        self.output = b""

    def register(self, regnum: int) -> int:
        """A register of the task on the CPU."""
        names = self._ability.registers_description(self._task).names
        if not 0 <= regnum < len(names):
            raise AgentError(f"there is no register {regnum}")
        return int(self._ability.kernel.cpu.read(names[regnum]))

    def memory(self, address: int, size: int) -> int:
        """A number in target byte order."""
        task = self._task
        try:
            data = task.space.table.read(address, size, force=True)
        except MemoryFault:
            raise AgentError(f"cannot read {address:#x}") from None
        return int.from_bytes(data, task.arch.byteorder)

    def print(self, text: bytes) -> None:
        """dprintf in the target: to the server's diagnostics."""
        self.output += text


class PointsAbility(RegistersAbility):
    """Breakpoints, Watchpoints."""

    points: dict[int, PointSet]
    claims: dict[tuple[int, int], int]  # (id of page table, address) -> how many processes inserted it
    # Removed by the client, still in the engine: gdb removes every breakpoint at each stop, and to step over one, only
    # to insert it again; taking it out and putting it back would cost a translation each time.  A hit takes it out.
    lingering: dict[tuple[int, int], PageTable]

    def _points(self, process: int) -> PointSet:
        group = self.group(process)
        found = self.points.get(group.tgid)
        table = self.space(group.tgid).table
        if found is None or found.table is not table:
            found = self.points[group.tgid] = PointSet(table)
        return found

    # -- breakpoints ---------------------------------------------------------------------------------------------

    def insert_breakpoint(
        self, process: int, site: BreakpointSite, conditions: Sequence[Expression], commands: Sequence[Expression]
    ) -> None:
        """Insert, or replace conditions and commands."""
        task = self.leader(process)
        address, in_memory = site.address, site.kind is BreakpointKind.SOFTWARE
        if site.size not in task.arch.breakpoint_kinds and in_memory:
            raise TargetError(EINVAL, f"no breakpoint has kind {site.size} here")
        points = self._points(process)
        point = points.breakpoints.get(address)
        if point is None:
            if in_memory and task.space.vmas.at(address) is None:
                raise MemoryUnreadable(address)
            point = points.breakpoints[address] = Breakpoint()
            self._claim(points.table, address)
        point.kinds.add(site.kind)
        point.conditions, point.commands = tuple(conditions), tuple(commands)

    def remove_breakpoint(self, process: int, site: BreakpointSite) -> None:
        """Remove; unknown ones are no error."""
        points = self._points(process)
        address = site.address
        point = points.breakpoints.get(address)
        if point is None:
            return
        point.kinds.discard(site.kind)
        if not point.kinds:
            del points.breakpoints[address]
            self._disclaim(points.table, address)
            if site.kind is BreakpointKind.SOFTWARE and self.space(process).vmas.at(address) is None:
                raise MemoryUnreadable(address)  # it went with its memory: gdb warns its user

    def _claim(self, table: PageTable, address: int) -> None:
        key = (id(table), address)
        count = self.claims.get(key, 0)
        self.claims[key] = count + 1
        if not count and self.lingering.pop(key, None) is None:
            self.kernel.cpu.insert_breakpoint(table, address)

    def _disclaim(self, table: PageTable, address: int) -> None:
        key = (id(table), address)
        count = self.claims.get(key, 0)
        if count > 1:
            self.claims[key] = count - 1
            return
        self.claims.pop(key, None)
        self.lingering[key] = table

    def remove_lingering(self) -> None:
        """Take out what was removed and not inserted again."""
        for (_, address), table in self.lingering.items():
            self.kernel.cpu.remove_breakpoint(table, address)
        self.lingering.clear()

    def breakpoint_holds(self, task: Task, address: int) -> bool:
        """Asked by the run loop at a hit: stop here?"""
        points = self.points.get(self.process_of(task))
        point = points.breakpoints.get(address) if points is not None else None
        if point is None:
            table = task.space.table
            if self.lingering.pop((id(table), address), None) is not None:
                self.kernel.cpu.remove_breakpoint(table, address)
            return False  # or another process' claim on shared memory
        if point.conditions and not self._true(task, point.conditions):
            return False
        if point.commands:
            context = LiveContext(self, task)
            for command in point.commands:
                try:
                    command(context)
                except AgentError:
                    return True
            if context.output:
                self.write_diagnostic(context.output.decode("utf-8", "replace"))
            return False
        return True

    def _true(self, task: Task, conditions: tuple[Expression, ...]) -> bool:
        context = LiveContext(self, task)
        for condition in conditions:
            try:
                if condition(context):
                    return True
            except AgentError:
                return True
        return False

    def breakpoint_reason(self, task: Task, address: int) -> Reason:
        """Software unless only a hardware one is there."""
        points = self.points.get(self.process_of(task))
        point = points.breakpoints.get(address) if points is not None else None
        if point is not None and BreakpointKind.SOFTWARE not in point.kinds:
            return HardwareBreakpoint()
        return SoftwareBreakpoint()

    # -- watchpoints ---------------------------------------------------------------------------------------------

    def insert_watchpoint(
        self, process: int, kind: WatchType, address: int, length: int, conditions: Sequence[Expression]
    ) -> None:
        """Any length, any number."""
        if length <= 0 or address + length > 1 << 64:
            raise TargetError(EINVAL, f"cannot watch {length} bytes at {address:#x}")
        points = self._points(process)
        key = (kind, address, length)
        if key not in points.watchpoints:
            self.kernel.cpu.insert_watchpoint(points.table, address, length, _KINDS[kind])
        points.watchpoints[key] = Watched(kind, address, length, tuple(conditions))
        self._watch_stores()

    def remove_watchpoint(self, process: int, kind: WatchType, address: int, length: int) -> None:
        """Remove; unknown ones are no error."""
        points = self._points(process)
        if points.watchpoints.pop((kind, address, length), None) is not None:
            self.kernel.cpu.remove_watchpoint(points.table, address, length, _KINDS[kind])
            self._watch_stores()

    def _watch_stores(self) -> None:
        """While something is watched for stores, those of system calls count too."""
        kinds = (watched.type for points in self.points.values() for watched in points.watchpoints.values())
        wanted = any(kind is not WatchType.READ for kind in kinds)
        self.kernel.stored = self._stored_by_call if wanted else None
        self.kernel.cpu.core.tells_stores = wanted

    def _stored_by_call(self) -> None:
        """Stop behind a system call that stored into watched memory; one stop tells of the first."""
        task = self.kernel.current
        for hit in self.kernel.cpu.take_kernel_hits():
            if task is not None and task.alive and self.watch_holds(task, hit):
                task.stepping = None  # this is the stop a step would have ended with
                self.kernel.events.append(WatchStop(task, hit))
                break

    def watched(self, task: Task, hit: WatchHit) -> Watched | None:
        """The watchpoint a hit belongs to."""
        points = self.points.get(self.process_of(task))
        if points is None:
            return None
        fits = [w for w in points.watchpoints.values() if w.address <= hit.address < w.address + w.length]
        return next((w for w in fits if _KINDS[w.type] == hit.kind), fits[0] if fits else None)

    def watch_holds(self, task: Task, hit: WatchHit) -> bool:
        """Asked by the run loop at a hit: stop here?"""
        watched = self.watched(task, hit)
        if watched is None:
            return False
        return not watched.conditions or self._true(task, watched.conditions)

    def watch_reason(self, task: Task, hit: WatchHit) -> Reason:
        """For the stop reply."""
        watched = self.watched(task, hit)
        return Watchpoint(watched.type if watched is not None else WatchType.WRITE, hit.address)

    # -- processes -----------------------------------------------------------------------------------------------

    def copy_points(self, parent: int, child: Task) -> None:
        """A forked child has its parent's points."""
        source = self.points.get(parent)
        if source is None:
            return
        copy = self.points[child.group.tgid] = PointSet(child.space.table)
        for address, point in source.breakpoints.items():
            copy.breakpoints[address] = Breakpoint(set(point.kinds), point.conditions, point.commands)
            self._claim(copy.table, address)
        for key, watched in source.watchpoints.items():
            copy.watchpoints[key] = replace(watched)
            if copy.table is not source.table:
                self.kernel.cpu.insert_watchpoint(copy.table, watched.address, watched.length, _KINDS[watched.type])

    def drop_points(self, process: int, *, gone: bool = False) -> None:
        """Remove all points of a process; `gone`: its memory is no more."""
        points = self.points.pop(process, None)
        if points is None:
            return
        self._watch_stores()
        shared = any(other.table is points.table for other in self.points.values())
        if gone and not shared:
            for key in [key for key, table in self.lingering.items() if table is points.table]:
                del self.lingering[key]
        for address in points.breakpoints:
            if gone and not shared:
                self.claims.pop((id(points.table), address), None)
            else:
                self._disclaim(points.table, address)
        if not gone:
            self.remove_lingering()
        if not shared and not gone:
            for watched in points.watchpoints.values():
                self.kernel.cpu.remove_watchpoint(points.table, watched.address, watched.length, _KINDS[watched.type])
