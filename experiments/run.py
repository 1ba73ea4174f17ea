"""Running a study: one process per cell, rows and page as they come, and going on where it stopped."""

import json
import multiprocessing
import os
import platform
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from astray.agents.language_model import faster_dtype
from astray.agents.weights import find, fingerprint
from astray.experiments.display import Display
from astray.experiments.files import write_json, write_rows
from astray.experiments.report import write_report
from astray.experiments.study import REFERENCES, Cell, Study


class FailedCellsError(RuntimeError):
    """Some cells failed; the others are finished and on disk."""


def run_study(study: Study, folder: Path, jobs: int = 2) -> None:
    """Trains and tests every cell that is not finished, and writes rows, figures and the page.

    The folder holds ``config.json``, ``environment.json``, ``rows/<cell>.parquet``, ``rows.parquet``,
    ``episodes.json``, ``checkpoints/``, ``tensorboard/``, ``figures/`` and ``report.html``. The page is written as
    soon as all cells of the first policy are there, and again with every cell that follows. A rerun continues.

    Args:
        study: what to run.
        folder: the run folder; made if it is not there.
        jobs: cells at once, one process with one torch thread each.

    Raises:
        ValueError: the folder belongs to another configuration or is in use, ``jobs`` is not positive, or a language
            model is not found.
        FailedCellsError: cells failed; their errors are in ``rows/<cell>.error.txt``. A rerun tries only those.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs} must be at least 1")
    check_folder(study, folder)
    models = {arm.language_model: find(arm.language_model) for arm in study.arms if arm.language_model}
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            write_json(folder / "config.json", study.config())
            if not (folder / "environment.json").exists():
                write_json(folder / "environment.json", environment(models))
            _run_cells(study, folder, jobs)
    except Timeout:
        raise ValueError(f"out={str(folder)!r} is in use by another run") from None


def check_folder(study: Study, folder: Path) -> None:
    """Refuses a folder whose rows come from another configuration.

    Raises:
        ValueError: names the first setting that differs.
    """
    path = folder / "config.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"out={str(folder)!r} holds other files and no config.json: choose another folder")
        return
    old, new = json.loads(path.read_text()), study.config()
    where = _difference(old, new)
    if where:
        raise ValueError(f"out={str(folder)!r} was made by another configuration ({where}): choose another folder")


def _difference(old: Any, new: Any, name: str = "") -> str:
    """The first place where two JSON values differ, in words; empty if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return next(filter(None, (_difference(old.get(k), new.get(k), f"{name}.{k}".strip(".")) for k in keys)), "")
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return next(filter(None, (_difference(a, b, f"{name}[{i}]") for i, (a, b) in pairs)), "")
    if old == new:
        return ""

    def short(value: Any) -> str:
        return f"{len(value)} entries" if isinstance(value, list | dict) else repr(value)

    return f"{name} was {short(old)}, is {short(new)}"


def environment(models: dict[str, Path]) -> dict[str, Any]:
    """What the rows are made with; chosen and measured once, and kept when a run is resumed."""
    packages = ("astray", "gymnasium", "numpy", "torch", "stable-baselines3", "transformers", "peft")
    return {
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "torch_threads": 1,
        "language_model_dtype": str(faster_dtype()).removeprefix("torch."),
        "language_model_weights": {name: fingerprint(path) for name, path in models.items()},
    }


def _run_cells(study: Study, folder: Path, jobs: int) -> None:
    cells: dict[str, Cell | None] = {REFERENCES: None} | {cell.name: cell for cell in study.cells()}
    done = [name for name in cells if (folder / "rows" / f"{name}.parquet").exists()]
    waiting = [name for name in cells if name not in done]
    first_policy = study.arms[0].policy
    first_page = {name for name, cell in cells.items() if cell is None or cell.arm.policy == first_policy}
    failed = []
    with Display(len(cells), len(done)) as display:
        for name, event in _processes(study, folder, jobs, {name: cells[name] for name in waiting}):
            cell = cells[name]
            if event == "start":
                display.started(name, cell.arm.steps if cell else 1)
                continue
            if isinstance(event, int):
                display.stepped(name, event)
                continue
            display.finished(name, event)
            (done if event == "done" else failed).append(name)
            if done and first_page <= {*done, *failed}:
                publish(folder)
        if not waiting:
            publish(folder)
    if failed:
        raise FailedCellsError(
            f"{len(failed)} cells failed ({', '.join(failed)}): see rows/<cell>.error.txt in {folder}"
        )


def publish(folder: Path) -> None:
    """Merges the rows that are there, and writes figures and page from them.

    Raises:
        ValueError: no cell of this run folder is finished.
    """
    config = json.loads((folder / "config.json").read_text())
    paths = [folder / "rows" / f"{name}.parquet" for name in config["cells"]]
    present = [pd.read_parquet(path) for path in paths if path.exists()]
    if not present:
        raise ValueError(f"folder={str(folder)!r} holds no finished cell yet, so there is nothing to show")
    write_rows(folder / "rows.parquet", pd.concat(present, ignore_index=True))
    episodes = [json.loads(path.read_text()) for path in sorted((folder / "episodes").glob("*.json"))]
    write_json(folder / "episodes.json", [episode for part in episodes for episode in part])
    write_report(folder)


def _processes(study: Study, folder: Path, jobs: int, cells: dict[str, Cell | None]) -> Iterator[tuple[str, str | int]]:
    """Runs cells in processes; yields (cell, "start" | steps done | "done" | "failed") as it comes."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["astray.experiments.cell"])  # torch is imported once, not once per cell
    queue = list(cells.items())
    running: dict[str, tuple[Any, Connection]] = {}
    try:
        while queue or running:
            while queue and len(running) < jobs:
                name, cell = queue.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(study, cell, folder, theirs), name=name, daemon=True)
                process.start()
                theirs.close()
                running[name] = (process, ours)
                yield name, "start"
            wait([pipe for _, pipe in running.values()])
            for name, (process, pipe) in list(running.items()):
                try:
                    while pipe.poll():
                        yield name, pipe.recv()
                except EOFError:
                    process.join()
                    del running[name]
                    yield name, "done" if process.exitcode == 0 else "failed"
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def _child(study: Study, cell: Cell | None, folder: Path, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its children
    from astray.experiments.cell import run_cell  # in the child: torch is not needed by the parent

    sys.exit(run_cell(study, cell, folder, pipe.send))
