"""Files that are whole or absent: written under a temporary name, flushed to disk, renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

MANIFEST = "manifest.json"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` if the block ends well and vanishes if not."""
    temporary = path.with_name(f".{path.name}.tmp")
    remove(temporary)  # what a killed process left; no two processes write the same file
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Waits until a file, or a folder with its files, is on disk."""
    for each in [*path.iterdir(), path] if path.is_dir() else [path]:
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a whole JSON file."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """What ``write_json`` writes."""
    return json.dumps(value, indent=2) + "\n"


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Writes a whole Parquet file with page checksums."""
    # Made in memory and written by Python: its errors say what they are, and any file name will do.
    content = rows.to_parquet(None, index=False, write_page_checksum=True)
    with whole(path) as temporary:
        temporary.write_bytes(content)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it is missing or damaged; the sentence names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{path} is damaged ({error}): restore or remove it") from None


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a Parquet file, its page checksums verified.

    Raises:
        OSError: it is missing or damaged; the sentence names it.
    """
    try:
        return pd.read_parquet(BytesIO(path.read_bytes()), page_checksum_verification=True)
    except (ValueError, OSError) as error:  # pyarrow's error for a broken file is a ValueError
        raise OSError(f"{path} is damaged or missing ({error}): remove it, and its cell is run again") from None


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Writes a whole folder: ``fill`` puts files into it, and a manifest with their SHA-256 is added."""
    with whole(path) as temporary:
        temporary.mkdir()
        fill(temporary)
        sums = {each.name: sha256(each) for each in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps(sums, indent=2), encoding="utf-8")


def is_complete(path: Path) -> bool:
    """Whether a folder of ``write_folder`` holds exactly what its manifest says."""
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all(sha256(path / name) == expected for name, expected in sums.items())
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal digits."""
    return sha256_of(path.read_bytes())


def sha256_of(content: bytes) -> str:
    """The SHA-256 of a file that holds this, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
