"""Folders of results, and a name that goes."""

from __future__ import annotations

import pytest

import krause_dynamics as kd


def test_a_folder_is_made_and_left_empty(tmp_path):
    folder = kd.report.check_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder, reason in (
        (tmp_path / "file", "File exists"),
        (tmp_path / "file" / "below", "Not a directory"),
        ("/proc", ""),
    ):
        with pytest.raises(ValueError, match=f"out must be a folder that can be written to.*{reason}"):
            kd.report.check_folder(folder)


def test_an_error_without_words_is_told_by_its_name(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(ValueError, match=r"\(PermissionError\)"):
        kd.report.check_folder(tmp_path / "a")


def test_the_bar_of_reports_gives_way_to_that_of_runs(capsys):
    with pytest.warns(DeprecationWarning, match="pass progress=True"), kd.report.progress_bar("words") as bar:
        bar(2, 2)
    assert "words" in capsys.readouterr().err


def test_a_folder_may_be_there_already(tmp_path):
    from krause_dynamics import report

    assert report.check_folder(report.check_folder(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
