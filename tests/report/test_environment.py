"""The environment: what a reader needs to repeat a run, and nothing of who ran it."""

import getpass
import json
import shutil
import socket
import subprocess
from importlib import metadata
from pathlib import Path

import jax
import pytest

from functorch_kit.report import environment
from functorch_kit.report.environment import git_revision

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def _git(folder, *arguments):
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )


@pytest.fixture
def checkout(tmp_path):
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    _git(tmp_path, "add", "file")
    _git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_versions_and_devices_are_those_in_use():
    found = environment()
    for name in ("jax", "jaxlib", "numpy", "optax"):
        assert found["versions"][name] == metadata.version(name)
    assert found["versions"]["functorch_kit"]
    assert found["devices"]["count"] == jax.device_count()
    assert found["devices"]["platform"] == jax.devices()[0].platform
    assert found["cpu"]["cores"] >= 1
    assert found["cpu"]["model"]
    assert found["jax_settings"]["jax_enable_x64"] == jax.config.read("jax_enable_x64")
    json.dumps(found, allow_nan=False)


def test_flags_are_told_without_the_home_folder(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={Path.home()}/dump")
    assert environment()["xla_flags"] == "--xla_dump_to=~/dump"


def test_neither_user_nor_host_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody-particular")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/somebody-particular/dump")
    text = json.dumps(environment())
    assert "somebody-particular" not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert str(tmp_path) not in text


@needs_git
def test_a_checkout_tells_its_commit_and_whether_it_is_changed(checkout, monkeypatch):
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert git_revision(checkout) == {"revision": commit, "dirty": False}
    (checkout / "untracked").write_text("not part of the code")
    assert git_revision(checkout) == {"revision": commit, "dirty": False}
    (checkout / "file").write_text("two")
    monkeypatch.chdir(checkout)
    assert environment()["git"] == {"revision": commit, "dirty": True}


@needs_git
def test_a_checkout_without_a_commit_has_no_revision(tmp_path):
    _git(tmp_path, "init", "--quiet")
    assert git_revision(tmp_path) is None


def test_outside_of_a_checkout_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None


def test_a_machine_without_git_has_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(tmp_path) is None


@needs_git
def test_a_git_that_does_not_answer_is_not_waited_for(checkout, monkeypatch):
    def hangs(*_, timeout, **__):
        raise subprocess.TimeoutExpired("git", timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert git_revision(checkout) is None
