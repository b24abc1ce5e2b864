"""With a guard taken out of the source, the test that watches it fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKPOINT = "functorch_kit/checkpoint"
GUARDS = {
    "manifest": (
        f"{CHECKPOINT}/manifest.py",
        'if found["sha256"] != listed[name]["sha256"]:',
        "if False:",
        "tests/faults/test_corruption.py::test_a_damaged_file_of_any_kind_is_found",
    ),
    "manifest, of the packed file": (
        f"{CHECKPOINT}/packed.py",
        'if hashlib.sha256(content.data).hexdigest() != expected["sha256"]:',
        "if False:",
        "tests/faults/test_corruption.py::test_a_damaged_file_of_any_kind_is_found",
    ),
    "seal of the manifest": (
        f"{CHECKPOINT}/manifest.py",
        "intact = isinstance(content, dict) and _seal(content) == text",
        "intact = isinstance(content, dict)",
        "tests/checkpoint/test_damage.py::test_every_bit_of_a_manifest_counts",
    ),
    "fsync of the packed file": (
        f"{CHECKPOINT}/packed.py",
        "os.fsync(file.fileno())",
        "pass",
        "tests/checkpoint/test_crash.py"
        "::test_everything_is_on_disk_before_it_is_published_and_then_its_name",
    ),
    "fsync of the folder's names": (
        f"{CHECKPOINT}/publish.py",
        "        raise\n    manifest.sync(folder)\n",
        "        raise\n",
        "tests/faults/test_power_loss.py"
        "::test_every_published_file_was_synced_before_and_its_name_after",
    ),
    "lock": (
        f"{CHECKPOINT}/lock.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        "tests/faults/test_two_writers.py::test_of_three_processes_that_race_for_a_folder_one_wins",
    ),
    "lock left to a forked child": (
        f"{CHECKPOINT}/lock.py",
        "os.register_at_fork(after_in_child=_let_go_in_child)",
        "",
        "tests/checkpoint/test_lock.py::test_a_forked_child_does_not_keep_the_lock_of_its_parent",
    ),
    "waiting at exit": (
        f"{CHECKPOINT}/store.py",
        "    _register()\n    _unfinished.add(store)",
        "    _unfinished.add(store)",
        "tests/checkpoint/test_store.py"
        "::test_a_process_that_leaves_without_waiting_still_finishes_its_save",
    ),
    "waiting for the save": (
        f"{CHECKPOINT}/store.py",
        "        self._written.wait()\n        _unfinished.discard(self)\n",
        "        _unfinished.discard(self)\n",
        "tests/checkpoint/test_store.py::test_close_and_the_with_statement_wait",
    ),
    "strict dtype": (
        f"{CHECKPOINT}/leaves.py",
        "wanted = {name: _describe(leaf.shape, leaf.dtype)",
        'wanted = {name: _describe(leaf.shape, records.get(name, {}).get("dtype"))',
        "tests/faults/test_strict_restore.py::test_every_difference_in_any_leaf_is_refused",
    ),
    "copy before donation": (
        f"{CHECKPOINT}/snapshot.py",
        "            np.copyto(taken.view(name, data[name]), np.asarray(data[name]))",
        "            taken.device[name] = data[name]",
        "tests/checkpoint/test_store.py"
        "::test_a_donated_buffer_is_freed_and_the_state_before_it_is_saved",
    ),
    "damaged steps set aside": (
        f"{CHECKPOINT}/publish.py",
        "            _set_aside(path)\n",
        "",
        "tests/checkpoint/test_fallback.py"
        "::test_a_run_goes_on_from_the_older_step_and_the_damaged_one_is_set_aside",
    ),
    "signals heard outside Python's own instructions": (
        "experiments/stopping.py",
        '    threading.Thread(target=listen, name="signals", daemon=True).start()\n',
        "",
        "tests/faults/test_signals.py"
        "::test_a_signal_during_a_long_compilation_does_not_wait_for_its_end",
    ),
    "signals that end a script with one line": (
        "experiments/frame.py",
        "    stop_at_once()\n",
        "    pass\n",
        "tests/faults/test_signals.py::test_a_signal_amid_an_import_ends_in_one_line",
    ),
    "process group of the supervised": (
        "functorch_kit/supervise.py",
        "stderr=subprocess.PIPE, process_group=0)",
        "stderr=subprocess.PIPE)",
        "tests/test_supervise.py::test_a_signal_reaches_the_process_once_and_ends_the_supervision",
    ),
    "giving up what would repeat": (
        "functorch_kit/supervise.py",
        "if ended.code == 1 and before == ended:",
        "if False:",
        "tests/test_supervise.py"
        "::test_the_same_exception_at_the_same_step_is_given_up_the_second_time",
    ),
    "sum of an exported file": (
        "functorch_kit/untrusted.py",
        "if sha256 is not None and hashlib.sha256(content.data).hexdigest() != sha256:",
        "if False:",
        "tests/faults/test_exported.py::test_flipped_and_truncated_files_are_named_and_not_used",
    ),
    "seal of an artifact's manifest": (
        "functorch_kit/export/manifest.py",
        "if not isinstance(content, dict) or _seal(content) != text:",
        "if not isinstance(content, dict):",
        "tests/faults/test_exported.py::test_flipped_and_truncated_files_are_named_and_not_used",
    ),
    "last day of a program": (
        "functorch_kit/export/artifact.py",
        "if found.has_expired(_today()):",
        "if False:",
        "tests/faults/test_exported.py::test_an_expired_one_is_refused_on_the_day_after",
    ),
    "signature of a program": (
        "functorch_kit/export/artifact.py",
        "    if not is_alike:\n",
        "    if False:\n",
        "tests/faults/test_exported.py::test_a_manifest_of_another_program_does_not_pass",
    ),
    "links in an artifact": (
        "functorch_kit/untrusted.py",
        'getattr(os, "O_NOFOLLOW", 0)',
        "0",
        "tests/test_untrusted.py::test_what_is_no_plain_file_is_refused",
    ),
    "places of arrays that overlap": (
        "functorch_kit/safetensors.py",
        "if place.begin != end:",
        "if False:",
        "tests/test_safetensors.py::test_what_the_header_must_not_say_is_refused_by_name",
    ),
    "pixels counted before they are decoded": (
        "functorch_kit/data/images.py",
        "if most_pixels is not None and pixels > most_pixels:",
        "if False:",
        "tests/export/test_records.py"
        "::test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded",
    ),
    "formats of images": (
        "functorch_kit/data/images.py",
        "Image.open(path, formats=_FORMATS)",
        "Image.open(path)",
        "tests/data/test_inputs.py"
        "::test_a_file_is_not_what_its_ending_says_but_one_of_a_closed_list",
    ),
    "second signal": (
        "functorch_kit/run.py",
        "            raise Interrupted(number)",
        "            pass",
        "tests/test_run.py::test_a_second_signal_stops_at_once_and_the_folder_stays_valid",
    ),
}


@pytest.mark.soak
@pytest.mark.parametrize("guard", GUARDS)
def test_without_its_guard_a_test_fails(tmp_path: Path, guard: str, table):
    file, text, instead, test = GUARDS[guard]
    for name in ("functorch_kit", "tests", "experiments", "conftest.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    source = (tmp_path / file).read_text()
    assert source.count(text) == 1, "the guard is written otherwise now: adapt this test"

    def outcome() -> int:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, timeout=600
        ).returncode

    with table.row("M1", f"the guard taken out: {guard}") as row:
        assert outcome() == 0, "with the guard the test passes"
        (tmp_path / file).write_text(source.replace(text, instead))
        assert outcome() == 1, "without the guard it fails"
        row.count = 1
        row.result = f"{test} fails"
