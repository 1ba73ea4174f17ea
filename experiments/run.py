"""Running a study: one process per cell, rows and page as they come, and going on where it stopped."""

import errno
import multiprocessing
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from astray.agents.language_model import faster_dtype
from astray.agents.weights import find, fingerprint
from astray.envs import InputError
from astray.experiments import sums
from astray.experiments.display import Display
from astray.experiments.files import (
    as_json,
    read_json,
    read_rows,
    sha256,
    sha256_of,
    write_json,
    write_rows,
    write_text,
)
from astray.experiments.machine import commit, machine, versions
from astray.experiments.report import write_report
from astray.experiments.selection import load_study
from astray.experiments.study import REFERENCES, Cell, Study

LOCK = ".lock"
PARTS = ("episodes", "maps")
"""What each cell tells beside its rows, in ``<part>/<cell>.json``; merged into ``<part>.json``."""
BROKEN_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
"""Errors that the other cells would meet too."""


class FailedCellsError(RuntimeError):
    """Some cells failed; the others are finished and on disk."""


def run_study(study: Study, folder: Path, jobs: int = 2, source: str | None = None) -> None:
    """Trains and tests every cell that is not finished, and writes rows, figures and the page.

    The folder holds ``config.json``, ``environment.json``, ``rows/<cell>.parquet``, ``rows.parquet``,
    ``episodes.json``, ``maps.json``, ``timings/``, ``checkpoints/``, ``tensorboard/``, ``figures/``, ``report.html``
    and ``SHA256SUMS`` over all of these. The page is written as soon as all cells of the first policy are there, and
    again with every cell that follows. A rerun continues.

    Args:
        study: what to run.
        folder: the run folder; made if it is not there.
        jobs: cells at once, one process with one torch thread each.
        source: the Python file (or FILE.py:CLASS) that the study comes from, if it is not an importable module.

    Raises:
        InputError: the folder belongs to another configuration or is in use, ``jobs`` is not positive, or a language
            model is not found.
        OSError: a file could not be written; what was finished stays. Or a finished file is damaged; it is named.
        FailedCellsError: cells failed; their errors are in ``rows/<cell>.error.txt``. A rerun tries only those.
    """
    if jobs < 1:
        raise InputError(f"jobs={jobs} must be at least 1")
    check_folder(study, folder)
    models = {arm.language_model: find(arm.language_model) for arm in study.arms if arm.language_model}
    weights = {name: fingerprint(path) for name, path in models.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        check_folder(study, folder)  # once more, now that nobody else can write
        finished = _begin(study, folder, source, weights)
        _run_cells(study, folder, jobs, source, finished)
        sums.compact(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps others from writing to a run folder.

    Raises:
        InputError: another run is writing to it.
    """
    try:
        lock = FileLock(folder / LOCK, timeout=0).acquire()
    except Timeout:
        raise InputError(f"folder={str(folder)!r} is in use by another run") from None
    with lock:
        yield


def check_is_run(folder: Path) -> None:
    """Refuses what is no run folder.

    Raises:
        InputError: it is none.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"folder={str(folder)!r} is no run folder: it holds no config.json")


def open_run(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """A run's configuration and rows, for looking at.

    Raises:
        InputError: the folder is no run folder, or holds no finished cell.
        OSError: a file is damaged; the sentence names it.
    """
    check_is_run(folder)
    whole = sums.check(folder)
    if not (folder / "rows.parquet").exists():
        raise InputError(f"folder={str(folder)!r} holds no rows.parquet: no cell is finished yet")
    if whole and "rows.parquet" not in whole:
        raise OSError(f"{folder / 'rows.parquet'} is damaged: `astray report {folder}` makes it again")
    return read_json(folder / "config.json"), read_rows(folder / "rows.parquet")


def check_folder(study: Study, folder: Path) -> None:
    """Refuses a folder whose rows come from another configuration.

    Raises:
        InputError: names the first setting that differs.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out={str(folder)!r} is a file: choose a folder")
    path = folder / "config.json"
    if not path.exists():
        if sums.registered(folder).get("config.json") == sha256_of(as_json(study.config()).encode()):
            return  # it was removed, and is made again
        if folder.exists() and any(not each.name.startswith(".") for each in folder.iterdir()):
            raise InputError(f"out={str(folder)!r} holds other files and no config.json: choose another folder")
        return
    where = _difference(read_json(path), study.config())
    if where:
        if (folder / sums.NAME).exists():
            sums.check(folder)  # is the file damaged, rather than another one?
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


def _begin(study: Study, folder: Path, source: str | None, weights: dict[str, str]) -> set[str]:
    """Keeps what the rows are made with; returns the files that earlier runs have finished.

    Raises:
        InputError: the run began with other weights of a language model.
    """
    finished = sums.check(folder) if (folder / sums.NAME).exists() else set()
    if finished:
        sums.compact(folder)
    if "config.json" not in finished:
        write_json(folder / "config.json", study.config())
        sums.register(folder, [folder / "config.json"])
    environments = sorted(
        (name for name in finished if name.startswith("environment")), key=lambda name: (len(name), name)
    )
    now: dict[str, Any] = {"commit": commit(), "versions": versions(), "machine": machine()}
    if source:
        now["study_file_sha256"] = sha256(Path(source.rpartition(":")[0] if ".py:" in source else source))
    if environments:
        first = read_json(folder / "environment.json")
        if where := _difference(first["language_model_weights"], weights):
            raise InputError(f"this run began with other weights ({where}): choose another folder")
        latest = read_json(folder / environments[-1])
        if not (where := _difference({name: latest.get(name) for name in now}, now)):
            return finished
        print(f"this run goes on under other circumstances than before ({where})", file=sys.stderr)
        now |= {name: value for name, value in first.items() if name not in now}  # measured once, and kept
    else:
        now |= {
            "torch_threads": 1,
            "language_model_dtype": language_model_dtype(study),
            "language_model_weights": weights,
        }
    name = f"environment-{len(environments) + 1}.json" if environments else "environment.json"
    write_json(folder / name, now)
    sums.register(folder, [folder / name])
    return finished


def language_model_dtype(study: Study) -> str:
    """The dtype that language models are trained in: what their device multiplies faster, measured."""
    devices = [arm.settings.get("device", "cpu") for arm in study.arms if arm.language_model]
    return str(faster_dtype(devices[0] if devices else "cpu")).removeprefix("torch.")


def _run_cells(study: Study, folder: Path, jobs: int, source: str | None, finished: set[str]) -> None:
    for name in ("rows", "timings", *PARTS):
        (folder / name).mkdir(exist_ok=True)
    cells: dict[str, Cell | None] = {REFERENCES: None} | {cell.name: cell for cell in study.cells()}
    done = [name for name in cells if f"rows/{name}.parquet" in finished]
    waiting = {name: cell for name, cell in cells.items() if name not in done}
    first_policy = study.arms[0].policy
    first_page = {name for name, cell in cells.items() if cell is None or cell.arm.policy == first_policy}
    failed = []
    published = cost = 0.0
    with Display(waiting, len(done), jobs) as display:
        for name, event, value in _processes(study, folder, jobs, source, waiting):
            error = folder / "rows" / f"{name}.error.txt"
            if event == "start":
                error.unlink(missing_ok=True)
                display.started(name)
                continue
            if event == "steps":
                display.stepped(name, value)
                continue
            if event == "done":
                sums.register(folder, _files_of(folder, name))
                done.append(name)
            else:
                write_text(error, value)
                failed.append(name)
            display.finished(name, event)
            more = len(done) + len(failed) < len(cells)
            rested = time.monotonic() - published > 10 * cost  # drawing takes seconds, and small cells little more
            if done and first_page <= {*done, *failed} and more and rested:
                started = time.monotonic()
                try:
                    publish(folder)
                except (ValueError, TypeError, LookupError) as problem:  # no reason to stop training
                    display.say(f"the page cannot be written yet: {problem!r}")
                published = time.monotonic()
                cost = published - started
        if done:
            publish(folder)
    if failed:
        raise FailedCellsError(
            f"{len(failed)} cells failed ({', '.join(failed)}): the errors are in {folder / 'rows'}/*.error.txt; "
            "the same command tries them again"
        )


def _files_of(folder: Path, cell: str) -> list[Path]:
    """A cell's files; its rows come last, since they say that it is finished."""
    parts = [folder / part / f"{cell}.json" for part in (*PARTS, "timings")]
    trees = [folder / tree / cell for tree in ("checkpoints", "tensorboard")]
    return [path for path in (*parts, *trees, folder / "rows" / f"{cell}.parquet") if path.exists()]


def republish(folder: Path) -> None:
    """``publish``, after a look at whether the files are as they were written, and with nobody else writing.

    Raises:
        InputError: the folder is no run folder, is in use, or holds no finished cell.
        OSError: a file is damaged; the sentence names it.
    """
    check_is_run(folder)
    with locked(folder):
        sums.check(folder)
        publish(folder)


def publish(folder: Path) -> None:
    """Merges the rows of finished cells, and writes figures and page from them.

    Raises:
        InputError: no cell of this run folder is finished.
        OSError: a file of rows is damaged; the sentence names it.
    """
    finished = [name for name in sums.registered(folder) if name.startswith("rows/")]
    cells = read_json(folder / "config.json")["cells"]
    paths = {cell: folder / "rows" / f"{cell}.parquet" for cell in cells}
    # A folder from before there were sums has none at all.
    present = [cell for cell in cells if paths[cell].exists() and (not finished or f"rows/{cell}.parquet" in finished)]
    if not present:
        raise InputError(f"folder={str(folder)!r} holds no finished cell yet, so there is nothing to show")
    write_rows(folder / "rows.parquet", pd.concat([read_rows(paths[cell]) for cell in present], ignore_index=True))
    for part in PARTS:
        told = [folder / part / f"{cell}.json" for cell in present]
        write_json(folder / f"{part}.json", [entry for path in told if path.exists() for entry in read_json(path)])
    write_report(folder)
    made = [folder / name for name in ("rows.parquet", *(f"{part}.json" for part in PARTS), "figures", "report.html")]
    sums.register(folder, [path for path in made if path.exists()])


Event = tuple[str, str, Any]
"""A cell's name, what happened, and with what: "start", "steps" (int), "done" or "failed" (the error's text)."""


def _processes(
    study: Study, folder: Path, jobs: int, source: str | None, cells: dict[str, Cell | None]
) -> Iterator[Event]:
    """Runs cells in processes of their own; yields events as they come.

    Raises:
        OSError: a cell could not read or write (a full disk, say), which would stop the others too.
    """
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["astray.experiments.cell"])  # torch is imported once, not once per cell
    if "forkserver" in methods and threading.current_thread() is threading.main_thread():
        # Ctrl-C is for the run, which ends its processes, and not for a fork server that is still importing.
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
        forkserver.ensure_running()
        signal.signal(signal.SIGINT, heard)
    queue = list(cells.items())
    before = {name: _begins_with(study, cell) for name, cell in queue}
    running: dict[str, tuple[Any, Connection]] = {}
    try:
        while queue or running:
            waiting = {name for name, _ in queue} | running.keys()
            ready = [(name, cell) for name, cell in queue if before[name] not in waiting]
            for name, cell in ready[: jobs - len(running)]:
                queue.remove((name, cell))
                ours, theirs = context.Pipe(duplex=False)
                task = (source, pickle.dumps((study, cell)), folder, theirs)
                process = context.Process(target=_child, args=task, name=name, daemon=True)
                yield name, "start", None
                process.start()
                theirs.close()
                running[name] = (process, ours)
            told = wait([pipe for _, pipe in running.values()])
            for name, (process, pipe) in [each for each in running.items() if each[1][1] in told]:
                try:
                    event, value = pipe.recv()
                except EOFError:
                    process.join()
                    event, value = "failed", f"the process ended with status {process.exitcode} (out of memory?)"
                if event == "stop":
                    raise OSError(f"{name}: {value}; once that is mended, the same command goes on")
                if event != "steps":
                    process.join()
                    del running[name]
                yield name, event, value
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def _begins_with(study: Study, cell: Cell | None) -> str | None:
    """The name of the cell that has to be finished before a cell begins."""
    before = cell and study.beginning(cell)
    return before.name if before else None


def _child(source: str | None, packed: bytes, folder: Path, pipe: Connection) -> None:
    from astray.experiments.cell import run_cell  # imported by the fork server, for all cells at once

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its children
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are removed on the way out
    # TensorBoard writes from a thread of its own: what goes wrong there is told here, and not as a trace beside it.
    in_threads: list[BaseException] = []
    threading.excepthook = lambda thrown: in_threads.append(thrown.exc_value or thrown.exc_type())
    try:
        if source:
            load_study(source)  # what the study defines can be unpickled only after that
        study, cell = pickle.loads(packed)
        run_cell(study, cell, folder, lambda steps: pipe.send(("steps", steps)))
        if in_threads:
            raise in_threads[0]
        pipe.send(("done", None))
    except BrokenPipeError:
        sys.exit(1)  # nobody listens any more: the run was killed
    except Exception as error:
        broken = isinstance(error, OSError) and error.errno in BROKEN_DISK
        pipe.send(("stop", str(error)) if broken else ("failed", traceback.format_exc()))
