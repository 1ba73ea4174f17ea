"""Attacks a small run on disk, lets it go on, and prints a table of what was tried and what held.

``python benchmarks/faults.py [PART ...] [--count N] [--language-model FOLDER]`` with these parts, all of them by
default:

kills
    The real command is killed at a random moment of its time (one in five) or of the time that it writes in (the
    others): its whole group by SIGKILL, SIGTERM or Ctrl-C, or the main process alone, whose cell may be at work when
    the next run begins. Ctrl-C has to end with status 130 and one sentence.
syscalls
    A process is killed as it enters a write, fsync, rename, mkdir, unlink or file creation in the run folder. strace
    records an undisturbed run first: a point is "the k-th of these calls on this path". More points than the count
    are sampled evenly.
full
    The disk is full: ENOSPC at the points of ``syscalls`` that need space, from there on, and a file system with ever
    more space, up to 2 MiB. One sentence, status 1, no trace; what was finished stays readable.
flips
    A bit is flipped in a file of a finished run, or its end cut off, file by file in turn. ``run``, ``report`` and
    ``compare`` have to name the file. Then ``run`` ends with the same rows, if need be after the file was removed.
    The same for the newest checkpoint of an unfinished run, and nothing may be said of a folder without damage.
environments
    Another time zone, the locale C in ASCII, another hash seed, blanks and umlauts in paths, more cells at once.

After each attack, what lies under its final name must be whole; the same command must end well, with the rows of an
undisturbed run, sums that agree, and no temporary file. At most one checkpoint interval may be repeated: TensorBoard's
files hold the steps done before and after. Exit status 1 if anything did not hold.

The runs of ``syscalls``, ``full`` and ``flips`` are forks of a process that has imported everything, which takes 2 s
rather than 6 s; what an attack leaves running of them is killed. In ``kills`` the real command is run.

Linux only. Root would not notice missing rights: started as root, the script mounts the small file system and goes on
as the user ``nobody``, who must be able to read this Python and the package.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

PREFIX, NOBODY = "astray-faults-", 65534
HERE = Path(tempfile.gettempdir())  # a folder of this script's own, see from_outside
STUDY, WHOLE, DISK, DISK_BYTES = HERE / "study.py", HERE / "whole", HERE / "disk", 8 * 2**20
STUDY_TEXT = """
from astray.agents import LM_PPO, MLP_PPO
from astray.experiments import Arm, Study

SETTINGS = MLP_PPO | {"n_steps": 16, "batch_size": 128}
MLP = Arm("mlp", "mlp", SETTINGS, "planes", num_envs=16, steps=1024, test_every=512, train_shifts=(0.0, 1.0), seeds=1)
LANGUAGE = Arm(
    "language", "language", LM_PPO | {"n_steps": 16, "batch_size": 64, "policy_kwargs": {"trained_layers": 1}}, "bytes",
    num_envs=16, steps=1024, test_every=512, train_shifts=(0.0, 1.0), seeds=1, language_model=MODEL,
)
SMALL = {"test_ambiguous": 8, "test_distinguishing": 8, "timing_ambiguous": 4, "timing_distinguishing": 4}
STUDY = Study(name="small", world="cheese-corner", arms=(LANGUAGE if MODEL else MLP,), **SMALL)
"""
ROLLOUT, INTERVAL = 256, 512  # steps
NEEDS_SPACE = ("write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "mkdir", "openat")
NOT_REACHED = "not reached"
REMOVES = ("unlink", "unlinkat", "rmdir")
KILLS = {
    "SIGKILL to the group": (6, signal.SIGKILL),  # so many of ten
    "SIGKILL to the main process": (1, signal.SIGKILL),
    "SIGTERM to the group": (1, signal.SIGTERM),
    "Ctrl-C": (2, signal.SIGINT),
}


class Attack(NamedTuple):
    """``problem(out, *arguments)`` attacks a run in ``out``; what did not hold, or nothing."""

    kind: str
    problem: Callable[..., str]
    arguments: tuple = ()


def command(out: Path, study: Path = STUDY, jobs: int = 1) -> list[str]:
    """The arguments of ``astray`` that make the small run."""
    return ["run", str(study), "--jobs", str(jobs), "--out", str(out)]


def start(arguments: list[str], **variables: str) -> subprocess.Popen[str]:
    """The real command, in a process group of its own."""
    words = [sys.executable, "-m", "astray.experiments", *arguments]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    return subprocess.Popen(words, start_new_session=True, env=os.environ | variables, **told)


def forked(arguments: list[str], *strace: str) -> tuple[int, str]:
    """Status and output of a command in a fork of this process, with strace attached if it has options."""
    with tempfile.TemporaryFile() as output:
        hears, says = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.read(hears, 1)
            os._exit(_in_fork(arguments, fixed_names=bool(strace)))
        tracer = subprocess.Popen(["strace", "-f", "-qq", *strace, "-p", str(pid)]) if strace else None
        while tracer and "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.005)
        os.write(says, b"!")
        os.close(says)
        os.close(hears)
        deadline, ended, status = time.monotonic() + 600, 0, 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if not ended:
            _, status = os.waitpid(pid, 0)
        if tracer:
            tracer.wait()
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")


def _in_fork(arguments: list[str], fixed_names: bool) -> int:
    from tensorboard.summary.writer import event_file_writer as events

    from astray.experiments.__main__ import main

    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork
    if fixed_names:  # strace is told paths beforehand; event files are named after time and process
        events.time = SimpleNamespace(time=lambda: 0)
        events.os = SimpleNamespace(path=os.path, getpid=lambda: 0)
        # strace stops at each of the 120,000 reads of a page's fonts, unless they are in memory.
        plain = io.open
        io.open = lambda path, *way, **more: (
            io.BytesIO(plain(path, "rb").read()) if str(path).endswith(".ttf") else plain(path, *way, **more)
        )
    sys.argv, status = ["astray", *arguments], 0
    try:
        main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status


# --- What must hold ---


def last_line(said: str) -> str:
    """Of what a command said."""
    return (said.strip().splitlines() or ["(nothing said)"])[-1][:300]


def temporary(out: Path) -> list[Path]:
    """What is there under a temporary name."""
    return [path for path in out.rglob("*") if ".tmp" in str(path.relative_to(out))]


def half_written(out: Path) -> str:
    """A file under its final name that cannot be read."""
    import pandas as pd
    from safetensors.numpy import load_file

    readers = {".json": lambda path: json.loads(path.read_bytes()), ".parquet": pd.read_parquet}
    readers[".safetensors"] = load_file
    for path in sorted({path for path in out.rglob("*") if path.suffix in readers} - {*temporary(out)}):
        try:
            readers[path.suffix](path)
        except Exception as error:
            return f"{path.relative_to(out)} is half-written: {error!r}"
    return ""


def unlike_undisturbed(out: Path) -> str:
    """What is wrong with a run that has ended well."""
    import pandas as pd

    ours, theirs = out / "rows.parquet", WHOLE / "rows.parquet"
    if ours.read_bytes() != theirs.read_bytes():  # the files differ: do the rows?
        try:
            pd.testing.assert_frame_equal(pd.read_parquet(ours), pd.read_parquet(theirs), check_exact=True)
        except AssertionError as error:
            return f"rows differ: {' '.join(str(error).split())}"
    if left := temporary(out):
        return f"{left[0].relative_to(out)} is left behind"
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, capture_output=True, text=True)
    return f"SHA256SUMS: {last_line(sums.stdout)}" if sums.returncode else ""


def goes_on(out: Path) -> str:
    """Runs the same command again; what is wrong then."""
    status, said = forked(command(out))
    return unlike_undisturbed(out) if status == 0 else f"the rerun ended with status {status}: {last_line(said)}"


def not_one_sentence(said: str) -> str:
    """What a command said beside its progress and one line for people."""
    lines = [line for line in said.splitlines() if not re.search(r" (done|failed) in |were finished before", line)]
    fine = len(lines) == 1 and lines[0].startswith("astray: ")
    return "" if fine else f"{len(lines)} lines beside progress, the last: {last_line(said)}"


# --- Kills ---


def undisturbed(out: Path) -> tuple[float, float]:
    """Makes a run with the real command; seconds until its folder is there, and until it ends."""
    since = time.monotonic()
    process = start(command(out))
    while not out.exists() and process.poll() is None:
        time.sleep(0.005)
    folder = time.monotonic() - since
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return folder, time.monotonic() - since


def kills(count: int) -> Iterator[Attack]:
    """The real command at random moments."""
    # As many at once as attacks will be, for times that are like theirs.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        times = list(pool.map(undisturbed, [HERE / f"timed{i}" for i in range(os.cpu_count() or 1)]))
    folder, end = times[0]
    print(f"kills: undisturbed {end:.1f} s, of which {folder:.1f} s before the folder is there", file=sys.stderr)
    ten = [how for how, (share, _) in KILLS.items() for _ in range(share)]
    for number in range(count):
        how = ten[number % 10]
        yield Attack(f"kills: {how}", killed, (how, random.Random(number), folder, end))


def killed(out: Path, how: str, rng: random.Random, folder: float, end: float) -> str:
    """Kills a run some time after its start, or after its folder is there, and runs it again."""
    while True:
        process = start(command(out))
        anywhere = rng.random() < 0.2
        while not anywhere and not out.exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.random() * (end if anywhere else end - folder))
        if process.poll() is None:
            break
        process.communicate()  # it was faster this time
        shutil.rmtree(out, ignore_errors=True)
    alone = "main process" in how
    (os.kill if alone else os.killpg)(process.pid, KILLS[how][1])
    # If alone: its cell, which holds the pipe, may go on for a while.
    said = process.communicate()[0] if not alone else str(process.wait())
    if "report: " in said:
        return unlike_undisturbed(out) or NOT_REACHED  # it was on its way out
    if how == "Ctrl-C" and (process.returncode != 130 or not_one_sentence(said)):
        return f"status {process.returncode}, {not_one_sentence(said)}"
    if not alone and (problem := half_written(out)):
        return problem
    before = set(out.glob("tensorboard/*/*/events.*"))
    done = {cell: max(steps(cell, before), default=0) for cell in out.glob("tensorboard/*")}
    again = start(command(out))
    said = again.communicate()[0]
    if again.returncode:
        return f"the rerun ended with status {again.returncode}: {last_line(said)}"
    for cell, reached in done.items():
        first = min(steps(cell, set(out.glob("tensorboard/*/*/events.*")) - before), default=reached + ROLLOUT)
        if not alone and (repeated := reached - (first - ROLLOUT)) > INTERVAL:
            return f"{cell.name} repeated {repeated} steps"
    return unlike_undisturbed(out)


def steps(cell: Path, files: set[Path]) -> list[int]:
    """The steps at which a cell wrote to TensorBoard, one at the end of each rollout."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    own = [path for path in files if cell in path.parents]
    return [event.step for path in own for event in EventFileLoader(str(path)).Load() if event.HasField("summary")]


# --- Faults in calls ---


class Point(NamedTuple):
    """The ``number``-th call of ``call`` on ``path``, which is relative to the run folder."""

    call: str
    path: str
    number: int


@cache
def points() -> list[Point]:
    """Every call of an undisturbed run that changes its folder, in order."""
    out, log = HERE / "recorded", HERE / "strace.log"
    trace = f"trace={','.join(NEEDS_SPACE + REMOVES)}"
    status, said = forked(command(out), "-y", "-o", str(log), "-e", trace)
    assert status == 0, said
    found, counter = [], Counter()
    for line in log.read_text(errors="replace").splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)", line)
        if not call:
            continue
        name, arguments = call.groups()
        # The path by which strace's option -P knows it: of the descriptor, or the first that is given in full.
        path = re.match(r"\d+<([^>]+)>", arguments) or re.search(r'"(/[^"]*)"', arguments)
        if not path or not path[1].startswith(f"{out}/"):
            continue
        counter[name, path[1]] += 1
        if name != "openat" or "O_CREAT" in arguments:
            found.append(Point(name, str(Path(path[1]).relative_to(out)), counter[name, path[1]]))
    return found


def sampled(part: str, every: list[Point], count: int) -> list[Point]:
    """At most so many points, evenly spread."""
    print(f"{part}: {len(every)} points: {dict(Counter(point.call for point in every))}", file=sys.stderr)
    return every if len(every) <= count else [every[i * len(every) // count] for i in range(count)]


def injected(out: Path, point: Point, fault: str) -> tuple[int, str] | None:
    """A run with a fault at a point, if it comes there. strace counts in each process, but only calls on the path."""
    log = out.with_name("strace.log")
    inject = ("-e", f"trace={point.call}", "-e", f"inject={point.call}:{fault}")
    ended = forked(command(out), "-o", str(log), "-P", str(out / point.path), *inject)
    return ended if re.search(r"\(INJECTED\)|killed by SIGKILL", log.read_text(errors="replace")) else None


def syscalls(count: int) -> Iterator[Attack]:
    """A kill at every call."""
    for point in sampled("syscalls", points(), count):
        yield Attack(f"syscalls: SIGKILL at {point.call}", killed_at, (point,))


def killed_at(out: Path, point: Point) -> str:
    """Kills the process that comes to a point."""
    if not injected(out, point, f"signal=KILL:when={point.number}"):
        return NOT_REACHED
    problem = half_written(out) or goes_on(out)
    return problem and f"{point}: {problem}"


def full(count: int) -> Iterator[Attack]:
    """No space at the k-th call, or on a small disk."""
    for point in sampled("full", [point for point in points() if point.call in NEEDS_SPACE], count):
        yield Attack(f"full: ENOSPC at {point.call}", no_space, (point,))
    if DISK.is_mount():
        yield Attack("full: disks of 0, 1/8 ... 2 MiB", small_disks)
    else:
        print("full: no small disk, since only root may mount one", file=sys.stderr)


def no_space(out: Path, point: Point) -> str:
    """A disk that takes no more of a file from a point on."""
    further = "" if point.call == "openat" else "+"  # files are opened to be read, too, which needs no space
    ended = injected(out, point, f"error=ENOSPC:when={point.number}{further}")
    if not ended:
        return NOT_REACHED
    # Status 0: a folder could not be made, but was there.
    problem = unlike_undisturbed(out) if ended[0] == 0 else after_full_disk(out, *ended)
    return problem and f"{point}: {problem}"


def small_disks(_: Path) -> str:
    """A file system with little space, and then with enough."""
    filler, out = DISK / "filler", DISK / "run"
    for eighths in range(17):
        filler.write_bytes(bytes(DISK_BYTES - eighths * 2**17))
        status, said = forked(command(out))
        filler.unlink()
        if problem := unlike_undisturbed(out) if status == 0 else after_full_disk(out, status, said):
            return f"{eighths}/8 MiB: {problem}"
        shutil.rmtree(out)
    return ""


def after_full_disk(out: Path, status: int, said: str) -> str:
    """What is wrong with a run that found no space."""
    if status != 1 or not_one_sentence(said) or "No space left on device" not in said:
        return f"status {status}; {not_one_sentence(said) or last_line(said)}"
    left = temporary(out)
    return f"{left[0].relative_to(out)} is left behind" if left else half_written(out) or goes_on(out)


# --- Damage ---


def flips(count: int) -> Iterator[Attack]:
    """Damage to one file at a time."""
    rng = random.Random(0)
    started = HERE / "unfinished"
    process = start(command(started))
    while process.poll() is None and not [*started.glob(f"checkpoints/*/*{INTERVAL}")]:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    newest = max(started.glob("checkpoints/*/*"))
    for run, part, number, verbs in (
        (WHOLE, WHOLE, count, ("run", "report", "compare")),
        (started, newest, max(6, count // 6), ("run",)),
    ):
        files = [path.relative_to(run) for path in sorted(part.rglob("*")) if path.is_file() and path.stat().st_size]
        where = "a finished run" if part == run else "the newest checkpoint of an unfinished run"
        for name in [None, *(files * (number // len(files) + 1))[:number]]:
            how = "a cut" if rng.random() < 0.5 else "a flipped bit"
            for verb in verbs:
                kind = f"flips: {how if name else 'nothing'} in {where}, {verb}"
                yield Attack(kind, noticed, (run, name, how, rng.random(), verb))


def noticed(out: Path, run: Path, name: Path | None, how: str, place: float, verb: str) -> str:
    """Damages a file of a copy; whether the next command names it, and what becomes of the run."""
    shutil.copytree(run, out)
    if name:
        content = bytearray((out / name).read_bytes())
        if how == "a cut":
            del content[int(place * len(content)) :]
        else:
            bit = int(place * len(content) * 8)
            content[bit // 8] ^= 1 << bit % 8
        (out / name).write_bytes(content)
    arguments = {"run": command(out), "report": ["report", str(out)], "compare": ["compare", str(out), str(WHOLE)]}
    status, said = forked(arguments[verb])
    told = re.search(r"damaged|broken|gone|passed over|not there", said)
    if not name:
        return f"status {status}: {last_line(said)}" if status or told else ""
    # A changed path or sum in SHA256SUMS speaks of another file; a checkpoint is named by its folder.
    named = name.name == "SHA256SUMS" or name.name in said or (run != WHOLE and name.parent.name in said)
    if not told or not named or "Traceback" in said:
        return f"{name}, {how} at {place:.4f}: {verb} ends with status {status} and {last_line(said)!r}"
    if verb != "run" or (status and name.name == "SHA256SUMS"):  # which cannot be made again
        return ""
    if status == 0:
        return unlike_undisturbed(out)
    (out / name).unlink()  # as the sentence says
    problem = goes_on(out)
    return problem and f"{name}, {how}, removed: {problem}"


# --- Environments ---


def environments(count: int) -> Iterator[Attack]:
    """Things that no result may depend on; at most so many of them."""
    zone, seed = {"TZ": "Pacific/Kiritimati"}, {"PYTHONHASHSEED": "12345"}
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    odd = HERE / "Käse und Mäuse"
    for kind, variables, folder, jobs in [
        ("all of these", zone | ascii_only | seed, odd, 2),
        ("TZ=Pacific/Kiritimati", zone, HERE, 1),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0", ascii_only, HERE, 1),
        ("PYTHONHASHSEED=12345", seed, HERE, 1),
        ("blanks and umlauts in paths", {}, odd, 1),
        ("--jobs 2", {}, HERE, 2),
    ][:count]:
        yield Attack(f"environments: {kind}", elsewhere, (variables, folder, jobs))


def elsewhere(out: Path, variables: dict[str, str], folder: Path, jobs: int) -> str:
    """Runs the study in another environment."""
    out = out.parent / folder.name / "run"
    study = out.parent / "Übung 1.py"
    out.parent.mkdir()
    study.write_text(STUDY_TEXT)
    process = start(command(out, study if folder != HERE else STUDY, jobs), **variables)
    said = process.communicate()[0]
    return f"status {process.returncode}: {last_line(said)}" if process.returncode else unlike_undisturbed(out)


# --- All of it ---

PARTS: dict[str, tuple[Callable[[int], Iterator[Attack]], int]] = {
    "kills": (kills, 50),
    "syscalls": (syscalls, 600),
    "full": (full, 200),
    "flips": (flips, 300),
    "environments": (environments, 6),
}


def attack(problem: Callable[..., str], arguments: tuple) -> str:
    """Does it in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        try:
            return problem(Path(folder) / "run", *arguments)
        except Exception:
            return f"the attack itself failed: {traceback.format_exc()}"


def from_outside() -> int:
    """Starts this script again on a folder of its own; if by root, then without root's rights and with a small disk."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        variables = {"env": os.environ | {"TMPDIR": folder, "HOME": folder, "OMP_NUM_THREADS": "1"}}
        again = [sys.executable, __file__, *sys.argv[1:]]
        if os.geteuid():
            return subprocess.run(again, **variables).returncode
        os.chown(folder, NOBODY, NOBODY)
        rights = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        can_start = "import astray.envs, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
        if subprocess.run([sys.executable, "-c", can_start], **rights, **variables).returncode:
            print(f"faults: the user {NOBODY} cannot read {sys.executable} or the package", file=sys.stderr)
            return 2
        disk = Path(folder) / DISK.name
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},uid={NOBODY}", "tmpfs", str(disk)]
        mounted = subprocess.run(mount).returncode == 0
        try:
            return subprocess.run(again, **rights, **variables).returncode
        finally:
            if mounted:
                subprocess.run(["umount", str(disk)])


def main() -> int:
    """Prints the table; 1 if anything did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--count", type=int, help="attacks of each part (default: as many as it takes)")
    parser.add_argument("--language-model", metavar="FOLDER", help="what the small run trains, instead of an MLP")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"PART {unknown[0]!r} must be one of {', '.join(PARTS)}")
    if not HERE.name.startswith(PREFIX):
        return from_outside()

    import astray.experiments.cell
    import astray.experiments.run  # noqa: F401 (what forks need)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore Ctrl-C
    STUDY.write_text(f"MODEL = {options.language_model!r}\n{STUDY_TEXT}")
    undisturbed(WHOLE)
    tried, held, missed = Counter(), Counter(), Counter()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
        for part in options.parts or PARTS:
            make, count = PARTS[part]
            since = time.monotonic()
            waiting = {pool.submit(attack, *each[1:]): each.kind for each in make(options.count or count)}
            for number, done in enumerate(as_completed(waiting), start=1):
                if not number % max(1, len(waiting) // 10):
                    told = f"{part}: {number} of {len(waiting)} after {time.monotonic() - since:.0f} s"
                    print(told, file=sys.stderr, flush=True)
                kind, problem = waiting[done], done.result()
                tried[kind] += 1
                held[kind] += not problem
                missed[kind] += problem == NOT_REACHED
                if problem and problem != NOT_REACHED:
                    print(f"{kind}: {problem}", file=sys.stderr, flush=True)
            print(f"{part}: {time.monotonic() - since:.0f} s", file=sys.stderr, flush=True)
    print("| attack | tried | not reached | held |\n|---|--:|--:|--:|")
    for kind, number in sorted(tried.items()):
        print(f"| {kind} | {number} | {missed[kind]} | {held[kind]} |")
    return int((held + missed) != tried)


if __name__ == "__main__":
    sys.exit(main())
