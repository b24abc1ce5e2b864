"""The persistent compilation cache."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from functorch_kit import program
from functorch_kit.program.cache import watch_compilations

NAMES = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def cache_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As in a fresh process with a home of its own; everything as before afterwards."""
    before = {name: jax.config.values[name] for name in NAMES}
    monkeypatch.delenv("FUNCTORCH_KIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_product() -> program.Program:
    spec = jax.ShapeDtypeStruct((5, 5), jnp.float32)
    return program.compile(lambda a, b: jnp.tanh(a @ b), spec, spec, name="product")


def test_a_program_compiled_before_comes_from_the_cache_and_computes_the_same(tmp_path):
    folder = program.use_cache(tmp_path / "here")
    assert folder == tmp_path / "here"
    first, second = compile_product(), compile_product()
    assert (first.report.from_cache, second.report.from_cache) == (False, True)
    one = jnp.arange(25.0).reshape(5, 5) / 25
    assert (first(one, one) == second(one, one)).all()
    assert any("-cache" in file.name for file in (tmp_path / "here").iterdir())


def test_a_program_from_the_cache_reports_the_same_memory_and_donations(tmp_path):
    program.use_cache(tmp_path)
    spec = jax.ShapeDtypeStruct((64,), jnp.float32)

    def made() -> dict:
        step = program.compile(lambda w, x: w + x * 2, spec, spec, name="step", donate=(0,))
        plain = step.report.to_dict()
        return {key: value for key, value in plain.items() if "seconds" not in key}

    first, second = made(), made()
    assert second.pop("from_cache")
    assert not first.pop("from_cache")
    assert first == second
    assert first["donated"] == ["w"]


def test_the_cache_serves_although_something_was_compiled_before_it_was_switched_on(tmp_path):
    jax.jit(lambda x: x * 3)(jnp.ones(3))
    program.use_cache(tmp_path)
    compile_product()
    assert compile_product().report.from_cache


def test_a_folder_that_jax_used_before_is_let_go(tmp_path):
    program.use_cache(tmp_path / "before")
    compile_product()
    jax.config.update("jax_compilation_cache_dir", None)
    program.use_cache(tmp_path / "now")
    assert not compile_product().report.from_cache
    assert list((tmp_path / "now").iterdir())


def test_the_default_folder_tells_jaxlib_and_machine_apart(tmp_path):
    folder = program.use_cache()
    assert folder is not None
    assert folder.parent == tmp_path / "cache" / "functorch_kit" / "xla"
    version, _, fingerprint = folder.name.rpartition("-")
    assert version == importlib.metadata.version("jaxlib")
    assert len(fingerprint) == 12
    assert folder.is_dir()


def test_another_cpu_means_another_folder(monkeypatch, tmp_path):
    here = program.use_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    real = Path.read_text

    def other_machine(self, *args, **kwargs):
        if str(self) == "/proc/cpuinfo":
            return "flags : sse2\n"
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", other_machine)
    there = program.use_cache()
    assert here is not None
    assert there is not None
    assert here.parent == there.parent
    assert here != there


@pytest.mark.parametrize("off", ["off", "OFF"])
def test_it_can_be_switched_off(monkeypatch, tmp_path, off):
    monkeypatch.setenv("FUNCTORCH_KIT_CACHE", off)
    assert program.use_cache() is None
    assert program.use_cache(tmp_path / "here") is None
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert not (tmp_path / "here").exists()


def test_the_environment_may_name_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FUNCTORCH_KIT_CACHE", str(tmp_path / "elsewhere"))
    assert program.use_cache() == tmp_path / "elsewhere"


def test_a_folder_that_is_configured_already_stays(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert program.use_cache() == tmp_path / "mine"
    assert program.use_cache(tmp_path / "other") == tmp_path / "mine"
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "mine")


def test_a_relative_cache_home_is_ignored_as_the_rules_have_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    folder = program.use_cache()
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "home" / ".cache")


def test_an_unwritable_home_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert program.use_cache() is None
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_read_only_folder_is_found_out_before_jax_uses_it(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert program.use_cache(tmp_path) is None
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_no_home_at_all_is_no_error(monkeypatch):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nobody)
    assert program.use_cache() is None


def test_watching_ends_with_the_block():
    with watch_compilations() as seen:
        jax.jit(lambda x: x - 1).lower(1.0).compile()
    before = seen.seconds
    jax.jit(lambda x: x - 2).lower(1.0).compile()
    assert seen.seconds == before > 0
