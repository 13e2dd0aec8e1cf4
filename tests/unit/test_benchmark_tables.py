"""The tables of the benchmarks' page are those of the recorded results."""

from __future__ import annotations

from benchmarks.tables import PAGE, filled


def test_page_has_the_tables_of_the_recorded_results() -> None:
    page = PAGE.read_text()
    assert filled(page) == page, "run python -m benchmarks.tables"
