"""What the benchmarks found, and that the documents say the same."""

from __future__ import annotations

from pathlib import Path

from bench import report
from bench.results import DIRECTORY, Result, Series, markdown, tables

GRID = Result(
    "anchors",
    "Opening by one anchor",
    (
        Series("static: by kluis", "ms", (1.0, 2.0, 3.0)),
        Series("static: once", "ms", (40.0,)),
        Series("tang: by kluis", "ms", (12.0, 12.0, 12.0)),
        Series("tang: once", "ms", (170.0,)),
    ),
    columns=("by kluis", "once"),
)


def test_the_document_has_the_numbers_of_the_results_and_no_others() -> None:
    assert report.filled(DIRECTORY) == report.DOCUMENT.read_text("utf-8"), "python -m bench.report"


def test_what_has_columns_is_a_table_with_a_row_for_each_thing() -> None:
    assert markdown(tables(GRID)).splitlines() == [
        "| measured | unit | by kluis         | once | rounds |",
        "|----------|------|------------------|------|--------|",
        "| static   | ms   | 2 (1.50 to 2.50) | 40   | 3, 1   |",
        "| tang     | ms   | 12 (12 to 12)    | 170  | 3, 1   |",
    ]


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    GRID.write(tmp_path, quick=True)
    read, whole = Result.read(tmp_path / "anchors.json")
    assert read == GRID
    assert whole["quick"] is True


def test_a_result_from_before_there_were_columns_is_read(tmp_path: Path) -> None:
    GRID.write(tmp_path, quick=True)
    path = tmp_path / "anchors.json"
    lines = path.read_text().replace('"columns": [\n  "by kluis",\n  "once"\n ],\n', "")
    assert "columns" not in lines
    path.write_text(lines)
    assert Result.read(path)[0].columns == ()
