"""The processes of a search: KerasTuner's chief, and its workers.

A worker process runs one trial, or a few short ones, and ends; its supervisor starts it
again under the same name. So memory that trials leave behind cannot add up, and a
process that dies interrupts only one trial: KerasTuner gives the trial of a name to
whoever asks under that name.
"""

import contextlib
import dataclasses
import faulthandler
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import keras_tuner
from keras_flowers.tuning.keras_tuner_internals import (
    discard_worker,
    keep_serving,
    workers_of,
)
from keras_flowers.tuning.plan import SearchPlan
from keras_flowers.tuning.search_directory import SearchDirectory
from keras_flowers.tuning.trial_loop import run_trials
from keras_flowers.tuning.trial_runner import TrialRunner
from keras_flowers.tuning.worker_choice import has_small_trials

from keras_flowers.data.inspection import processors
from keras_flowers.errors import InputError
from keras_flowers.files import json_text, write_text_atomically

CHIEF = "chief"
EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_NEXT_TRIAL = 75
EXIT_PARENT_GONE = 77

_NO_PROXY = "no_grpc_proxy"
_HEARTBEAT_SECONDS = 2.0
_LOST_SECONDS = 120.0
_GRACE_SECONDS = 10.0
# On features a trial takes about as long as the start of a process, and little memory.
_TRIALS_ON_FEATURES = 25
# Several processes may use one GPU, so none may take all of its memory at the start.
_SHARED_GPU = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


@dataclasses.dataclass(frozen=True)
class ChiefAddress:
    """Where the chief answers."""

    host: str
    port: int

    def announce(self, name: str) -> None:
        """Tells KerasTuner, in this process, where the chief is and who this is."""
        os.environ["KERASTUNER_ORACLE_IP"] = self.host
        os.environ["KERASTUNER_ORACLE_PORT"] = str(self.port)
        os.environ["KERASTUNER_TUNER_ID"] = name
        # gRPC would connect through the proxy of the environment, also on loopback.
        excluded = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy", "")
        hosts = filter(None, (*excluded.split(","), "localhost", "127.0.0.1", "::1"))
        os.environ[_NO_PROXY] = ",".join(hosts)

    def answers(self) -> bool:
        """Tells whether a process listens there."""
        try:
            socket.create_connection((self.host, self.port), timeout=5).close()
        except OSError:
            return False
        return True


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of the machine a worker has: number `index` of `count`.

    Attributes:
        index: The number of the worker, from 0.
        count: How many workers share the machine.
        gpus: What `CUDA_VISIBLE_DEVICES` calls the GPUs that they share.
    """

    index: int = 0
    count: int = 1
    gpus: tuple[str, ...] = ()

    def apply(self, *, one_thread: bool = False) -> None:
        """Limits the backend of Keras to the part, before it starts.

        Args:
            one_thread: Whether operations are too small to be divided among cores.
        """
        import keras

        os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
        for name, value in _SHARED_GPU.items():
            os.environ.setdefault(name, value)
        if self.gpus and self.count > 1:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[self.index % len(self.gpus)]
        if not one_thread and self.count == 1:
            return
        threads = 1 if one_thread else max(1, processors() // self.count)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Too late where a part of the hypermodel has started TensorFlow.
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(threads)
        elif hasattr(os, "sched_setaffinity"):
            # JAX has no such setting: it has as many threads as it may use cores.
            cores = sorted(os.sched_getaffinity(0))
            first = self.index * threads % len(cores)
            os.sched_setaffinity(0, cores[first : first + threads])


def run_worker(
    plan: SearchPlan, name: str, address: ChiefAddress, share: Share
) -> None:
    """Runs trials of the chief in a separate process; never returns."""
    _start_process(plan.directory, name)
    address.announce(name)
    share.apply(one_thread=has_small_trials(plan.hypermodel))
    left = _TRIALS_ON_FEATURES if plan.hypermodel.trains_on_features else 1

    def count_trial() -> None:
        nonlocal left
        left -= 1
        if not left:
            _end_process(EXIT_NEXT_TRIAL)

    try:
        tuner = plan.tuner()
        runner = TrialRunner(plan, name, on_change=lambda: None)
        # What was imported stays: exclude it from garbage collection.
        gc.freeze()
        run_trials(tuner, runner, after_trial=count_trial)
    except InputError as error:
        write_text_atomically(plan.directory.error(name), str(error))
        _end_process(EXIT_BAD_INPUT)
    _end_process(EXIT_DONE)


def run_chief(plan: SearchPlan, address: ChiefAddress) -> None:
    """Serves the oracle in a separate process until the search is over."""
    _start_process(plan.directory, CHIEF)
    address.announce(CHIEF)
    tuner = plan.tuner()
    tuner.oracle.reload()
    keep_serving(tuner.oracle, CHIEF)
    monitor = ChiefMonitor(tuner.oracle, plan.directory)
    threading.Thread(target=tuner.search, kwargs={"verbose": 0}, daemon=True).start()
    while not monitor.is_over:
        time.sleep(1)
        try:
            monitor.check()
        except Exception:
            traceback.print_exc()
    _end_process(EXIT_DONE)


class ChiefMonitor:
    """Watches the workers of an oracle, which KerasTuner does not.

    KerasTuner's chief waits forever for the trial of a worker that is gone.

    Args:
        oracle: The oracle of the chief.
        directory: Where workers leave their heartbeats.
        clock: Returns seconds.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        directory: SearchDirectory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._oracle = oracle
        self._directory = directory
        self._clock = clock
        # The last heartbeat of each worker, and when it was first seen.
        self._seen: dict[str, tuple[int, float]] = {}
        self._idle_since: float | None = None

    def check(self) -> None:
        """Discards lost workers."""
        workers = workers_of(self._oracle) - {CHIEF}
        for name in workers:
            if self._silence(name) > _LOST_SECONDS:
                discard_worker(self._oracle, name)
        if workers or not self._seen:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = self._clock()

    @property
    def is_over(self) -> bool:
        """Whether all workers were told to stop, and no other one has come since."""
        idle_since = self._idle_since
        return idle_since is not None and self._clock() - idle_since > _GRACE_SECONDS

    def _silence(self, name: str) -> float:
        """Returns the seconds since the last heartbeat was first seen.

        The clocks of other machines may differ, so only a change of the time counts.
        """
        try:
            heartbeat = self._directory.heartbeat(name).stat().st_mtime_ns
        except OSError:
            heartbeat = 0
        now = self._clock()
        if name not in self._seen or self._seen[name][0] != heartbeat:
            self._seen[name] = (heartbeat, now)
        return now - self._seen[name][1]


@contextlib.contextmanager
def redirect_descriptors(path: Path) -> Iterator[None]:
    """Sends what this process and its libraries print to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with path.open("ab") as file:
        try:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield
        finally:
            for descriptor, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)


def _start_process(directory: SearchDirectory, name: str) -> None:
    """Prepares a process: its log, its heartbeat, and its end with its parent."""
    # Ctrl-C in a terminal reaches all processes; the supervisor decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with directory.log(name).open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    faulthandler.enable()
    heartbeat = directory.heartbeat(name)
    sender = {"process": os.getpid(), "host": socket.gethostname()}
    write_text_atomically(heartbeat, json_text(sender))
    for target in (lambda: _send_heartbeats(heartbeat), _end_with_parent):
        threading.Thread(target=target, daemon=True).start()


def _send_heartbeats(path: Path) -> None:
    while True:
        time.sleep(_HEARTBEAT_SECONDS)
        with contextlib.suppress(OSError):
            path.touch()


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _end_process(EXIT_PARENT_GONE)


def _end_process(code: int) -> None:
    """Ends the process at once: only the log must be flushed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
