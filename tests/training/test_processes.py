"""Several devices and several processes train as one device does."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import draw_images, tiny_network

from keras_flowers import InputError, train
from keras_flowers.training import processes
from keras_flowers.training.processes import (
    ADDRESSES,
    COUNT,
    NUMBER,
    ProcessLostError,
    ProcessSettings,
    Team,
    join_processes,
)

SCRIPT = Path(__file__).parents[1] / "parallel_run.py"
EPOCHS = 3
METRICS = ("loss", "val_loss", "accuracy", "val_accuracy")
# Sums over other shares are rounded in another order.
TOLERANCE = 1e-4


_STARTED = []


def start(folder, *options, number=0, count=1, port=0, devices=1):
    """Starts one process of a training on JAX."""
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling takes longer than training
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    if count > 1:
        environment |= {
            ADDRESSES: f"127.0.0.1:{port}",
            COUNT: str(count),
            NUMBER: str(number),
        }
    process = subprocess.Popen(
        [sys.executable, SCRIPT, folder, str(EPOCHS), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _STARTED.append(process)
    return process


def start_team(folder, count, *options):
    port = free_port()
    return [
        start(folder, *options, number=number, count=count, port=port)
        for number in range(count)
    ]


def finish(process):
    """Returns what a process has printed last, as JSON."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def assert_same_history(found, expected):
    assert found["epoch"] == expected["epoch"] == list(range(1, EPOCHS + 1))
    for name in METRICS:
        assert found[name] == pytest.approx(expected[name], abs=TOLERANCE), name


@pytest.fixture(autouse=True)
def no_process_stays():
    yield
    for process in _STARTED:
        process.kill()
        process.communicate()
    _STARTED.clear()


def check_equal_losses_and_resume(folder):
    """Trains on one device, on two, and on two processes that become four."""
    tiny_network(pooled=True).save(folder / "network.keras")
    alone = start(folder, "--devices", "1", "2", "--features", devices=2)
    # The run stops after its first epoch, until one of its processes is killed.
    first, second = start_team(folder, 2, "--features", "--run", "--wait-after", "1")
    of_features = [read_features(process) for process in (first, second, alone)]
    assert "epoch 1\n" in iter(first.stdout.readline, "")
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, errors = first.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert "Process 1 of 2 is gone." in errors
    assert first.returncode not in (0, -signal.SIGKILL)
    second.communicate()
    run = folder / "run"
    assert sorted(p.name for p in run.iterdir() if p.name.startswith(".")) == []
    begun = json.loads((run / "history.json").read_text())
    assert begun["epoch"] == [1]
    resumed = start_team(folder, 4, "--run")
    check_features(*of_features)
    one, two = finish(alone)
    four, *others = [finish(process) for process in resumed]
    assert_same_history(two["history"], one["history"])
    assert_same_history(four["history"], one["history"])
    for name in METRICS:  # of two processes
        expected = one["history"][name][:1]
        assert begun[name] == pytest.approx(expected, abs=TOLERANCE), name
    assert four["steps"] == two["steps"] == one["steps"]
    # Of all validation images, not of a share.
    assert sum(map(sum, one["confusions"])) == 10
    assert four["confusions"] == two["confusions"] == one["confusions"]
    assert four["directory"] == str(run)
    assert {other["directory"] for other in others} == {None}
    assert all(other["weights"] == four["weights"] for other in others)
    assert (run / "report.html").exists()
    assert not (run / "checkpoint").exists()


def read_features(process):
    """Returns what came of a training on features, after lines of Gloo."""
    lines = iter(process.stdout.readline, "")
    return json.loads(next(line for line in lines if line.startswith("{")))


def check_features(first, second, alone):
    """Each of two processes has computed a share and got the other one."""
    assert alone["computed"] == alone["images"]
    for one in (first, second):
        assert 0 < one["computed"] < one["images"] == alone["images"]
        assert one["features"] == alone["features"]
        for name in METRICS:
            assert one["history"][name] == pytest.approx(
                alone["history"][name], abs=TOLERANCE
            )
    assert first["computed"] + second["computed"] == alone["images"]


@pytest.mark.timeout(900)
def test_devices_and_processes_give_the_losses_of_one_device(tmp_path):
    # 41 images for training: neither batches of 8 nor four devices divide them.
    draw_images(tmp_path / "photos", {"daisy": 20, "roses": 17, "tulips": 14})
    check_equal_losses_and_resume(tmp_path)


@pytest.mark.real_photos
@pytest.mark.skipif(
    "KERAS_FLOWERS_TEST_DATA" not in os.environ,
    reason="KERAS_FLOWERS_TEST_DATA names no folder of photos",
)
@pytest.mark.timeout(900)
def test_the_same_on_real_photos(tmp_path):
    photos = Path(os.environ["KERAS_FLOWERS_TEST_DATA"])
    for folder in photos.iterdir():
        if folder.is_dir():
            files = sorted(folder.glob("*.jpg"))[:10]
            (tmp_path / "photos" / folder.name).mkdir(parents=True)
            for file in files:
                shutil.copy(file, tmp_path / "photos" / folder.name)
    check_equal_losses_and_resume(tmp_path)


# Connections without JAX.


def pair(monkeypatch):
    """Returns the teams of two processes, and what ended the second one."""
    ended = []
    monkeypatch.setattr(processes.os, "_exit", ended.append)
    sockets = socket.socketpair()
    teams = [
        Team(ProcessSettings("localhost", 1, 2, number), {1 - number: sockets[number]})
        for number in range(2)
    ]
    return *teams, ended


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def test_process_0_tells_the_others(monkeypatch):
    first, second, ended = pair(monkeypatch)
    content = os.urandom(3_000_000)
    sender = in_thread(first.share, content)
    assert second.share() == content
    sender.join()
    other = in_thread(second.require_same, "options", "a")
    first.require_same("options", "a")
    other.join()

    def refuse():
        with pytest.raises(InputError, match="same options.*process 0 in: 1"):
            second.require_same("options", "b")

    other = in_thread(refuse)
    with pytest.raises(InputError, match="same options.*process 0 in: 1"):
        first.require_same("options", "a")
    other.join()
    second.leave()
    first.leave()
    assert not ended


def test_an_error_ends_the_others_with_a_sentence(monkeypatch, capsys):
    first, second, ended = pair(monkeypatch)
    with pytest.raises(InputError, match="no images"), first:
        raise InputError("There are no images.")
    with pytest.raises(ProcessLostError, match="Process 0 of 2 failed: There are no"):
        second.share()
    wait_for(lambda: ended == [1])
    assert (
        "error: Process 0 of 2 failed: There are no images." in capsys.readouterr().err
    )


def test_process_0_raises_when_another_is_gone(monkeypatch):
    first, second, ended = pair(monkeypatch)
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 60)
    with pytest.raises(ProcessLostError, match="Process 1 of 2 is gone"), first:
        second._connections[0].shutdown(socket.SHUT_RDWR)
        raise RuntimeError("Gloo: connection closed by peer")
    # The second one has lost process 0. Its thread must not outlive the test: it would
    # end the process that runs the tests.
    wait_for(lambda: ended == [1])


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NUMBER: ""}, f"set together. Missing: {NUMBER}"),
        ({ADDRESSES: "alpha"}, "must be HOST:PORT"),
        ({COUNT: "two"}, "must be integers. Received: alpha:1, two, 1"),
        ({NUMBER: "2"}, "must be from 0 to 1"),
    ],
)
def test_unusable_variables_are_named(changes, message):
    variables = {ADDRESSES: "alpha:1,beta:1", COUNT: "2", NUMBER: "1"}
    assert ProcessSettings.read(variables) == ProcessSettings("alpha", 1, 2, 1)
    assert ProcessSettings.read({**variables, COUNT: "1", NUMBER: "0"}) is None
    assert ProcessSettings.read({}) is None
    with pytest.raises(InputError, match=message):
        ProcessSettings.read(variables | changes)


def test_tensorflow_refuses_several_processes(tmp_path, monkeypatch):
    for name, value in ((ADDRESSES, "localhost:1"), (COUNT, "2"), (NUMBER, "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(InputError, match="set KERAS_BACKEND=jax"):
        train(tmp_path)


def test_who_does_not_come_is_named(monkeypatch):
    settings = ProcessSettings("127.0.0.1", free_port(), 3, 0)
    end = time.monotonic() + 0.3
    other = in_thread(
        connect_and_fail, ProcessSettings("127.0.0.1", settings.port, 3, 2)
    )
    with pytest.raises(InputError, match=r"within 0 s .*Missing: 1"):
        processes._wait_for_others(settings, 0.3, end)
    other.join()


def connect_and_fail(settings):
    with pytest.raises(InputError, match="Process 0 did not start"):
        processes._connect(settings, 0.5, time.monotonic() + 0.5)


def test_one_process_needs_no_others(monkeypatch):
    monkeypatch.delenv(COUNT, raising=False)
    assert join_processes() is None
