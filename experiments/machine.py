"""What a run is made with: exact versions, the commit, the machine."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

import astray

MAIN_PACKAGES = ("astray", "gymnasium", "numpy", "torch", "stable-baselines3", "transformers", "peft", "pandas")
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def versions() -> dict[str, str]:
    """The exact version of Python and of every installed package, by name."""
    found: dict[str, str] = {}
    for package in distributions():
        if name := package.metadata["Name"]:  # None for what a broken uninstallation has left
            found.setdefault(name, package.version)  # the first on the path is the one that is imported
    return {"python": platform.python_version()} | dict(sorted(found.items(), key=lambda item: item[0].lower()))


def commit() -> str:
    """The commit that Astray is imported from, with ``-dirty`` for uncommitted changes; empty if there is none."""
    folder, name = Path(astray.__file__).parent, Path(astray.__file__).name
    try:
        _git(folder, "ls-files", "--error-unmatch", name)  # or an environment that lies in another project's checkout
        head, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
        return f"{head}-dirty" if changes else head
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        recorded = json.loads(distribution("astray").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return ""
    return recorded.get("vcs_info", {}).get("commit_id", "")  # installed from a repository


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    """System, processor, cores, memory and GPUs, and the Python that runs on them."""
    import torch  # its import takes seconds

    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": min(cores(), quota()),
        "memory_gib": round(memory() / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def cores() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota() -> float:
    """How many processors' time this process may use, by its control groups (version 2); infinite without a limit."""
    limits = [text.split() for text in _limits("cpu.max")]
    return min((int(time) / int(period) for time, period in limits if time != "max"), default=math.inf)


def memory() -> int:
    """Bytes of memory that this process may use; 0 if unknown."""
    try:
        present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    return min([present, *(int(text) for text in _limits("memory.max") if text != "max")])


def _limits(name: str) -> Iterator[str]:
    """What the control groups of this process say, from its own to the outermost one."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for own in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        folder = CONTROL_GROUPS / own
        for group in (folder, *folder.parents):
            if group.is_relative_to(CONTROL_GROUPS) and (group / name).is_file():
                yield (group / name).read_text(encoding="utf-8").strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
