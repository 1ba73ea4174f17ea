"""Running a study: one process per cell, rows and page as they come, and going on where it stopped."""

import multiprocessing
import os
import platform
import signal
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from astray.agents.language_model import faster_dtype
from astray.agents.weights import find, fingerprint
from astray.envs import InputError
from astray.experiments.display import Display
from astray.experiments.files import read_json, read_rows, write_json, write_rows, write_text
from astray.experiments.report import write_report
from astray.experiments.study import REFERENCES, Cell, Study

LOCK = ".lock"


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
        InputError: the folder belongs to another configuration or is in use, ``jobs`` is not positive, or a language
            model is not found.
        OSError: a file could not be written; what was finished stays.
        FailedCellsError: cells failed; their errors are in ``rows/<cell>.error.txt``. A rerun tries only those.
    """
    if jobs < 1:
        raise InputError(f"jobs={jobs} must be at least 1")
    check_folder(study, folder)
    models = {arm.language_model: find(arm.language_model) for arm in study.arms if arm.language_model}
    weights = {name: fingerprint(path) for name, path in models.items()}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            check_folder(study, folder)  # once more, now that nobody else can write
            write_json(folder / "config.json", study.config())
            _keep_environment(folder / "environment.json", weights)
            for name in ("rows", "episodes"):
                (folder / name).mkdir(exist_ok=True)
            _run_cells(study, folder, jobs)
    except Timeout:
        raise InputError(f"out={str(folder)!r} is in use by another run") from None


def check_folder(study: Study, folder: Path) -> None:
    """Refuses a folder whose rows come from another configuration.

    Raises:
        InputError: names the first setting that differs.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out={str(folder)!r} is a file: choose a folder")
    path = folder / "config.json"
    if not path.exists():
        if folder.exists() and any(each.name != LOCK for each in folder.iterdir()):
            raise InputError(f"out={str(folder)!r} holds other files and no config.json: choose another folder")
        return
    where = _difference(read_json(path), study.config())
    if where:
        raise InputError(f"out={str(folder)!r} was made by another configuration ({where}): choose another folder")


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


def _keep_environment(path: Path, weights: dict[str, str]) -> None:
    """Writes what the rows are made with: chosen and measured once, and kept when a run is resumed.

    Raises:
        InputError: the run began with other weights of a language model.
    """
    if path.exists():
        where = _difference(read_json(path)["language_model_weights"], weights)
        if where:
            raise InputError(f"this run began with other weights ({where}): choose another folder")
        return
    packages = ("astray", "gymnasium", "numpy", "torch", "stable-baselines3", "transformers", "peft")
    environment = {
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "torch_threads": 1,
        "language_model_dtype": str(faster_dtype()).removeprefix("torch."),
        "language_model_weights": weights,
    }
    write_json(path, environment)


def _run_cells(study: Study, folder: Path, jobs: int) -> None:
    cells: dict[str, Cell | None] = {REFERENCES: None} | {cell.name: cell for cell in study.cells()}
    done = [name for name in cells if (folder / "rows" / f"{name}.parquet").exists()]
    waiting = {name: cell for name, cell in cells.items() if name not in done}
    first_policy = study.arms[0].policy
    first_page = {name for name, cell in cells.items() if cell is None or cell.arm.policy == first_policy}
    failed = []
    with Display(len(cells), len(done)) as display:
        for name, event, value in _processes(study, folder, jobs, waiting):
            cell, error = cells[name], folder / "rows" / f"{name}.error.txt"
            if event == "start":
                error.unlink(missing_ok=True)
                display.started(name, cell.arm.steps if cell else 1)
                continue
            if event == "steps":
                display.stepped(name, value)
                continue
            display.finished(name, event)
            if event == "done":
                done.append(name)
            else:
                failed.append(name)
                write_text(error, value)
            if done and first_page <= {*done, *failed}:
                publish(folder)
        if not waiting:
            publish(folder)
    if failed:
        raise FailedCellsError(
            f"{len(failed)} cells failed ({', '.join(failed)}): the errors are in {folder / 'rows'}/*.error.txt; "
            "the same command tries them again"
        )


def publish(folder: Path) -> None:
    """Merges the rows that are there, and writes figures and page from them.

    Raises:
        InputError: no cell of this run folder is finished.
        OSError: a file of rows is damaged; the sentence names it.
    """
    paths = [folder / "rows" / f"{name}.parquet" for name in read_json(folder / "config.json")["cells"]]
    present = [read_rows(path) for path in paths if path.exists()]
    if not present:
        raise InputError(f"folder={str(folder)!r} holds no finished cell yet, so there is nothing to show")
    write_rows(folder / "rows.parquet", pd.concat(present, ignore_index=True))
    episodes = [read_json(path) for path in sorted((folder / "episodes").glob("*.json"))]
    write_json(folder / "episodes.json", [episode for part in episodes for episode in part])
    write_report(folder)


Event = tuple[str, str, Any]
"""A cell's name, what happened, and with what: "start", "steps" (int), "done" or "failed" (the error's text)."""


def _processes(study: Study, folder: Path, jobs: int, cells: dict[str, Cell | None]) -> Iterator[Event]:
    """Runs cells in processes of their own; yields events as they come.

    Raises:
        OSError: a cell could not read or write (a full disk, say), which would stop the others too.
    """
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
                yield name, "start", None
                process.start()
                theirs.close()
                running[name] = (process, ours)
            ready = wait([pipe for _, pipe in running.values()])
            for name, (process, pipe) in [each for each in running.items() if each[1][1] in ready]:
                try:
                    event, value = pipe.recv()
                except EOFError:
                    process.join()
                    event, value = "failed", f"the process ended with status {process.exitcode} (out of memory?)"
                if event == "stop":
                    raise OSError(f"{name}: {value}")
                if event != "steps":
                    process.join()
                    del running[name]
                yield name, event, value
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def _child(study: Study, cell: Cell | None, folder: Path, pipe: Connection) -> None:
    from astray.experiments.cell import run_cell  # imported by the fork server, for all cells at once

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its children
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are removed on the way out
    try:
        run_cell(study, cell, folder, lambda steps: pipe.send(("steps", steps)))
        pipe.send(("done", None))
    except BrokenPipeError:
        sys.exit(1)  # nobody listens any more: the run was killed
    except OSError as error:
        pipe.send(("stop", str(error)))
    except Exception:
        pipe.send(("failed", traceback.format_exc()))
