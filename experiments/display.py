"""Progress of a run: live bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from astray.experiments.study import Cell


def duration(seconds: float) -> str:
    """Seconds in words that one can read at a glance: 0.4 s, 34 s, 8 min, 2.3 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Display:
    """Shows cells done, each running cell's steps and speed, and the time left."""

    def __init__(self, cells: Mapping[str, Cell | None], done: int, jobs: int):
        """Starts.

        Args:
            cells: those to run, by name.
            done: how many were done before.
            jobs: cells at once.
        """
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._jobs = jobs
        self._arms = {name: cell.arm.name if cell else "" for name, cell in cells.items()}
        self._steps = {name: cell.arm.steps if cell else 1 for name, cell in cells.items()}
        self._left = list(cells)
        self._took: dict[str, float] = {}  # seconds of each arm's latest cell
        self._running: dict[str, tuple[TaskID, float, int]] = {}
        self._all = self._progress.add_task("cells", total=len(cells) + done, completed=done, note="")
        if done:
            self.say(f"{done} of {len(cells) + done} cells were finished before")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, cell: str) -> None:
        """A cell begins."""
        task = self._progress.add_task(cell, total=self._steps[cell], note="")
        self._running[cell] = (task, time.monotonic(), -1)

    def stepped(self, cell: str, steps: int) -> None:
        """A cell has done so many steps."""
        task, start, first = self._running[cell]
        if first < 0:  # speed and time left count from here, whether the cell is new or resumed
            start, first = time.monotonic(), steps
            self._running[cell] = (task, start, first)
        speed = (steps - first) / max(time.monotonic() - start, 1e-9)
        self._progress.update(task, completed=steps, note=f"{speed:,.0f} steps/s" if speed else "")
        if speed:
            self._took.setdefault(self._arms[cell], self._steps[cell] / speed)
        self._progress.update(self._all, note=self._time_left())

    def finished(self, cell: str, how: str) -> None:
        """A cell has ended: "done" or "failed"."""
        task, start, first = self._running.pop(cell)
        seconds = time.monotonic() - start
        self._progress.remove_task(task)
        self._progress.advance(self._all)
        self._left.remove(cell)
        speed = ""
        if how == "done" and first == 0:
            self._took[self._arms[cell]] = seconds
            speed = f", {self._steps[cell] / seconds:,.0f} steps/s"
        elif how == "done":
            self._took.setdefault(self._arms[cell], seconds)
        done, cells = self._progress.tasks[0].completed, self._progress.tasks[0].total
        left = self._time_left()
        self._progress.update(self._all, note=left)
        self.say(f"{cell} {how} in {duration(seconds)}{speed} ({done:g} of {cells:g} cells{left and ', '}{left})")

    def _time_left(self) -> str:
        """In words; nothing before every kind of cell that is left was seen."""
        if not self._left or any(self._arms[cell] not in self._took for cell in self._left):
            return ""
        now = time.monotonic()
        spent = sum(now - start for _, start, _ in self._running.values())
        needed = sum(self._took[self._arms[cell]] for cell in self._left) - spent
        return f"about {duration(max(needed, 0) / min(self._jobs, len(self._left)))} left"

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, highlight=False, soft_wrap=True)
