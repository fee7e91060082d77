"""What the benchmarks share: the machine they ran on, child processes, medians."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

KERAS_FLOWERS = str(Path(sys.executable).with_name("keras-flowers"))
FAST = {"TF_CPU_ALLOCATOR_USE_BFC": "true"}
_PACKAGES = ("keras", "tensorflow", "numpy", "pillow")


def machine() -> str:
    """Returns one line on processor, cores, memory and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; "
        f"Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def child(*arguments: str, **environment: str) -> dict:
    """Runs a Python program and returns the JSON of the last line it prints.

    A separate process, because the allocator is chosen before TensorFlow starts
    and peak memory never falls.
    """
    result = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"} | environment,
    )
    return json.loads(result.stdout.strip().splitlines()[-1])


def timed(*command: str, **environment: str) -> tuple[float, str]:
    """Runs a command; returns the seconds from its start to its end, and its output."""
    begin = time.perf_counter()
    ended = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    elapsed = time.perf_counter() - begin
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stderr}")
    return elapsed, ended.stdout


def read_files(folder: str) -> float:
    """Reads every file, which puts it in the page cache; returns the seconds."""
    begin = time.perf_counter()
    for path in Path(folder).rglob("*"):
        if path.is_file():
            path.read_bytes()
    return time.perf_counter() - begin


def seconds(function: Callable[[], object], repeats: int = 15) -> float:
    """Returns the median time of a call, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def images_argument() -> str:
    """Returns the image folder from the command line or the test environment."""
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    folder = folder or os.environ.get("KERAS_FLOWERS_TEST_DATA")
    if not folder:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS")
    return folder
