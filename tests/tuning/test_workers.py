"""Searches over real processes. Each test costs several starts of TensorFlow."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras_tuner
import pytest
from keras_flowers.tuning import SearchError, search
from keras_flowers.tuning.search_directory import SearchDirectory
from tuning_helpers import small_space

from keras_flowers import InputError

WAIT_SECONDS = 120


def small_search(tmp_path, hypermodel=None, **options):
    hypermodel = hypermodel or small_space(tmp_path, layers=1, epochs=(2, 4))
    return search(
        hypermodel,
        tmp_path / "search",
        **{"trials": 3, "objective": "val_loss", "workers": 2} | options,
    )


def process_of(directory, name):
    """Returns the id of a process, from its heartbeat."""
    return json.loads((directory / "workers" / f"{name}.json").read_text())["process"]


class KillWhenRunning:
    """A progress callback that kills the process that runs a trial, once."""

    def __init__(self, directory, *, trial, name=None):
        self.directory = directory
        self.trial = trial
        self.name = name
        self.killed = None

    def __call__(self, trials, planned):
        for record in trials:
            is_it = int(record.id) == self.trial and record.status == "running"
            if is_it and self.killed is None:
                self.killed = record
                process = process_of(self.directory, self.name or record.worker)
                os.kill(process, signal.SIGKILL)


def test_a_killed_worker_costs_no_trial(tmp_path):
    kill = KillWhenRunning(tmp_path / "search", trial=1)
    result = small_search(tmp_path, progress=kill)
    assert kill.killed is not None
    assert [trial.status for trial in result.trials] == ["completed"] * 3
    assert result.trials[1].attempts == 2
    assert result.trials[1].worker == kill.killed.worker
    assert {trial.worker for trial in result.trials} == {"worker0", "worker1"}
    for name in ("chief", *{trial.worker for trial in result.trials}):
        assert SearchDirectory(tmp_path / "search").log(name).exists()
        with pytest.raises(ProcessLookupError):
            os.kill(process_of(tmp_path / "search", name), 0)


def test_a_killed_chief_ends_the_search_which_can_be_resumed(tmp_path):
    kill = KillWhenRunning(tmp_path / "search", trial=2, name="chief")
    with pytest.raises(SearchError, match="chief .* was killed by signal 9"):
        small_search(tmp_path, progress=kill)
    before = json.loads((tmp_path / "search" / "trials.json").read_text())
    done = {item["id"]: item for item in before if item["status"] == "completed"}
    assert done
    result = small_search(tmp_path, resume=True)
    assert [trial.status for trial in result.trials] == ["completed"] * 3
    kept = {t.id: t.to_json() for t in result.trials if t.id in done}
    assert json.loads(json.dumps(kept)) == done


def test_an_error_that_ends_all_reaches_the_caller_from_a_worker(tmp_path):
    with pytest.raises(InputError, match="`objective` must be one of"):
        small_search(
            tmp_path, workers=1, objective=keras_tuner.Objective("val_beauty", "max")
        )


PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from tuning_helpers import small_space

from keras_flowers.tuning import search

if __name__ == "__main__":
    folder = Path({folder!r})
    space = small_space(folder, layers=1, epochs=(1, 2))
    result = search(space, folder / "search", trials=2, objective="val_loss")
    print(len(result.trials), result.best.id)
"""


def test_chief_and_workers_of_different_machines_find_each_other(tmp_path):
    """The same program, started twice with KerasTuner's variables.

    A proxy that does not answer is for other addresses.
    """
    small_space(tmp_path).datasets()
    program = tmp_path / "program.py"
    tests = str(Path(__file__).parents[1])
    program.write_text(PROGRAM.format(tests=tests, folder=str(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(program)],
            env=os.environ | variables | {"KERASTUNER_TUNER_ID": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("worker-a", "chief")  # in any order
    ]
    for process in started:
        output, error = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, error
        assert output.startswith("2 "), output
    content = json.loads((tmp_path / "search" / "trials.json").read_text())
    assert [item["status"] for item in content] == ["completed"] * 2
    assert {item["worker"] for item in content} == {"worker-a"}
    assert (tmp_path / "search" / "model.keras").exists()


def test_processes_end_with_the_one_that_started_them(tmp_path):
    program = tmp_path / "program.py"
    tests = str(Path(__file__).parents[1])
    text = PROGRAM.format(tests=tests, folder=str(tmp_path))
    program.write_text(text.replace("trials=2", "trials=300, workers=1"))
    process = subprocess.Popen([sys.executable, str(program)])
    directory = tmp_path / "search"
    deadline = time.monotonic() + WAIT_SECONDS
    while not list(directory.glob("trials/*/record.json")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.kill()
    process.wait()
    for name in ("chief", "worker0"):
        while _lives(process_of(directory, name)):
            assert time.monotonic() < deadline, name
            time.sleep(0.2)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
