"""The mesh of a configuration: what it asks for, what is refused, and what a resume may change."""

from pathlib import Path

import pytest

from functorch_kit.config import (
    CNN,
    MLP,
    Config,
    ConfigError,
    GPTNano,
    Mesh,
    Text,
    build,
    from_dict,
    resumed,
    to_dict,
)
from functorch_kit.config.experiment import make_mesh
from functorch_kit.distributed import GPT, MeshError

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_by_default_there_is_no_mesh():
    assert make_mesh(Config()) is None


@pytest.mark.parametrize(
    ("mesh", "shape"),
    [
        (Mesh(data=-1), (4, 1, 1, 1)),
        (Mesh(fsdp=2), (1, 2, 1, 1)),
        (Mesh(data=-1, tensor=2), (2, 1, 1, 2)),
    ],
)
def test_a_mesh_has_the_axes_that_were_asked_for(mesh: Mesh, shape: tuple[int, ...]):
    found = make_mesh(Config(model=MLP(), mesh=mesh))
    assert tuple(found.shape.values()) == shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Config(model=CNN(), mesh=Mesh(tensor=2)),
            "mesh.tensor splits the matrices",
        ),
        (Config(model=MLP(), mesh=Mesh(sequence=2)), "mesh.sequence splits a text's context"),
        (Config(model=MLP(), mesh=Mesh(data=8)), "takes 8 devices, and there are 4"),
    ],
)
def test_a_mesh_that_the_model_or_the_machine_has_not_is_refused(config: Config, message: str):
    with pytest.raises((ConfigError, MeshError), match=message):
        make_mesh(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data", -2, "mesh.data is -2: give a whole number, -1 or more"),
        ("fsdp", 0, "mesh.fsdp is 0: give a whole number, 1 or more"),
        ("tensor", None, "mesh.tensor is null: give a whole number, 1 or more"),
    ],
)
def test_sizes_that_are_none_are_refused(key: str, value: object, message: str):
    with pytest.raises(ConfigError, match=message):
        from_dict({"mesh": {key: value}})


def test_a_gpt_gets_the_rules_that_are_made_for_it():
    job = Config(model=GPTNano(layers=1, heads=2, width=8), data=Text(context=8))
    job.mesh.tensor = 2
    arguments = build(job).fit_arguments()
    assert arguments["rules"] is GPT
    assert dict(arguments["mesh"].shape)["tensor"] == 2


def test_a_resume_may_change_the_mesh(tmp_path: Path):
    job = Config(model=MLP(hidden=(8,)), run_dir=str(tmp_path / "run"), quiet=True)
    job.train.steps = 2
    build(job).fit()
    composed = from_dict({**to_dict(job), "resume": str(tmp_path / "run"), "mesh": {"data": 2}})
    assert resumed(composed, ["resume", "mesh.data"]).mesh == Mesh(data=2)
