"""Progress of a run: live bars on a terminal, plain lines elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Display:
    """Shows cells done, each running cell's steps and speed, and the time left."""

    def __init__(self, cells: int, done: int):
        """Starts at ``done`` of ``cells`` cells."""
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._cells, self._done = cells, done
        self._all = self._progress.add_task("cells", total=cells, completed=done, speed="")
        self._running: dict[str, tuple[TaskID, float]] = {}
        if done:
            self.console.print(f"{done} of {cells} cells were finished before")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, cell: str, steps: int) -> None:
        """A cell begins, with so many steps to do."""
        self._running[cell] = (self._progress.add_task(cell, total=steps, speed=""), time.monotonic())

    def stepped(self, cell: str, steps: int) -> None:
        """A cell has done so many steps."""
        task, start = self._running[cell]
        speed = steps / max(time.monotonic() - start, 1e-9)
        self._progress.update(task, completed=steps, speed=f"{speed:,.0f} steps/s")

    def finished(self, cell: str, how: str) -> None:
        """A cell has ended: "done" or "failed"."""
        task, start = self._running.pop(cell)
        self._progress.remove_task(task)
        self._done += 1
        self._progress.update(self._all, completed=self._done)
        self.say(f"{cell} {how} in {time.monotonic() - start:.0f} s ({self._done} of {self._cells} cells)")

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, highlight=False, soft_wrap=True)
