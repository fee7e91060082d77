"""Memory over 50 trials: of a search in one process, and of one with two workers.

    python benchmarks/search_memory.py [TRIALS]

Draws small images. Memory is what the processes of the search hold for themselves,
taken when a trial has ended.
"""

import sys
import tempfile
from pathlib import Path

from common import FAST, child, machine
from memory import draw


def main(trials: str) -> None:
    """Prints the memory early and late in each search."""
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        draw(Path(scratch, "photos"), 200)
        for workers in ("0", "2"):
            result = child(
                "benchmarks/our_search.py",
                f"{scratch}/photos",
                trials,
                "2",
                workers,
                "16",
                **FAST,
                KERAS_FLOWERS_CACHE=f"{scratch}/cache",
            )
            used = [count / 1e6 for count in result["memory"]]
            part = max(1, len(used) // 5)
            early, late = max(used[:part]), max(used[-part:])
            print(
                f"{workers} workers: at most {early:.0f} MB in the first fifth of the "
                f"trials, {late:.0f} MB in the last, "
                f"{(late - early) / len(used):.2f} MB per trial, "
                f"{result['seconds'] / len(used):.1f} s per trial"
            )


if __name__ == "__main__":
    main((sys.argv[1:] or ["50"])[0])
