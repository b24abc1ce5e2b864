"""Take the step that failed again, alone, and name the layer where its first NaN or Inf came from.

python experiments/replay.py run=runs/<run>                     the step that failed
python experiments/replay.py run=runs/<run> step=120            any other step, healthy or not
"""

import dataclasses
from pathlib import Path

import frame

from functorch_kit.config import load_run, setting


@dataclasses.dataclass
class Replayed:
    run: str | None = setting(None, "folder of the run", needed="<folder of a run>")
    step: int | None = setting(None, "which step, from 1 up; null: the one that failed", least=1)


def replay(config: Replayed, job: frame.Job) -> None:
    folder = Path(config.run or "")
    load_run(folder)  # what is wrong with it is said before JAX is loaded
    from functorch_kit import certify
    from functorch_kit.run import RunFolder

    found = certify.replay(folder, step=config.step)
    RunFolder(folder, resume=True).write("replay", found.to_dict())
    print(found)
    print(f"replay: {folder / 'replay.json'}")


if __name__ == "__main__":
    frame.run(replay, Replayed, "replay")
