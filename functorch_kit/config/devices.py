"""Which devices a run is shared out to."""

from __future__ import annotations

import dataclasses

from functorch_kit.config.settings import setting

_PARTS = {"least": 1, "most": 65_536}


@dataclasses.dataclass
class Mesh:
    """The devices of a run as a grid; by default it is on one."""

    data: int | None = setting(
        None,
        "parts of each batch; -1: as many as there are devices left; null: 1, but -1 in several"
        " processes",
        least=-1,
        most=65_536,
    )
    fsdp: int = setting(
        1, "parts of each batch, of parameters and of the optimizer's state", **_PARTS
    )
    sequence: int = setting(1, "parts of a text's context", **_PARTS)
    tensor: int = setting(1, "parts of the matrices of an MLP or a GPT", **_PARTS)


@dataclasses.dataclass
class Launch:
    """The processes of a run; SLURM's are found without being asked for."""

    processes: int = setting(1, "processes to start on this machine", least=1, most=4096)
    least: int | None = setting(
        None,
        "a supervised run that crashes without progress goes on with half as many processes, down"
        " to this number; null: with all",
        least=1,
        most=4096,
    )
    coordinator: str | None = setting(
        None, "<host>:<port> of process 0, for processes that are started by other means"
    )
    count: int | None = setting(None, "how many of those there are", least=1, most=1_000_000)
    index: int | None = setting(None, "which of them this is", least=0, most=999_999)
    heartbeat: int = setting(
        10, "seconds after which a process that says nothing ends the run", least=1, most=3600
    )
    detect: bool = setting(False, "whether JAX looks for a cluster by itself: TPU, Open MPI …")
