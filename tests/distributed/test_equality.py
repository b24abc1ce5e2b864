"""The same losses whatever the mesh: in float64, with dropout and micro-batches, over 100 steps."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from functorch_kit.program import executable

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")

MESHES = {
    "mlp": ["data=4", "fsdp=2,tensor=2"],
    "gpt": ["fsdp=2,tensor=2", "sequence=2,data=2"],
}
MORE = [
    "data=1", "data=2", "data=4", "data=8", "fsdp=2", "fsdp=4", "fsdp=8", "tensor=2", "tensor=4",
    "data=2,fsdp=4", "data=2,tensor=4", "fsdp=4,tensor=2", "data=2,fsdp=2,tensor=2",
]  # fmt: skip
STEPS = 100


@pytest.fixture(scope="module")
def plain(proofs: ModuleType) -> Any:
    """The losses of a job on one device without a mesh, made when they are asked for first."""
    known: dict[str, np.ndarray] = {}

    def losses(job: str) -> np.ndarray:
        if job not in known:
            known[job] = np.array(proofs.trained(job, "plain", STEPS)["losses"])
        return known[job]

    return losses


@pytest.mark.parametrize(("job", "mesh"), [(job, m) for job in MESHES for m in MESHES[job]])
def test_a_mesh_changes_no_loss_and_compiles_each_program_once(
    job: str, mesh: str, x64: None, plain: Any, proofs: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    expected, compiled = plain(job), []
    real = executable.report_on
    monkeypatch.setattr(
        executable, "report_on", lambda *a, **kw: compiled.append(kw["name"]) or real(*a, **kw)
    )
    found = proofs.trained(job, mesh, STEPS)
    assert found["devices"] == np.prod([int(part.split("=")[1]) for part in mesh.split(",")])
    assert compiled == ["train_step", "init"]
    losses = np.array(found["losses"])
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] - 0.2  # it learns
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-10)


def test_of_eight_devices_each_holds_an_eighth_of_parameters_and_optimizer_state(
    on_devices: Any,
):
    found = on_devices(8, 3, "wide", "plain", "fsdp=8")
    assert found["fsdp=8"]["devices"] == 8
    assert found["plain"]["share"] == 1
    assert found["fsdp=8"]["share"] <= 1 / 7
    np.testing.assert_allclose(found["fsdp=8"]["losses"], found["plain"]["losses"], atol=1e-12)


@pytest.mark.soak
@pytest.mark.parametrize("job", ["mlp", "gpt"])
def test_no_mesh_of_one_to_eight_devices_changes_a_loss(job: str, on_devices: Any):
    further = ["sequence=2,data=4", "sequence=4,tensor=2"] if job == "gpt" else []
    found = on_devices(8, STEPS, job, "plain", *MORE, *further)
    for mesh, row in found.items():
        np.testing.assert_allclose(
            row["losses"], found["plain"]["losses"], rtol=0, atol=1e-10, err_msg=mesh
        )
