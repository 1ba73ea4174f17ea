"""What the finished files of a run folder hold: ``SHA256SUMS``, as ``sha256sum --check`` reads it.

Lines are added as files are finished, and a later line about a file takes the place of an earlier one. A cell's rows
are the last of its files to be added: until they are, none of its files counts, whatever lies on the disk.
"""

import errno
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from astray.experiments.files import sha256, write_text

NAME = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
DERIVED = re.compile(r"(rows\.parquet|episodes\.json|maps\.json|report\.html|figures/.*)")
"""What is made from other files, and can be made again."""
FINAL = re.compile(r"([^/]*|figures/.*|rows/.*\.parquet)")
"""Where a file lies only when it is finished, but for ``SHA256SUMS``."""


def register(folder: Path, paths: Iterable[Path]) -> None:
    """Adds finished files, and the files of finished folders, in this order; all of them or none.

    Raises:
        OSError: the disk takes no more.
    """
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    lines = "".join(f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files if file.is_file())
    path = folder / NAME
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        compact(folder)  # half a line, which would spoil the next
    with path.open("ab", buffering=0) as sums:
        size = sums.tell()
        try:
            if sums.write(lines.encode()) < len(lines.encode()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(sums.fileno())
        except OSError:
            sums.truncate(size)
            raise


def registered(folder: Path) -> dict[str, str]:
    """The SHA-256 of each finished file, by its path in the folder.

    Raises:
        OSError: the file of sums is damaged.
    """
    path = folder / NAME
    sums: dict[str, str] = {}
    if not path.exists():
        return sums
    *lines, rest = path.read_bytes().decode(errors="replace").split("\n")
    if rest:
        print(f"{path} ends within a line (damaged, or an interrupted write): passed over", file=sys.stderr)
    for number, line in enumerate(lines, start=1):
        if found := LINE.fullmatch(line):
            sums[found[2]] = found[1]
        else:
            raise OSError(f"{path} is damaged in line {number}: restore it, or start over in another folder")
    return {name: digest for name, digest in sums.items() if _rows_of(name) in sums}


def _rows_of(name: str) -> str:
    """The file of rows with whose line a file begins to count: that of its cell, or its own."""
    part, _, rest = name.partition("/")
    if not rest or part == "figures":
        return name
    first = rest.partition("/")[0]
    return f"rows/{Path(rest).stem if first == rest else first}.parquet"


def check(folder: Path) -> set[str]:
    """The finished files that are there, all as they were written; what is not so is named.

    Named on standard error are a file that is gone, one that lies there unlisted, and a damaged one that is made from
    others.

    Raises:
        OSError: a damaged file, which cannot be made from others.
    """
    sums = registered(folder)
    if not sums:
        print(f"{folder / NAME} is not there or empty: files are taken as they are", file=sys.stderr)
    gone = sorted(name for name in sums if not (folder / name).exists())
    if gone:
        print(f"{folder}: gone: {_some(gone)}", file=sys.stderr)
    if sums and (unlisted := _unlisted(folder, sums)):
        print(f"{folder}: not in {NAME} (an interrupted run, or damaged lines): {_some(unlisted)}", file=sys.stderr)
    there = {name for name in sums if name not in gone and _rows_of(name) not in gone}
    changed = sorted(name for name in there if sha256(folder / name) != sums[name])
    for name in changed:
        if not DERIVED.fullmatch(name):
            raise OSError(
                f"{folder / name} is damaged (its SHA-256 is not the one in {NAME}): restore it, or remove it and the "
                "same run makes it again"
            )
        print(f"{folder / name} is damaged, or its writing was interrupted: to be made again", file=sys.stderr)
    return there - {*changed}


def _unlisted(folder: Path, sums: dict[str, str]) -> list[str]:
    """Files that lie there as if they were finished: of finished cells, or under a name that only such files have."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    names = [path.relative_to(folder).as_posix() for path in files if ".tmp" not in str(path.relative_to(folder))]
    return [name for name in names if name not in (*sums, NAME) and (_rows_of(name) in sums or FINAL.fullmatch(name))]


def _some(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def compact(folder: Path) -> None:
    """Leaves one line for each file that is there; for a folder that nobody else writes to."""
    sums = registered(folder)
    kept = [name for name in sums if (folder / name).exists() and (folder / _rows_of(name)).exists()]
    write_text(folder / NAME, "".join(f"{sums[name]}  {name}\n" for name in kept))
