"""From a command line to a checked configuration: what every script here shares.

A script calls ``run(task, schema, config_name)``. Its overrides are checked one by one before Hydra
composes them, and the composed configuration is checked against the schema again; both take well
under a second, because JAX is not imported before ``task`` runs. What a user got wrong ends in one
line on standard error. Exit codes:

    0    done
    1    an exception that nobody foresaw, with its traceback
    2    refused: a setting, a file or a folder that cannot be used
    3    training failed: a NaN or an infinity (``replay.py`` looks into it)
    4    ``verify_resume.py``: a resumed run differs
    130  stopped by SIGINT; a run in training has finished its step and saved it
    143  stopped by SIGTERM; likewise
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from stopping import is_script, stop_at_once

if is_script(__file__):  # and not, say, in the process of a test
    stop_at_once()
for needed in ("functorch_kit", "jax", "hydra"):
    if importlib.util.find_spec(needed) is None:
        remedy = "pip install -e '.[experiments]' in the folder of pyproject.toml"
        print(f"error: {needed} is not installed: {remedy}", file=sys.stderr)
        sys.exit(2)

from command_line import check_overrides, read_arguments  # noqa: E402

from functorch_kit.config import (  # noqa: E402
    GROUPS,
    ConfigError,
    describe,
    from_dict,
    to_dict,
    unknown,
)
from functorch_kit.errors import UserError  # noqa: E402

CONF = Path(__file__).parent / "conf"


class Job(NamedTuple):
    """What a script is told besides its configuration."""

    given: tuple[str, ...]
    """Names that the command line set, groups among them."""
    folder: Path | None
    """In a multirun, the job's own folder."""


def run(
    task: Callable[[Any, Job], None],
    schema: type,
    config_name: str = "config",
    unused: Sequence[str] = (),
) -> NoReturn:
    """Run ``task(config, job)`` for the configuration, or each configuration, asked for.

    Args:
        task: what the script does.
        schema: dataclass of its configuration.
        config_name: the file in conf/ that it is composed from.
        unused: settings of the schema that mean nothing to the script, refused when given.
    """
    try:
        _run(task, schema, config_name, unused)
    except UserError as error:
        _refuse(error)
    except KeyboardInterrupt as error:
        # `fit` says by which signal it was stopped, and where; the shell expects 128 + its number.
        print(str(error) or "stopped", file=sys.stderr)
        sys.exit(128 + getattr(error, "signal", signal.SIGINT))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    sys.exit(0)


def _run(
    task: Callable[[Any, Job], None], schema: type, config_name: str, unused: Sequence[str]
) -> None:
    arguments = read_arguments(sys.argv[1:])
    if arguments.help:
        print(f"{sys.modules['__main__'].__doc__}\n{describe(schema)}", flush=True)
        return
    experiments = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    checked = check_overrides(arguments, schema, experiments, unused)
    options = [word for word in sys.argv[1:] if word not in arguments.overrides]
    sys.argv[1:] = [*options, *checked.overrides]

    # Hydra prints errors its own way, over several lines, unless it is told to raise them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _register(schema)
    started = False

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
    def job(composed: DictConfig) -> None:
        nonlocal started
        try:
            try:
                values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
            except OmegaConfBaseException as error:
                raise ConfigError(_sentence(error, schema)) from error
            config = from_dict(values, schema)
            runtime = HydraConfig.get()
            several = runtime.mode is not None and runtime.mode.name == "MULTIRUN"
            started = True
            task(config, Job(checked.names, Path(runtime.runtime.output_dir) if several else None))
        except UserError as error:
            _refuse(error)  # here, because Hydra would add a line of its own

    try:
        job()
    except Exception as error:
        if started:
            raise
        raise ConfigError(_sentence(error, schema)) from error


def _register(schema: type) -> None:
    """Put the schema's defaults where the defaults list finds them.

    They are plain values: Hydra's own check of types speaks in several lines, and it can be got
    around with ``+``, so `from_dict` checks everything, whatever way it came.
    """
    from hydra.core.config_store import ConfigStore

    store, defaults = ConfigStore.instance(), to_dict(schema())
    store.store(
        name="settings", node={key: value for key, value in defaults.items() if key not in GROUPS}
    )
    for group in (group for group in GROUPS if group in defaults):
        for name, option in GROUPS[group].items():
            chosen = {"name": name} if len(GROUPS[group]) > 1 else {}
            store.store(group=group, name=name, node={**chosen, **to_dict(option())})


def _sentence(error: Exception, schema: type) -> str:
    """One line for an error in composing, of whatever kind."""
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("Could not override '"):
        return str(unknown(text.split("'")[1], schema))
    text = text.split(" full_key:")[0].rstrip(". ")
    return text if len(text) <= 300 else f"{text[:299]}…"


def _refuse(error: UserError) -> NoReturn:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.exit_code)
