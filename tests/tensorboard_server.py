"""The real TensorBoard, started by the command line of the package."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request

_PROGRAM = "from keras_flowers_cli.main import main; main()"


@contextlib.contextmanager
def running_tensorboard(*folders):
    """Starts `keras-flowers tensorboard` on any free port; gives its address.

    At the end it gets Ctrl-C and must end as the command line promises.
    """
    options = ("--host", "127.0.0.1", "--port", "0")
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "tensorboard", *map(str, folders), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield re.search(r"http://\S+", line)[0].rstrip("/")
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.strip() == "interrupted", errors


def runs_of(address, expected, seconds=30):
    """Returns the names of the runs once the server has read all expected ones."""
    end = time.monotonic() + seconds
    while True:
        with urllib.request.urlopen(f"{address}/data/runs") as answer:
            runs = set(json.load(answer))
        if expected <= runs or time.monotonic() > end:
            return runs
        time.sleep(0.2)
