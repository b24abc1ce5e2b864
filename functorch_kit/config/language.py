"""A language model from the folder of its run alone: what it was trained on need not be there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from functorch_kit import models, train
from functorch_kit.config.errors import ConfigError
from functorch_kit.config.models import GPTModel
from functorch_kit.config.optimization import make_optimizer, make_options, settings_of, traced
from functorch_kit.config.restoring import restore_best
from functorch_kit.config.runs import load_run
from functorch_kit.config.schema import Config, choice_of
from functorch_kit.config.zoo import zoo_config
from functorch_kit.data import Vocabulary, vocabulary_from
from functorch_kit.run import read_vocabulary
from functorch_kit.types import HParams, Params


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """What it takes to generate text.

    Attributes:
        config: of the GPT.
        params: of the best checkpoint, those that the run evaluates.
        vocabulary: text as tokens and back.
        step: of that checkpoint.
    """

    config: models.GPTConfig
    params: Params
    vocabulary: Vocabulary
    step: int


def language_model_config(config: Config, vocabulary: int) -> models.GPTConfig:
    """The GPT of a job, for a vocabulary of that size.

    Raises:
        ConfigError: a job of another model, or whose data says no context.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(model=config.GPTNano(layers=2), data=config.Text(context=32))
        >>> made = language_model_config(job, 65)
        >>> made.layers, made.context, made.vocabulary
        (2, 32, 65)
    """
    if not isinstance(config.model, GPTModel):
        raise ConfigError(
            f"model={choice_of(config.model)} generates no text: give a run of model=gpt_nano"
        )
    sizes = {"vocabulary": vocabulary, "context": config.data.context}
    return zoo_config(choice_of(config.model), sizes | settings_of(config, "model", {}))


def load_language_model(run: str | Path) -> LanguageModel:
    """The best checkpoint of a run as a language model; its text need not be there any more.

    Args:
        run: folder of a run of ``model=gpt_nano``.

    Returns:
        A LanguageModel.

    Raises:
        UserError: no such run, one of another model, one without a checkpoint or a vocabulary, or
            a damaged one.

    Example:
        >>> import tempfile
        >>> from functorch_kit import config, generation
        >>> folder = tempfile.mkdtemp()
        >>> job = config.Config(config.GPTNano(1, 1, 4), config.Text(context=8), run_dir=folder,
        ...                     quiet=True)
        >>> job.train.steps, job.train.batch_size = 2, 4
        >>> _ = config.build(job).fit()
        >>> found = load_language_model(folder)
        >>> prompt = found.vocabulary.encode("to be")
        >>> row, = generation.generate(found.config, found.params, [prompt], tokens=3)
        >>> len(found.vocabulary.decode(row.tokens))
        3
    """
    folder = Path(run)
    config = load_run(folder)
    language_model_config(config, 1)  # another model has no vocabulary to ask for
    values = read_vocabulary(folder)
    if values is None:
        raise ConfigError(
            f"run folder {str(folder)!r} has no vocabulary.json: resume it, which writes one"
        )
    vocabulary = vocabulary_from(values)
    network = language_model_config(config, len(vocabulary))
    options = make_options(config)
    hparams = train.as_hparams(traced(config), options.policy.params)
    x_spec = jax.ShapeDtypeStruct((1, network.context), jnp.int32)

    def optimizer(hparams: HParams) -> optax.GradientTransformation:
        return make_optimizer(config, hparams)

    best = restore_best(folder, models.gpt(network), optimizer, x_spec, hparams, options)
    return LanguageModel(network, best.params, vocabulary, best.step)
