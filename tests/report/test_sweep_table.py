"""sweep.csv: every job, read back by what reads CSV."""

import csv
import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.report import write_sweep

COLUMNS = ["number", "folder", "status"]


def entry(number, settings=None, status="finished", **summary):
    return {
        "number": number, "folder": str(number), "settings": settings or {}, "status": status,
        "summary": {"status": status, **summary},
    }  # fmt: skip


def rows(folder, jobs):
    write_sweep(folder, {"metric": "loss", "mode": "min", "jobs": jobs}, {})
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_the_file_is_what_rfc_4180_says_to_the_byte(tmp_path):
    write_sweep(tmp_path, {"metric": "loss", "jobs": [
        entry(0, {"model.hidden": [64, 32], "note": 'say "é"', "seed": 1}, validation_loss=0.1),
        entry(1, {"model.hidden": None, "note": "a,\nb", "seed": 2}, "diverged",
              validation_loss=math.nan),
    ]}, {})  # fmt: skip
    assert (tmp_path / "sweep.csv").read_bytes().decode() == (
        "number,folder,status,model.hidden,note,seed,validation_loss\r\n"
        '0,0,finished,"[64,32]","say ""é""",1,0.1\r\n'
        '1,1,diverged,null,"a,\nb",2,NaN\r\n'
    )


def test_a_setting_that_a_job_does_not_have_is_an_empty_cell(tmp_path):
    found = rows(tmp_path, [entry(0, {"model.hidden": [8]}), entry(1, {"model.width": True})])
    assert [(row["model.hidden"], row["model.width"]) for row in found] == [
        ("[8]", ""), ("", "true"),
    ]  # fmt: skip


def test_the_columns_are_the_same_whichever_job_comes_first(tmp_path):
    jobs = [
        entry(0, {"seed": 1, "a": 1}, test_loss=1.0, seconds=2.0, steps=3, validation_loss=0.5),
        entry(1, {"seed": 2, "a": 2}, validation_loss=0.5, steps=3, test_loss=1.0),
        entry(2, {"seed": 2, "a": 3}, "waiting"),
    ]
    headers = {tuple(rows(tmp_path, list(order))[0]) for order in itertools.permutations(jobs)}
    assert headers == {(*COLUMNS, "a", "seed", "test_loss", "validation_loss", "steps", "seconds")}


def test_a_metric_of_the_name_of_a_setting_has_a_column_of_its_own(tmp_path):
    [row] = rows(tmp_path, [entry(0, {"steps": 7}, steps=40, folder="x")])
    assert (row["steps"], row["summary.steps"], row["summary.folder"]) == ("7", "40", "x")


cells = st.one_of(
    st.booleans(), st.none(), st.integers(), st.floats(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=5))
def test_every_value_is_read_back_as_it_was(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("csv")
    found = rows(folder, [entry(n, {"a": value}, x=value) for n, value in enumerate(values)])
    for value, row in zip(values, found, strict=True):
        for text in (row["a"], row["x"]):
            if isinstance(value, bool) or value is None:
                assert text == {True: "true", False: "false", None: "null"}[value]
            elif isinstance(value, str):
                expected = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
                assert text == value or value in expected
            else:
                assert float(text) == float(value) or math.isnan(value)
