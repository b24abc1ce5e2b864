"""Say which job of a sweep is the best: its overrides, on one line.

python experiments/best.py sweep=runs/<sweep>                         all that differs from defaults
python experiments/best.py sweep=runs/<sweep> top=5                   a table of the five best
python experiments/best.py sweep=runs/<sweep> metric=loss             by another metric
python experiments/best.py sweep=runs/<sweep> metric=seconds mode=min
python experiments/train.py $(python experiments/best.py sweep=runs/<sweep>) train.steps=4000
python experiments/best.py sweep=runs/<sweep> | xargs python experiments/train.py

The last form also serves values with spaces and quotes in them.
"""

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import frame

from functorch_kit.config import GROUPS, Config, ConfigError, load_run, setting, to_dict
from functorch_kit.config.errors import listed, shown, suggestion
from functorch_kit.config.together import better
from functorch_kit.errors import UserError
from functorch_kit.report import sweep_jobs
from functorch_kit.report.labels import short
from functorch_kit.report.quantities import metric
from functorch_kit.report.records import read_metrics
from functorch_kit.report.sweep_overrides import are_plain, one_line, override_words, setting_label
from functorch_kit.report.tables import Table

# Where a run is written, and orders of the moment: another run has its own.
OF_THE_RUN = ("run_dir", "resume", "overwrite", "quiet")


@dataclasses.dataclass
class Choice:
    sweep: str | None = setting(None, "folder of a sweep", needed="<folder of a sweep>")
    top: int | None = setting(
        None, "print a table of so many jobs; null: the overrides of the best", least=1
    )
    metric: str | None = setting(None, "what jobs are judged by; null: as the sweep judged them")
    mode: str = setting(
        "auto",
        "which way is better; auto goes by the metric's name",
        choices=("auto", "min", "max"),
    )


def best(choice: Choice, job: frame.Job) -> None:
    folder = Path(choice.sweep or "")
    fields = read(folder)

    def rows(job: sweep_jobs.Job) -> sweep_jobs.Rows:
        return logged(folder, job.number, job.folder)

    mode = direction(choice, folder, fields)
    sweep = sweep_jobs.read_sweep(fields, rows, choice.metric, mode)
    if not sweep.ranked:
        raise nothing_to_choose(folder, sweep)
    if choice.top is not None:
        table(sweep, choice.top).show()
        return
    first = sweep.ranked[0]
    words = override_words(overrides(folder / (first.folder or str(first.number)), first))
    print(one_line(words))
    if not are_plain(words):
        note = "a value needs quotes, which $(…) leaves in it: pipe this into xargs"
        print(f"{note} python experiments/train.py", file=sys.stderr)


def read(folder: Path) -> dict[str, Any]:
    """What ``sweep.json`` says."""
    path = folder / "sweep.json"
    if not folder.is_dir():
        raise ConfigError(
            f"sweep folder {str(folder)!r} does not exist: give the folder of a sweep"
        )
    if not path.is_file():
        raise ConfigError(f"{str(folder)!r} is not the folder of a sweep: it has no sweep.json")
    fields: dict[str, Any] = {}
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        jobs = fields["jobs"]
        whole = all(
            type(each["number"]) is int
            and all(isinstance(each.get(part, {}), dict) for part in ("settings", "summary"))
            for each in jobs
        )
    except (OSError, ValueError, LookupError, TypeError):
        whole = False
    if not whole:
        raise ConfigError(f"{str(path)!r} is damaged: start the sweep again, which writes it anew")
    return fields


def logged(folder: Path, number: int, name: str | None) -> sweep_jobs.Rows:
    """The rows of a job, if there are any."""
    path = folder / (name or str(number)) / "metrics.jsonl"
    return read_metrics(path) if path.is_file() else []


def direction(choice: Choice, folder: Path, fields: dict[str, Any]) -> str | None:
    """Which way is better; None where the sweep has said it."""
    if choice.metric is None:
        return None if choice.mode == "auto" else choice.mode
    known = sweep_jobs.metric_names(fields["jobs"])
    if choice.metric not in known:
        # Then jobs may be judged by it in their training rows, which are alike in all of them.
        every = (logged(folder, each["number"], each.get("folder")) for each in fields["jobs"])
        trained = sweep_jobs.trained_names(next(filter(None, every), []))
        known = list(dict.fromkeys([*known, *trained]))
    if choice.metric not in known:
        hint = suggestion(choice.metric, known) or f": choose {listed(known or ['none'])}"
        raise ConfigError(f"metric is {shown(choice.metric)}, which no job has{hint}")
    if choice.mode == "auto" and choice.metric == fields.get("metric"):
        return None
    try:
        return better(choice.metric, choice.mode)
    except ConfigError:
        raise ConfigError(
            f"metric is {shown(choice.metric)}, whose name does not say which way is better:"
            " give mode=max or mode=min"
        ) from None


def nothing_to_choose(folder: Path, sweep: sweep_jobs.Sweep) -> ConfigError:
    ended = Counter(job.status for job in sweep.jobs)
    said = ", ".join(f"{count} {status}" for status, count in ended.most_common()) or "no jobs"
    goes_on = {"waiting", "interrupted"} & set(ended)
    remedy = "start it again to go on with it" if goes_on else "give it other settings"
    return ConfigError(
        f"no job of sweep {str(folder)!r} has finished with a {sweep.metric.label} ({said}):"
        f" {remedy}"
    )


def overrides(folder: Path, job: sweep_jobs.Job) -> dict[str, Any]:
    """All that a job's settings differ in from the defaults, by dotted name.

    Where its run folder does not say, what differs between the jobs.
    """
    try:
        config = load_run(folder)
    except UserError:
        return dict(job.settings)
    found: dict[str, Any] = {}
    values, defaults = to_dict(config), to_dict(Config())
    for name, value in values.items():
        if name in OF_THE_RUN:
            continue
        if name not in GROUPS:
            found |= {name: value} if value != defaults[name] else {}
            continue
        usual = to_dict(type(getattr(config, name))())
        if value.get("name") != defaults[name].get("name"):
            found[f"{name}.name"] = value["name"]
        found |= {f"{name}.{key}": value[key] for key in usual if value[key] != usual[key]}
    if config.train.schedule_steps == config.train.steps:
        # What null means; and with other steps the schedule shall follow them.
        found.pop("train.schedule_steps", None)
    return found


def table(sweep: sweep_jobs.Sweep, count: int) -> Table:
    header = ("rank", "job", sweep.metric.label, *map(setting_label, sweep.names))
    rows = [
        (
            str(rank),
            str(job.number),
            metric(sweep.metric.name, job.value),
            *(short(job.settings.get(name, sweep_jobs.NO_SETTING)) for name in sweep.names),
        )
        for rank, job in enumerate(sweep.ranked[:count], 1)
    ]
    return Table("", header, rows)


if __name__ == "__main__":
    frame.run(best, Choice, "evaluate")
