"""Which process works on a scan, and whether it still lives. Knows of Linux; elsewhere the deadline alone decides."""

import os
import uuid
from pathlib import Path


def this_process() -> str:
    """Return a name for one store in this process: kernel and namespace, process and its start, a random part."""
    pid = os.getpid()
    return f"{_place()}/{pid}/{_started(pid)}/{uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether a process beside this one has ended. Of other machines' and of an earlier start's nothing is known."""
    place, pid, started, _ = owner.split("/")
    return bool(place) and place == _place() and _started(int(pid)) != started


def _place() -> str:
    """The running kernel and the process namespace: where a process id has one meaning."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """The clock ticks from the machine's start to the process's, which a change of the clock leaves alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
