"""What runs in the processes of a search: KerasTuner's chief, and its workers.

A worker process runs one trial, or a few short ones, and ends; whoever started it
starts it again under the same name. So nothing that a trial leaves in memory can add
up, and a process that dies takes one trial with it: KerasTuner gives the trial of a
name to whoever asks under that name.
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
from collections.abc import Callable
from pathlib import Path

import keras_tuner
from keras_flowers.tuning.plan import SearchPlan
from keras_flowers.tuning.search_directory import SearchDirectory, back_up_oracle
from keras_flowers.tuning.trial_loop import run_trials
from keras_flowers.tuning.trial_runner import TrialRunner

from keras_flowers.data.inspection import processors
from keras_flowers.errors import InputError
from keras_flowers.files import json_text, write_text_atomically

CHIEF = "chief"
EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_NEXT_TRIAL = 75
EXIT_CHIEF_GONE = 76
EXIT_PARENT_GONE = 77

_BEAT_SECONDS = 2.0
_CHIEF_GONE_SECONDS = 30.0
_CHIEF_STARTS_SECONDS = 600.0
_LOST_SECONDS = 120.0
_GRACE_SECONDS = 10.0
# On features a trial takes about as long as the start of a process, and little memory.
_TRIALS_ON_FEATURES = 25
# Dividing the work of such layers among cores takes longer than doing it.
_WIDTH_FOR_ONE_THREAD = 1024


@dataclasses.dataclass(frozen=True)
class ChiefAddress:
    """Where the chief answers."""

    host: str
    port: int

    def announce(self, name: str) -> None:
        """Tells KerasTuner, in this process, where the chief is and who it is."""
        os.environ["KERASTUNER_ORACLE_IP"] = self.host
        os.environ["KERASTUNER_ORACLE_PORT"] = str(self.port)
        os.environ["KERASTUNER_TUNER_ID"] = name

    def answers(self) -> bool:
        """Tells whether a process listens there."""
        try:
            socket.create_connection((self.host, self.port), timeout=5).close()
        except OSError:
            return False
        return True


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of the machine a worker has: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def take(self, *, one_thread: bool = False) -> None:
        """Limits TensorFlow to the part, before it starts.

        Args:
            one_thread: Whether operations are too small to be divided among cores.
        """
        import keras

        if keras.backend.backend() != "tensorflow":
            return
        os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
        import tensorflow as tf

        if one_thread:
            # Too late where a part of the hypermodel has started TensorFlow.
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(1)
        if self.count == 1:
            return
        if not one_thread:
            threads = max(1, processors() // self.count)
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            gpu = gpus[self.index % len(gpus)]
            tf.config.set_visible_devices([gpu], "GPU")
            # Else the first process takes all the memory of the GPU.
            tf.config.experimental.set_memory_growth(gpu, True)


def run_worker(
    plan: SearchPlan, name: str, address: ChiefAddress, share: Share
) -> None:
    """Runs trials of the chief's, as a process of its own; never returns."""
    _begin(plan.directory, name)
    address.announce(name)
    space = plan.hypermodel
    is_small = space.trains_on_features and space.units.high <= _WIDTH_FOR_ONE_THREAD
    share.take(one_thread=is_small)
    beat = _Beat(plan.directory.workers / f"{name}.json")
    watch = _ChiefWatch(address)
    _repeat(_BEAT_SECONDS, _end_without_parent, beat.beat, watch.check)
    try:
        oracle = plan.tuner().oracle
        runner = TrialRunner(plan.hypermodel, plan.settings, name, beat.beat)
        # What was imported stays: nobody need look for garbage in it.
        gc.freeze()
        count = _TRIALS_ON_FEATURES if plan.hypermodel.trains_on_features else 1
        left = iter(range(count - 1, -1, -1))
        is_over = run_trials(oracle, name, runner, after_trial=lambda: next(left) > 0)
    except InputError as error:
        write_text_atomically(error_file(plan.directory, name), str(error))
        _end(EXIT_BAD_INPUT)
    _end(EXIT_DONE if is_over else EXIT_NEXT_TRIAL)


def run_chief(plan: SearchPlan, address: ChiefAddress, stays: bool) -> None:
    """Answers workers, as a process of its own.

    Args:
        plan: The search.
        address: Where to listen.
        stays: Whether somebody ends the process when the search is over; else it
            ends by itself.
    """
    _begin(plan.directory, CHIEF)
    address.announce(CHIEF)
    tuner = plan.tuner()
    if (plan.directory.trials / "oracle.json").exists():
        tuner.oracle.reload()
    # KerasTuner's loop ends as soon as it knows of no worker. One may still come, or
    # be between two processes, so it never ends by itself here.
    tuner.oracle.tuner_ids.add(CHIEF)
    monitor = ChiefMonitor(tuner.oracle, plan.directory)

    def check() -> None:
        monitor.check()
        if not stays and monitor.is_over:
            _end(EXIT_DONE)

    beat = _Beat(plan.directory.workers / f"{CHIEF}.json")
    _repeat(1.0, _end_without_parent, beat.beat, check)
    tuner.search(verbose=0)


class ChiefMonitor:
    """Looks after an oracle where KerasTuner does not.

    A worker that is gone would leave its trial running for ever, and KerasTuner's
    chief would wait for it.

    Args:
        oracle: The oracle of the chief.
        directory: Where workers leave their signs of life.
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
        self._seen: dict[str, tuple[str, float]] = {}
        self._ended = -1
        self._had_worker = False
        self._idle_since: float | None = None

    def check(self) -> None:
        """Gives up lost workers, and keeps a copy of the oracle's state."""
        for name in self._lost():
            trial = self._oracle.ongoing_trials.get(name)
            if trial is not None:
                # Invalid trials are tried again, once.
                trial.status = "INVALID"
                trial.message = f"its worker {name} is gone"
                self._oracle.end_trial(trial)
            self._oracle.tuner_ids.discard(name)
        if len(self._oracle.end_order) != self._ended:
            self._ended = len(self._oracle.end_order)
            back_up_oracle(self._directory.trials)
        self._note_idleness()

    @property
    def is_over(self) -> bool:
        """Whether all workers were told that there is nothing more to do."""
        idle_since = self._idle_since
        return idle_since is not None and self._clock() - idle_since > _GRACE_SECONDS

    def _note_idleness(self) -> None:
        is_busy = bool(self._workers())
        self._had_worker |= is_busy
        if is_busy or not self._had_worker:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = self._clock()

    def _lost(self) -> list[str]:
        return [n for n in self._workers() if self._silence(n) > _LOST_SECONDS]

    def _workers(self) -> set[str]:
        return {*self._oracle.tuner_ids, *self._oracle.ongoing_trials} - {CHIEF}

    def _silence(self, name: str) -> float:
        """Returns the seconds since the last new sign of life.

        Clocks of other machines say nothing, so the content counts.
        """
        path = self._directory.workers / f"{name}.json"
        try:
            sign = path.read_text()
        except OSError:
            sign = ""
        now = self._clock()
        if name not in self._seen or self._seen[name][0] != sign:
            self._seen[name] = (sign, now)
        return now - self._seen[name][1]


class _Beat:
    """A file whose content changes while its process lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Changes the file."""
        with self._lock:
            self._count += 1
            sign = {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "beats": self._count,
            }
            write_text_atomically(self._path, json_text(sign))


class _ChiefWatch:
    """Ends this process when the chief is gone; KerasTuner would wait an hour."""

    def __init__(self, address: ChiefAddress) -> None:
        self._address = address
        self._last_answer = time.monotonic()
        self._patience = _CHIEF_STARTS_SECONDS

    def check(self) -> None:
        """Asks for the chief."""
        now = time.monotonic()
        if self._address.answers():
            self._last_answer = now
            self._patience = _CHIEF_GONE_SECONDS
        elif now - self._last_answer > self._patience:
            _end(EXIT_CHIEF_GONE)


def error_file(directory: SearchDirectory, name: str) -> Path:
    """Returns where a process says which input it could not use."""
    return directory.workers / f"{name}.error"


def log_file(directory: SearchDirectory, name: str) -> Path:
    """Returns where a process writes what libraries print."""
    return directory.workers / f"{name}.log"


def _begin(directory: SearchDirectory, name: str) -> None:
    # Ctrl-C in a terminal reaches all processes; the one that started this decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(log_file(directory, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    faulthandler.enable()


def _repeat(seconds: float, *actions: Callable[[], None]) -> None:
    """Calls functions again and again in a thread, whatever they raise."""

    def repeat() -> None:
        while True:
            for action in actions:
                try:
                    action()
                except Exception:
                    traceback.print_exc()
            time.sleep(seconds)

    threading.Thread(target=repeat, daemon=True).start()


def _end_without_parent() -> None:
    """Ends this process when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        _end(EXIT_PARENT_GONE)


def _end(code: int) -> None:
    """Ends the process at once: nothing is left to be flushed but the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
