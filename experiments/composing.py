"""The configurations of a multirun's jobs, without composing each from its files.

Hydra composes a job in about a tenth of a second, and does it twice: a sweeper looks whether it can
be done before the launcher does it. Of jobs whose overrides name the same settings, and choose the
same of every group, the first is composed; the others are copies of it with their own values,
which is what Hydra does with values in the end.
"""

import functools
import pickle
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict


class SweepLoader:
    """A loader of Hydra's that is quick about the jobs of a multirun; for all else as it is.

    Args:
        loader: Hydra's.
    """

    def __init__(self, loader: Any):
        self._loader = loader
        self._templates: dict[Any, bytes] = {}  # restored in a sixth of the time of a deepcopy
        self._kept: dict[tuple[str, ...], DictConfig] = {}
        self._is_group = functools.cache(lambda name: bool(loader.get_group_options(name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> Any:
        """As Hydra's; called again with the same overrides, it hands over what it returned before.

        What it returned is kept for one more call, because a launcher changes what it is given.
        """
        words = tuple(sweep_overrides)
        if words in self._kept:
            return self._kept.pop(words)
        self._kept[words] = self._composed(master_config, list(sweep_overrides))
        return self._kept[words]

    def _composed(self, master: DictConfig, words: list[str]) -> Any:
        overrides = OverridesParser.create().parse_overrides(words)
        kind = tuple(
            each.key_or_group if self._is_value(each) else each.input_line for each in overrides
        )
        is_said_twice = len({each.key_or_group for each in overrides}) < len(overrides)
        if kind not in self._templates or is_said_twice:
            composed = self._loader.load_sweep_config(master, words)
            self._templates[kind] = pickle.dumps(composed)
            return composed
        found = pickle.loads(self._templates[kind])
        for each in overrides:
            if self._is_value(each):
                OmegaConf.update(found, each.key_or_group, each.value(), merge=True)
        told = found.hydra.job.config.override_dirname
        lines = sorted(
            str(each.input_line)
            for each in overrides
            if not each.is_hydra_override() and each.key_or_group not in told.exclude_keys
        )
        with open_dict(found):
            found.hydra.overrides.task = [
                str(each.input_line) for each in overrides if not each.is_hydra_override()
            ]
            found.hydra.job.override_dirname = told.item_sep.join(lines).replace("=", told.kv_sep)
        return found

    def _is_value(self, override: Override) -> bool:
        """Whether an override sets a plain value, and nothing that is composed depends on it."""
        name = override.key_or_group
        return (
            override.type is OverrideType.CHANGE
            and override.package is None
            and not name.startswith("hydra")
            and not self._is_group(name)
            and isinstance(override.value(), bool | int | float | str | list | None)
        )
