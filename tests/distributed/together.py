"""One of several processes: trains a job of proofs.py together with the others.

``python together.py <folder> <steps> <job> <mesh> [resume]``, started by ``distributed.launch`` or
alone; process 0 prints a JSON line. With ``decide`` in place of a folder it only takes decisions.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import jax


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", int(os.environ.get("DEVICES", "1")))

    from functorch_kit import distributed

    distributed.connect(heartbeat_seconds=int(os.environ.get("HEARTBEAT", "10")))

    if sys.argv[1] == "decide":
        team = distributed.Team.of_all()
        own = [team.said(team.index + 7), team.said([team.index]), len(team.name)]
        reason, rounds = None, 0
        while reason is None or rounds < 2000:  # more of them than are kept
            reason, rounds = team.asked(15 if team.index == 1 else None), rounds + 1
        own += [reason, team.said(team.index)]
        if team.index == int(sys.argv[2]):
            Path(sys.argv[3]).write_text(json.dumps(own))
        team.said(None)
        sys.exit(0)

    sys.path.insert(0, str(Path(__file__).parent))
    import proofs

    from functorch_kit.loop import fit

    folder, steps, job, mesh = sys.argv[1:5]
    sizes = dict(each.split("=") for each in mesh.split(","))
    parts: dict[str, Any] = {"data": 1} | {name: int(size) for name, size in sizes.items()}
    grid = distributed.make_mesh(**parts)
    arguments: dict[str, Any] = proofs.job(job) | {
        "steps": int(steps), "mesh": grid, "run_dir": folder, "checkpoint_every": 10,
        "resume": "resume" in sys.argv, "eval_every": 10,
    }  # fmt: skip
    result = fit(**arguments)
    losses = [row["loss"] for row in result.history if row["split"] == "train"]
    if jax.process_index() == 0:
        print(
            json.dumps({"losses": losses, "share": proofs.share(result.state.params)}), flush=True
        )


if __name__ == "__main__":
    main()
