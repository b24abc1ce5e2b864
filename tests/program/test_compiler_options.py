"""Options of the compiler that were measured to be faster reach the programs, and can be undone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from functorch_kit import program
from functorch_kit.program import compiler_options, executable

_X = jax.ShapeDtypeStruct((64, 26, 26, 32), jnp.float32)
_KERNEL = jax.ShapeDtypeStruct((3, 3, 32, 64), jnp.float32)


def _convolve(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)


@pytest.mark.smoke
def test_what_was_measured_is_used_unless_something_else_is_asked_for(monkeypatch):
    wrong = {"xla_backend_optimization_level": "no number"}
    monkeypatch.setattr(executable, "measured_options", lambda: wrong)
    with pytest.raises(Exception, match="xla_backend_optimization_level"):
        program.compile(jnp.sin, _X, name="sine")
    right = {"xla_backend_optimization_level": 1}
    program.compile(jnp.sin, _X, name="sine", compiler_options=right)


@pytest.mark.smoke
def test_what_was_measured_is_told_of_its_own_backend_machine_and_version_only(monkeypatch):
    monkeypatch.setattr(compiler_options, "_MEASURED", {("cpu", "x86_64", "1.2.3"): {"a": "b"}})
    monkeypatch.setattr(compiler_options.platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(compiler_options.jaxlib, "__version__", "1.2.3")
    assert program.measured_options("cpu") == {"a": "b"}
    assert program.measured_options("cuda") == {}
    monkeypatch.setattr(compiler_options.jaxlib, "__version__", "1.2.4")
    assert program.measured_options("cpu") == {}


@pytest.mark.skipif(not program.measured_options("cpu"), reason="nothing was measured here")
def test_convolutions_are_not_handed_to_the_library_that_runs_them_on_one_thread():
    plain = jax.jit(_convolve).lower(_X, _KERNEL).compile().as_text()
    ours = program.compile(_convolve, _X, _KERNEL, name="convolve").hlo()
    assert "ynn" in (plain or "")
    assert ours
    assert "ynn" not in ours
