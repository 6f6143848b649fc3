"""Files are whole or absent."""

import csv

import pytest

import run


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), run.replacing(path) as beside:
        beside.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    with run.replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


def test_a_table_keeps_its_columns_and_leaves_blank_what_a_row_lacks(tmp_path):
    rows = [{"method": "DVAE", "iteration": 100, "snr_db": 29.51234}, {"method": "bound", "snr_db": 31.0}]
    run.write_scores(tmp_path / "scores.csv", rows)
    with open(tmp_path / "scores.csv") as file:
        assert list(csv.reader(file)) == [
            ["method", "iteration", "snr_db"],
            ["DVAE", "100", "29.51"],
            ["bound", "", "31"],
        ]


def test_errors_end_the_program_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended, run.one_line_errors():
        open("/no/such/file")
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("/no/such/file: No such file or directory\n")
    with pytest.raises(SystemExit) as ended, run.one_line_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
