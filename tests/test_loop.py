"""``fit``: the same bits as a loop written by hand, wherever it pauses, stops or goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import functorch_kit as fk
from functorch_kit.errors import UserError

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")

STEPS = 45


def _digits() -> fk.data.Data:
    return fk.data.digits(batch_size=32, seed=3)


def _mlp(h: dict[str, Any]) -> fk.nn.Model:
    return fk.models.mlp(fk.models.MLPConfig(hidden=(16,), dropout=h["dropout"]))


def _cnn(h: dict[str, Any]) -> fk.nn.Model:
    return fk.models.cnn(fk.models.CNNConfig(features=(4, 6), dense=16, dropout=h["dropout"]))


def _cnn_with_library_convolutions(h: dict[str, Any]) -> fk.nn.Model:
    return fk.nn.serial(
        conv=fk.nn.conv(4, (3, 3), method="library"),
        norm=fk.nn.batch_norm(),
        act=fk.nn.relu,
        flatten=fk.nn.flatten(),
        dropout=fk.nn.dropout(h["dropout"]),
        head=fk.nn.dense(10),
    )


def _optimizer(h: dict[str, Any]) -> optax.GradientTransformation:
    return optax.adam(h["learning_rate"])


HPARAMS = {"learning_rate": 3e-3, "dropout": 0.2}


def _fit(model: Any, **changes: Any) -> fk.FitResult:
    options: dict[str, Any] = {
        "optimizer": _optimizer,
        "data": _digits(),
        "steps": STEPS,
        "hparams": HPARAMS,
        "seed": 1,
        "quiet": True,
    }
    objective = lambda h: fk.train.classification(model(h))  # noqa: E731
    return fk.fit(model, objective, **(options | changes))


def _hash(tree: Any) -> str:
    leaves = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(tree)
    ]
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def _by_hand(model: Any, form: str) -> Any:
    """The same pure step in a loop of one's own: nothing of fit, its stepper or its pauses."""
    data = _digits().train
    objective = lambda h: fk.train.classification(model(h))  # noqa: E731
    step = fk.train.make_train_step(objective, _optimizer)
    hparams = {name: jnp.float32(value) for name, value in HPARAMS.items()}
    state = fk.train.init_state(model, _optimizer, data.spec["x"], hparams=hparams, seed=1)
    batches = [data(i) for i in range(STEPS)]
    if form == "single":
        compiled = jax.jit(step, compiler_options=fk.program.measured_options())
        for batch in batches:
            state, _ = compiled(hparams, state, batch)
        return state
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)

    @jax.jit
    def loop(hparams, state, stacked, count):
        def body(index, state):
            return step(hparams, state, jax.tree.map(lambda leaf: leaf[index], stacked))[0]

        return lax.fori_loop(0, count, body, state)

    return loop(hparams, state, stacked, STEPS)


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (_mlp, "chunk"),
        (_mlp, "single"),
        (_cnn, "chunk"),
        (_cnn, "single"),
        (_cnn_with_library_convolutions, "single"),
    ],
    ids=lambda value: getattr(value, "__name__", value).strip("_"),
)
def test_fit_equals_a_loop_written_by_hand_bit_for_bit(model: Any, form: str):
    result = _fit(model, form=form)
    assert result.programs["form"] == form
    assert _hash(result.state) == _hash(_by_hand(model, form))


def test_the_form_is_chosen_from_the_operations_of_the_step():
    assert _fit(_mlp, steps=1).programs["form"] == "chunk"
    library = _fit(_cnn_with_library_convolutions, steps=1).programs
    assert library["form"] == "single"
    assert "conv_general_dilated" in library["form_reason"]


@pytest.mark.smoke
def test_where_evaluations_checkpoints_and_dispatches_fall_moves_no_bit(tmp_path: Path):
    calm = _fit(_mlp, eval_every=1000, log_every=1)
    busy = _fit(_mlp, eval_every=4, checkpoint_every=7, log_every=1, run_dir=tmp_path / "run")
    assert _hash(calm.state) == _hash(busy.state)
    rows = [[row for row in r.history if row["split"] == "train"] for r in (calm, busy)]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == list(range(1, STEPS + 1))


def test_pauses_and_new_hyperparameters_compile_nothing_again():
    traces = []

    def counted(h: dict[str, Any]) -> fk.nn.Model:
        traces.append(1)
        return _mlp(h)

    objective = lambda h: fk.train.classification(counted(h))  # noqa: E731
    data = _digits()
    state = fk.train.init_state(_mlp, _optimizer, data.train.spec["x"], hparams=HPARAMS, seed=1)
    step = fk.train.make_train_step(objective, _optimizer)
    hparams = fk.train.as_hparams(HPARAMS)
    form = fk.train.Form("chunk", "asked for")
    stepper = fk.train.Stepper(step, data.train, hparams, state, form)
    compiled_with = len(traces)
    list(
        fk.train.advance(
            stepper, hparams, state, 0, STEPS, every=(4, 7), log=lambda start, metrics: None
        )
    )
    assert len(traces) == compiled_with


@pytest.mark.parametrize(
    ("model", "interrupted_at"),
    [(_mlp, 1), (_mlp, 13), (_mlp, 44), (_cnn, 13), (_cnn_with_library_convolutions, 13)],
    ids=lambda value: getattr(value, "__name__", str(value)).strip("_"),
)
def test_a_run_that_is_stopped_and_resumed_equals_one_that_never_was(
    model: Any, interrupted_at: int, tmp_path: Path
):
    straight = _fit(model, run_dir=tmp_path / "straight", eval_every=10, log_every=1)

    folder = tmp_path / "resumed"
    options = {"eval_every": 10, "log_every": 1, "run_dir": folder}
    _fit(model, **options | {"steps": interrupted_at})
    resumed = _fit(model, **options, resume=True)
    assert _hash(resumed.state) == _hash(straight.state)
    train_rows = [
        [row for row in fk.report.read_metrics(run / "metrics.jsonl") if row["split"] == "train"]
        for run in (tmp_path / "straight", folder)
    ]
    assert train_rows[0] == train_rows[1]


def test_a_signal_stops_after_a_whole_step_saves_it_and_the_run_can_go_on(tmp_path: Path):
    straight = _fit(_mlp, eval_every=10)

    def signal_once(rows: Any) -> bool:
        if len(rows) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(fk.run.Interrupted, match="SIGTERM at step 20"):
        _fit(_mlp, eval_every=10, run_dir=tmp_path, stop=signal_once)
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "interrupted"
    resumed = _fit(_mlp, eval_every=10, run_dir=tmp_path, resume=True)
    assert _hash(resumed.state) == _hash(straight.state)
    assert resumed.summary["best_step"] == straight.summary["best_step"]
    assert resumed.summary["test_loss"] == straight.summary["test_loss"]


def _told_to_stop(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_before_the_first_step_is_no_finished_run(tmp_path: Path):
    def model(h: dict[str, Any]) -> fk.nn.Model:
        def init(key: Any, x_spec: Any) -> Any:
            jax.debug.callback(_told_to_stop)
            return _mlp(h).init(key, x_spec)

        return _mlp(h)._replace(init=init)

    with pytest.raises(fk.run.Interrupted, match="SIGINT at step 0"):
        _fit(model, run_dir=tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("interrupted", 0)
    assert "test_accuracy" not in summary


def test_a_signal_while_the_report_is_written_reaches_the_caller(tmp_path: Path):
    """Else a sweep goes on with its next run, whose user has asked to stop."""
    with pytest.raises(fk.run.Interrupted, match=f"SIGINT at step {STEPS}"):
        _fit(_mlp, run_dir=tmp_path, page=lambda result: _told_to_stop() or {})
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "finished"
    assert (tmp_path / "report.html").exists()


def test_the_best_step_by_validation_is_the_one_that_is_tested(tmp_path: Path):
    result = _fit(_mlp, eval_every=9, run_dir=tmp_path)
    validations = [row for row in result.history if row["split"] == "validation"]
    best = min(validations, key=lambda row: row["loss"])
    assert result.summary["best_step"] == best["step"]
    assert result.summary["validation_loss"] == best["loss"]
    store = fk.checkpoint.Store(tmp_path / "checkpoints")
    assert store.best() == best["step"]
    saved, _ = store.restore(best["step"], result.state)
    assert _hash(saved.params) == _hash(result.params)


def test_a_metric_that_shall_grow_can_choose_the_best_step():
    result = _fit(_mlp, eval_every=9, best=("accuracy", "max"))
    validations = [row for row in result.history if row["split"] == "validation"]
    assert result.summary["validation_accuracy"] == max(row["accuracy"] for row in validations)


def test_a_resumed_run_cannot_choose_its_best_step_by_another_metric(tmp_path: Path):
    """A loss of 0.3 and an accuracy of 0.9 cannot be told apart by which is smaller."""
    _fit(_mlp, steps=2, run_dir=tmp_path)
    with pytest.raises(
        UserError, match=r"best step by \('loss', 'min'\), which cannot be compared"
    ):
        _fit(_mlp, steps=4, run_dir=tmp_path, resume=True, best=("accuracy", "max"))


def test_early_stopping_ends_the_run_and_says_so(tmp_path: Path):
    options = {"eval_every": 5, "stop": lambda rows: len(rows) == 3, "run_dir": tmp_path}
    result = _fit(_mlp, **options)
    assert (result.summary["status"], result.summary["steps"]) == ("stopped early", 15)
    assert fk.checkpoint.Store(tmp_path / "checkpoints").latest() == 15
    again = _fit(
        _mlp, eval_every=5, stop=lambda rows: len(rows) == 3, run_dir=tmp_path, resume=True
    )
    assert (again.summary["status"], again.summary["steps"]) == ("stopped early", 15)


@pytest.mark.parametrize(("at", "status"), [(3, "beaten"), (4, "finished")])
def test_a_run_may_be_stopped_in_a_word_of_its_own_but_not_after_its_last_step(at, status):
    def stop(rows):
        return "beaten" if len(rows) == at else False

    result = _fit(_mlp, eval_every=5, steps=20, stop=stop)
    assert (result.summary["status"], result.summary["steps"]) == (status, 5 * at)


def test_evaluation_counts_every_record_once():
    result = _fit(_mlp, steps=5)
    assert result.test["confusion"].sum() == 359
    right = np.trace(result.test["confusion"])
    assert result.test["accuracy"] == pytest.approx(right / 359, abs=1e-12)


def test_a_finished_run_that_is_resumed_trains_no_further(tmp_path: Path, capsys: Any):
    first = _fit(_mlp, run_dir=tmp_path)
    again = _fit(_mlp, run_dir=tmp_path, resume=True, quiet=False)
    assert "nothing is left to train" in capsys.readouterr().out
    assert _hash(first.state) == _hash(again.state)
    assert first.summary["test_accuracy"] == again.summary["test_accuracy"]


def test_a_run_without_held_out_data_ends_with_its_last_parameters():
    data = fk.data.gaussian(count=16, inputs=5, outputs=2, batch_size=8)
    model = fk.nn.dense(2)
    result = fk.fit(
        model,
        fk.train.regression(model),
        optimizer=optax.sgd(0.1),
        data=data,
        steps=3,
        quiet=True,
    )
    assert _hash(result.params) == _hash(result.state.params)
    assert result.summary["best_step"] == 3
    assert not [name for name in result.summary if name.startswith(("test", "validation"))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"eval_every": -1}, "eval_every is -1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"best": ("loss", "smallest")}, "'min' or 'max'"),
        ({"best": ("acc", "max")}, "measures no 'acc': give accuracy or loss"),
        ({"best": ("confusion", "max")}, "measures no 'confusion': give accuracy or loss"),
        ({"resume": True}, "resume needs a run_dir"),
        ({"form": "block"}, "not one of auto, chunk, single"),
        ({"resume": True, "run_dir": "no/such/run"}, "does not exist"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_line(
    changes: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message) as caught:
        _fit(_mlp, **changes)
    assert "\n" not in str(caught.value)


def test_a_model_that_branches_in_python_on_a_hyperparameter_is_refused_and_named():
    def model(h: dict[str, Any]) -> fk.nn.Model:
        return _mlp(h) if h["dropout"] > 0 else _cnn(h)

    with pytest.raises(UserError, match=r"init: hparams/dropout is a traced float32\[\]"):
        _fit(model)


def test_a_large_array_in_the_objective_is_refused_before_there_is_a_batch():
    weights = np.ones(2000, np.float32)
    plain = fk.train.classification(_mlp({"dropout": 0.0}))

    def objective(params, model_state, batch, *, key, train):
        weight = jnp.asarray(weights)[batch["y"]]
        return plain(params, model_state, {**batch, "weight": weight}, key=key, train=train)

    with pytest.raises(UserError, match="train_step: it captures weights, "):
        fk.fit(
            _mlp({"dropout": 0.0}), objective, optimizer=optax.adam(1e-3), data=_digits(), steps=1,
            quiet=True,
        )  # fmt: skip
