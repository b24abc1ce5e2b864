"""Kill runs of a configuration, resume them, and certify that not a bit is lost.

python experiments/verify_resume.py                             the CNN on digits
python experiments/verify_resume.py experiment=digits_mlp       another configuration from conf/
python experiments/verify_resume.py model=mlp steps=50          more steps before and after the kill

It ends with code 0 where every bit is the same, else with code 4 and the first step and leaf.
"""

import dataclasses
import sys

import frame

from functorch_kit.config import OF_WHOLE_RUNS, Config, setting, to_dict

MOMENTS = ("published", "between")
NOT_CERTIFIED = 4


@dataclasses.dataclass
class Verification(Config):
    steps: int = setting(20, "steps before the kill, and again after it", least=2, most=1_000_000)
    moments: tuple[str, ...] = setting(
        MOMENTS, "when to kill: a checkpoint is published, or between two", choices=MOMENTS
    )


def verify(config: Verification, job: frame.Job) -> None:
    from functorch_kit import certify

    values = to_dict(config)
    own = {name: values.pop(name) for name in ("steps", "moments")}
    folder = job.folder or values.pop("run_dir")
    found = certify.verify_resume(
        "functorch_kit.certify.child:configured",
        arguments={"values": values},
        folder=folder,
        say=None if config.quiet else print,
        **own,
    )
    print(found)
    if not found.certified:
        sys.exit(NOT_CERTIFIED)


if __name__ == "__main__":
    # What is judged by counts here, too; how long and where the pauses fall is set by the script.
    meant = ("train.form", "train.patience", "train.best", "train.best_mode", "train.evaluate")
    meant += ("train.max_rollbacks", *(name for name in OF_WHOLE_RUNS if name[:5] == "mesh."))
    unused = [name for name in OF_WHOLE_RUNS if name not in meant]
    frame.run(verify, Verification, unused=unused)
