"""Starts the processes of a search, restarts workers, and notices what dies."""

import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from keras_flowers.tuning.plan import SearchPlan
from keras_flowers.tuning.worker_choice import visible_gpus
from keras_flowers.tuning.workers import (
    CHIEF,
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_NEXT_TRIAL,
    ChiefAddress,
    Share,
    redirect_descriptors,
    run_chief,
    run_worker,
)

from keras_flowers.errors import InputError

_LOGGER = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
# More than the attempts at one trial, which is marked as failed first.
_DEATHS_IN_A_ROW = 4
_CHIEF_POLL_SECONDS = 2.0
_CHIEF_SILENT_SECONDS = 30.0
_CHIEF_STARTS_SECONDS = 600.0
_ADDRESS_VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


class SearchError(RuntimeError):
    """Raised when a process of a search is gone and the search cannot continue.

    Every finished trial is kept: the search can be resumed.
    """


def address_from_environment() -> tuple[ChiefAddress, str] | None:
    """Returns the address of the chief and the name of this process.

    They are in KerasTuner's environment variables; `None` if those are not set.

    Raises:
        InputError: If one of the three is missing, or the port is not a number.
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


def run_on_this_machine(
    plan: SearchPlan, workers: int, show: Callable[[], None]
) -> None:
    """Runs a chief and workers on this machine until the search is over.

    Raises:
        InputError: If a worker cannot use its input.
        SearchError: If the chief dies, or a worker several times in a row.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = ChiefAddress("127.0.0.1", server.getsockname()[1])
    gpus = tuple(visible_gpus())
    with _Supervisor(plan) as supervisor:
        supervisor.start(CHIEF, run_chief, plan, address)
        for index in range(workers):
            name = f"worker{index}"
            share = Share(index, workers, gpus)
            supervisor.start(name, run_worker, plan, name, address, share)
        supervisor.wait(show)


def run_chief_alone(
    plan: SearchPlan, address: ChiefAddress, show: Callable[[], None]
) -> None:
    """Runs a chief for workers on other machines until they are done."""
    with _Supervisor(plan) as supervisor:
        supervisor.start(CHIEF, run_chief, plan, address)
        supervisor.wait(show)


def run_worker_alone(
    plan: SearchPlan, name: str, address: ChiefAddress, show: Callable[[], None]
) -> None:
    """Runs a worker for a chief on another machine until the search is over.

    Raises:
        InputError: If the worker cannot use its input.
        SearchError: If the chief does not answer, or the worker dies several times in
            a row.
    """
    watch = _ChiefWatch(address)

    def check() -> None:
        watch.check()
        show()

    with _Supervisor(plan) as supervisor:
        supervisor.start(name, run_worker, plan, name, address, Share())
        supervisor.wait(check)


class _Supervisor:
    """The processes that one process has started, by name."""

    def __init__(self, plan: SearchPlan) -> None:
        self._directory = plan.directory
        self._context = _context()
        self._starts: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._running: dict[str, BaseProcess] = {}
        self._deaths: dict[str, int] = {}

    def __enter__(self) -> "_Supervisor":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.join()

    def start(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        """Starts a process under a name."""
        self._starts[name] = (target, arguments)
        self._directory.error(name).unlink(missing_ok=True)
        if self._context.get_start_method() == "forkserver":
            # Processes inherit their output from the server that they are forked from.
            with redirect_descriptors(self._directory.log("processes")):
                forkserver.ensure_running()
        process = self._context.Process(
            target=target, args=arguments, name=name, daemon=True
        )
        process.start()
        self._running[name] = process

    def wait(self, show: Callable[[], None]) -> None:
        """Returns when the chief has ended the search, or told all workers here."""
        works_here = set(self._running) != {CHIEF}
        while set(self._running) - ({CHIEF} if works_here else set()):
            for name, code in self._find_ended():
                if code != EXIT_DONE:
                    self._restart(name, code)
                elif name == CHIEF:
                    return
            show()

    def _find_ended(self) -> Iterator[tuple[str, int]]:
        """Yields names and exit codes of processes that have ended."""
        wait([process.sentinel for process in self._running.values()], _POLL_SECONDS)
        for name, process in list(self._running.items()):
            if not process.is_alive():
                process.join()
                del self._running[name]
                yield name, process.exitcode or EXIT_DONE

    def _restart(self, name: str, code: int) -> None:
        """Starts a worker again, unless it or the chief is beyond help."""
        if code == EXIT_BAD_INPUT:
            raise InputError(self._directory.error(name).read_text())
        died = code != EXIT_NEXT_TRIAL
        self._deaths[name] = self._deaths.get(name, 0) + 1 if died else 0
        if name == CHIEF or self._deaths[name] >= _DEATHS_IN_A_ROW:
            how = (
                f"was killed by signal {-code}"
                if code < 0
                else f"ended with code {code}"
            )
            raise SearchError(
                f"The process {name} of the search {how}; {self._directory.log(name)} "
                "may say why. Resume the search: every finished trial is kept."
            )
        target, arguments = self._starts[name]
        self.start(name, target, *arguments)


class _ChiefWatch:
    """Notices that a chief on another machine is gone; KerasTuner waits an hour."""

    def __init__(self, address: ChiefAddress) -> None:
        self._address = address
        self._asked = self._answered = time.monotonic()
        self._patience = _CHIEF_STARTS_SECONDS
        self._has_warned = False

    def check(self) -> None:
        """Asks for the chief.

        Raises:
            SearchError: If it has not answered for too long.
        """
        now = time.monotonic()
        if now - self._asked < _CHIEF_POLL_SECONDS:
            return
        self._asked = now
        where = f"the chief at {self._address.host}:{self._address.port}"
        if self._address.answers():
            self._answered, self._patience = now, _CHIEF_SILENT_SECONDS
            self._has_warned = False
        elif now - self._answered > self._patience:
            raise SearchError(
                f"There is no answer from {where}. Start it again to resume the search."
            )
        elif now - self._answered > _CHIEF_SILENT_SECONDS / 2 and not self._has_warned:
            self._has_warned = True
            _LOGGER.warning("Waiting for %s.", where)


def _context() -> Any:
    """Returns how processes are started: imported once, then forked from there.

    Importing TensorFlow takes many seconds, and a process per trial would spend them
    each time. TensorFlow itself does not run in the process that is forked.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
