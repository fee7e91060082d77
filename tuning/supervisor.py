"""Starts the processes of a search, starts workers again, and notices what dies."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from keras_flowers.tuning.plan import SearchPlan
from keras_flowers.tuning.workers import (
    CHIEF,
    EXIT_BAD_INPUT,
    EXIT_CHIEF_GONE,
    EXIT_DONE,
    EXIT_NEXT_TRIAL,
    ChiefAddress,
    Share,
    error_file,
    log_file,
    run_chief,
    run_worker,
)

from keras_flowers.errors import InputError

_POLL_SECONDS = 0.5
# More than the attempts at one trial: that one is then marked as failed.
_DEATHS_IN_A_ROW = 4
_ADDRESS_VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


class SearchError(RuntimeError):
    """Raised when a process of a search is gone and the search cannot go on.

    Every finished trial is kept: the search can be resumed.
    """


def address_from_environment() -> tuple[ChiefAddress, str] | None:
    """Returns where KerasTuner's variables say that the chief is, and who we are.

    Raises:
        InputError: If one of the three is missing, or the port is no number.
    """
    names = (*_ADDRESS_VARIABLES, "KERASTUNER_TUNER_ID")
    values = [os.environ.get(name, "") for name in names]
    if not any(values[:2]):
        return None
    for name, value in zip(names, values, strict=True):
        if not value:
            raise InputError(f"{name} must be set where another of {names} is.")
    host, port, name = values
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"KERASTUNER_ORACLE_PORT must be a port. Received: {port!r}")
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InputError(
            "KERASTUNER_TUNER_ID must consist of letters, digits, '-', '_' and '.'. "
            f"Received: {name!r}"
        )
    return ChiefAddress(host, int(port)), name


def run_crew(plan: SearchPlan, workers: int, show: Callable[[], None]) -> None:
    """Runs a chief and workers on this machine until there is nothing left to do.

    Raises:
        InputError: If a worker cannot use its input.
        SearchError: If the chief dies, or a worker again and again.
    """
    address = ChiefAddress("127.0.0.1", _free_port())
    with _Crew(plan) as crew:
        crew.start(CHIEF, run_chief, plan, address, True)
        for index in range(workers):
            name = f"worker{index}"
            crew.start(name, run_worker, plan, name, address, Share(index, workers))
        crew.wait_for_workers(show)


def run_chief_alone(
    plan: SearchPlan, address: ChiefAddress, show: Callable[[], None]
) -> None:
    """Runs a chief for workers elsewhere until they are done."""
    with _Crew(plan) as crew:
        crew.start(CHIEF, run_chief, plan, address, False)
        crew.wait_for_chief(show)


def run_worker_alone(
    plan: SearchPlan, name: str, address: ChiefAddress, show: Callable[[], None]
) -> None:
    """Runs a worker for a chief elsewhere until there is nothing left to do."""
    with _Crew(plan) as crew:
        crew.start(name, run_worker, plan, name, address, Share())
        crew.wait_for_workers(show)


class _Crew:
    """The processes that one process has started, by name."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan
        self._context = _context()
        self._starts: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._running: dict[str, BaseProcess] = {}
        self._deaths: dict[str, int] = {}

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.join()

    def start(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        """Starts a process under a name."""
        self._starts[name] = (target, arguments)
        error_file(self._plan.directory, name).unlink(missing_ok=True)
        _start_server(self._context, log_file(self._plan.directory, "processes"))
        process = self._context.Process(
            target=target, args=arguments, name=name, daemon=True
        )
        process.start()
        self._running[name] = process

    def wait_for_workers(self, show: Callable[[], None]) -> None:
        """Returns when all workers were told that the search is over."""
        while set(self._running) - {CHIEF}:
            for name, code in self._ended():
                if name == CHIEF:
                    raise self._death(CHIEF, code)
                self._worker_ended(name, code)
            show()

    def wait_for_chief(self, show: Callable[[], None]) -> None:
        """Returns when the chief has ended because the search is over."""
        while self._running:
            for name, code in self._ended():
                if code != EXIT_DONE:
                    raise self._death(name, code)
            show()

    def _ended(self) -> Iterator[tuple[str, int]]:
        """Yields names and exit codes of processes that have ended."""
        sentinels = [process.sentinel for process in self._running.values()]
        wait(sentinels, _POLL_SECONDS)
        for name, process in list(self._running.items()):
            if not process.is_alive():
                process.join()
                del self._running[name]
                yield name, process.exitcode or EXIT_DONE

    def _worker_ended(self, name: str, code: int) -> None:
        if code == EXIT_DONE:
            return
        if code == EXIT_BAD_INPUT:
            raise InputError(error_file(self._plan.directory, name).read_text())
        if code == EXIT_CHIEF_GONE:
            raise SearchError("The chief is gone. Start it again to resume the search.")
        died = code != EXIT_NEXT_TRIAL
        self._deaths[name] = self._deaths.get(name, 0) + 1 if died else 0
        if self._deaths[name] >= _DEATHS_IN_A_ROW:
            raise self._death(name, code)
        target, arguments = self._starts[name]
        self.start(name, target, *arguments)

    def _death(self, name: str, code: int) -> SearchError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        log = log_file(self._plan.directory, name)
        return SearchError(
            f"The process {name} of the search {how}; {log} may say why. Resume the "
            "search: every finished trial is kept."
        )


def _context() -> Any:
    """Returns how processes are started: imported once, then forked from there.

    Importing TensorFlow takes many seconds, and a process per trial would pay it for
    each. Nothing of TensorFlow runs in the process that is forked.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_server(context: Any, log: Path) -> None:
    """Starts the process that is forked, with its output in a file.

    TensorFlow writes of its start; processes keep the output of their time of birth.
    """
    if context.get_start_method() != "forkserver":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        forkserver.ensure_running()
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(file)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
