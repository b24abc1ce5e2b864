"""Tables on the console."""

import dataclasses
import io
from dataclasses import dataclass

from functorch_kit.report import show_programs, show_summary


@dataclass(frozen=True)
class Row:
    path: str
    output: str
    params: int
    flops: int
    own: bool = False


def _shown(show, *arguments):
    stream = io.StringIO()
    show(*arguments, stream=stream)
    return stream.getvalue()


def test_a_summary_lists_the_parts_and_ends_with_the_whole():
    @dataclass(frozen=True)
    class Summary:
        rows: tuple[Row, ...]
        totals: dict[str, Row]

        def to_dict(self):
            return dataclasses.asdict(self)

    found = Summary(
        (Row("stem", "float32[2,8]", 1_312_000, 9), Row("", "float32[2,3]", 10, 2_000_000, True)),
        {"": Row("", "float32[2,3]", 1_312_010, 2_000_009, True)},
    )
    lines = _shown(show_summary, found).splitlines()
    assert [line.split() for line in (lines[0], *lines[1:3], lines[4])] == [
        ["part", "output", "parameters", "FLOPs"],
        ["stem", "float32[2,8]", "1,312,000", "9"],
        ["(model)", "(rest)", "float32[2,3]", "10", "2.00", "M"],
        ["total", "float32[2,3]", "1,312,010", "2.00", "M"],
    ]
    assert _shown(show_summary, dataclasses.asdict(found)) == _shown(show_summary, found)


def test_a_report_may_lack_what_a_backend_does_not_tell():
    text = _shown(show_programs, [{"name": "step", "peak_bytes": None, "flops": float("nan")}])
    assert all(cell == "-" for line in text.splitlines()[2:] for cell in line.split()[-1:])
