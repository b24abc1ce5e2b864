"""The processes of a run: how they find each other, and how they take the same decisions."""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import Any

import jax
from jax._src import distributed as runtime  # JAX has no public name for its key-value store

from functorch_kit.errors import UserError

VARIABLE = "FUNCTORCH_KIT_PROCESS"
"""Set by whoever starts the processes: ``<index>/<count>@<host>:<port>``."""
HEARTBEAT_SECONDS = 10
"""How long a process may say nothing before the others end. It says something by a thread of its
own, so a long compilation is no silence."""
_FOREVER_MS = 10**9
_KEPT = 512
_numbers = itertools.count()  # of teams: all processes make the same ones in the same order
_PLACE = re.compile(r"(\d+)/(\d+)@(.+:\d+)")


class ProcessError(UserError, RuntimeError):
    """Processes that cannot find each other; the message says what to give.

    Example:
        >>> try:
        ...     connect(coordinator="node1:1234", count=2)
        ... except ProcessError as error:
        ...     print(error)
        several processes need all three: a coordinator, how many there are, and which this is
    """


def connect(
    coordinator: str | None = None,
    count: int | None = None,
    index: int | None = None,
    *,
    detect: bool = False,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> None:
    """Join the other processes of the run, if there are any; before JAX counts its devices.

    What is given is used; else what a starter has set in the environment; else what SLURM says of a
    step of several tasks. On its own, a process has nothing to join.

    Args:
        coordinator: ``<host>:<port>`` of process 0.
        count: number of processes.
        index: of this one, from 0 up.
        detect: whether JAX looks for another kind of cluster (TPU, Open MPI, Kubernetes) by itself.
        heartbeat_seconds: see ``HEARTBEAT_SECONDS``.

    Raises:
        ProcessError: settings that are not enough, or others that do not come.

    Example:
        >>> connect()
        >>> jax.process_count()
        1
    """
    given = (coordinator, count, index)
    if any(each is not None for each in given) and None in given:
        raise ProcessError(
            "several processes need all three: a coordinator, how many there are, and which this is"
        )
    if coordinator is None:
        coordinator, count, index = place_of(os.environ)
    tasks = int(os.environ.get("SLURM_NTASKS", "1")) if "SLURM_PROCID" in os.environ else 1
    if (coordinator is None and tasks < 2 and not detect) or runtime.global_state.client:
        return
    # Handlers of signals are the run's own, and gloo is what CPUs have.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            cluster_detection_method=None if coordinator is None else "deactivate",
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except (RuntimeError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise ProcessError(f"the processes of this run did not come together: {cause}") from error


def process_count() -> int:
    """How many processes there are, without a look at the devices.

    Example:
        >>> process_count()
        1
    """
    return runtime.global_state.num_processes or 1


def place_of(environment: Any) -> tuple[str | None, int | None, int | None]:
    """Coordinator, count and index as a starter has set them; None where none has.

    Raises:
        ProcessError: a variable that cannot be read.

    Example:
        >>> place_of({VARIABLE: "1/4@127.0.0.1:1234"}), place_of({})
        (('127.0.0.1:1234', 4, 1), (None, None, None))
    """
    text = environment.get(VARIABLE)
    if text is None and int(environment.get("SUBMITIT_LOCAL_NTASKS", "1")) > 1:
        # Tasks of submitit's stand-in for SLURM: on one machine, under one number.
        port = 57_344 + int(environment["SUBMITIT_LOCAL_JOB_ID"]) % 4096
        index = int(environment["SUBMITIT_LOCAL_GLOBALID"])
        return f"127.0.0.1:{port}", int(environment["SUBMITIT_LOCAL_NTASKS"]), index
    if text is None:
        return None, None, None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ProcessError(f"{VARIABLE} is {text!r}: write it <index>/<count>@<host>:<port>")
    return found[3], int(found[2]), int(found[1])


class Team:
    """All processes of a run, which must do the same in the same order.

    What differs between them (clocks, signals) is decided by process 0; every process asks for each
    decision, in the same order. It travels by the key-value store of JAX's coordinator, without the
    devices.

    Args:
        index: of this process.
        count: how many there are; one by itself decides as it likes.

    Attributes:
        name: the same in all of them, and of no other run.

    Example:
        >>> team = Team()
        >>> team.is_main, team.said({"steps": 3}), team.asked(None)
        (True, {'steps': 3}, None)
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count
        self._folder = f"functorch_kit/{next(_numbers)}"
        self._said = 0
        self._told = False
        self.name: str = self.said(os.urandom(8).hex())

    @classmethod
    def of_all(cls) -> Team:
        """All processes that JAX knows."""
        return cls(jax.process_index(), jax.process_count())

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes reports."""
        return self.index == 0

    def said(self, value: Any) -> Any:
        """What process 0 gave: a JSON value."""
        if self.count == 1:
            return value
        client, block = _client(), self._said // _KEPT
        key = f"{self._folder}/said/{block}/{self._said}"
        self._said += 1
        if self._said % _KEPT == 0 and block:
            # All have read the block before this one: nobody is a block behind.
            client.wait_at_barrier(f"{self._folder}/read/{block}", _FOREVER_MS)
            if self.is_main:
                client.key_value_delete(f"{self._folder}/said/{block - 1}/")
        if self.is_main:
            client.key_value_set(key, json.dumps(value))
            return value
        return json.loads(client.blocking_key_value_get(key, _FOREVER_MS))

    def asked(self, reason: Any) -> Any:
        """The reason to stop that any process has, the same in all; None while there is none."""
        if self.count == 1:
            return reason
        client, folder = _client(), f"{self._folder}/asked/"
        if not self.is_main:
            if reason is not None and not self._told:
                self._told = True
                client.key_value_set(f"{folder}{self.index}", json.dumps(reason))
        elif reason is None:
            others = client.key_value_dir_get(folder)
            reason = json.loads(others[0][1]) if others else None
        return self.said(reason)


def _client() -> Any:
    return runtime.global_state.client
