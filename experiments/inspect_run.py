"""Say what the checkpoints of a run hold, whether they are sound, and how two of them differ.

python experiments/inspect_run.py run=runs/<run>                      its newest sound step
python experiments/inspect_run.py run=runs/<run> step=500
python experiments/inspect_run.py run=runs/<run> against=400          two steps of one run
python experiments/inspect_run.py run=runs/<run> against=runs/<other> the newest of two runs
"""

import dataclasses
import json
from pathlib import Path

import frame

from functorch_kit.config import ConfigError, setting


@dataclasses.dataclass
class Inspection:
    run: str | None = setting(None, "folder of the run", needed="<folder of a run>")
    step: int | None = setting(None, "step to show, the newest sound one if null", least=0)
    against: str | None = setting(None, "step, or folder of another run, to compare with")


def inspect(config: Inspection, job: frame.Job) -> None:
    from functorch_kit import checkpoint

    def opened(run: Path, step: int | None) -> checkpoint.Contents:
        store = checkpoint.Store(run / "checkpoints")
        chosen = store.newest() if step is None else step
        if chosen is None:
            raise ConfigError(f"run folder {str(run)!r} has no checkpoint: train it first")
        if chosen not in store.steps():
            raise ConfigError(f"{str(run)!r} has no step {chosen}: give one of {store.steps()}")
        return checkpoint.read(store.folder / str(chosen))

    run = Path(config.run or "")
    found = opened(run, config.step)
    if config.against is None:
        for step, words in checkpoint.status(run / "checkpoints").items():
            print(f"step {step}: {words}")
        for leaf in checkpoint.leaves_of(found):
            shape = f"{leaf.dtype}{list(leaf.shape)}"
            print(f"  {leaf.path:<50} {shape:<22} norm {leaf.norm:<12.6g} max {leaf.largest:.6g}")
        print(f"versions: {json.dumps(found.versions)}\nmeta: {json.dumps(found.meta)}")
        print(f"step {found.step}: {len(found)} leaves")
        return
    if config.against.isdecimal():
        other = opened(run, int(config.against))
    else:
        other = opened(Path(config.against), None)
    rows = checkpoint.compare(found, other)
    for row in rows:
        words = row.note or ("equal" if row.equal else f"{row.largest:.3g} of its scale")
        print(f"  {row.path:<50} {words}")
    differ = sum(not row.equal for row in rows)
    print(f"step {found.step} against {other.step}: {differ} of {len(rows)} leaves differ")


if __name__ == "__main__":
    frame.run(inspect, Inspection, "evaluate")
