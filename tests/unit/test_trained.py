"""Which weights a mode loads while training writes checkpoints, and consistent output."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.assembly import trained
from engine.checkpoint import catalog
from engine.config import flags
from engine.reporting import command
from engine.serving import directory
from tests.unit.test_catalog import Training


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def config(run_dir: Path, *options: str):
    return flags.parse([f"--run_dir={run_dir}", *options])


def test_refuses_best_before_evaluation(training, tmp_path):
    training.save()
    with pytest.raises(ValueError, match=r"--weights=best: .* has no best checkpoint yet"):
        trained.choose(config(tmp_path, "--weights=best"))


def test_auto_without_best(training, tmp_path):
    restoring = config(tmp_path, "--restore_best")
    training.save()
    assert trained.choose(restoring).description == "the newest weights, of step 10"
    training.save(best=True)
    training.save()
    assert trained.choose(restoring).description == "the best weights, of step 20"
    assert trained.choose(config(tmp_path)).description == "the newest weights, of step 30"


@pytest.mark.parametrize("kind", ["auto", "newest", "best"])
def test_refuses_run_without_checkpoint(tmp_path, kind):
    with pytest.raises(ValueError, match=f"--weights={kind}: .* has no checkpoint yet"):
        trained.choose(config(tmp_path, f"--weights={kind}"))


@pytest.mark.parametrize("times", [1, 3])
def test_report_is_consistent(training, tmp_path, monkeypatch, times):
    """Weights and result.json are of one moment, even if a run ends or resumes while they load."""
    training.save()
    result, load, left = tmp_path / "result.json", catalog.load_newest, [None] * times

    def loading(run_dir):
        found = load(run_dir)
        if left:
            left.pop()
            if result.exists():
                result.unlink()
                training.save()
            else:
                training.save()
                step = load(run_dir).step
                (tmp_path / "new").write_text(json.dumps({"step": step}))
                os.replace(tmp_path / "new", result)
        return found

    monkeypatch.setattr(catalog, "load_newest", loading)
    chosen, outcome = command._read(config(tmp_path))
    assert outcome == {"step": chosen.snapshot.step} and outcome["step"] == 10 * (1 + times)


def test_concurrent_exports(tmp_path):
    folder = str(tmp_path / "export")
    (tmp_path / "export.part").mkdir()  # left by a killed export
    (tmp_path / "export.part" / "half").write_text("")
    with (
        directory.temporary_directory(folder) as one,
        directory.temporary_directory(folder) as other,
    ):
        assert one != other and not os.listdir(one) and not os.listdir(other)
        for whole in (one, other):
            Path(whole, "of").write_text(whole)
            directory.publish(whole, folder)
            assert os.listdir(tmp_path / "export") == ["of"]
            assert (tmp_path / "export" / "of").read_text() == whole
            if whole == one:
                assert os.path.isdir(other)
    assert os.listdir(tmp_path) == ["export"]


def test_failed_rename_keeps_old(tmp_path, monkeypatch):
    """If the new export cannot be moved to its place, the previous one stays there."""
    folder, rename = tmp_path / "export", os.rename
    folder.mkdir()
    (folder / "of").write_text("before")

    def fails(one, other):
        if other == str(folder) and not str(one).endswith(".before"):
            raise OSError(errno.EACCES, "Permission denied")
        rename(one, other)

    with (
        pytest.raises(OSError, match="Permission denied"),
        directory.temporary_directory(str(folder)) as whole,
    ):
        monkeypatch.setattr(os, "rename", fails)
        directory.publish(whole, str(folder))
    assert (folder / "of").read_text() == "before" and os.listdir(tmp_path) == ["export"]


def test_failed_export_keeps_old(tmp_path):
    (tmp_path / "export").mkdir()
    with (
        pytest.raises(RuntimeError),
        directory.temporary_directory(str(tmp_path / "export")) as whole,
    ):
        Path(whole, "half").write_text("")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["export"]


def test_context_closes_parts():
    """A restored run closes its feeds when its context is left, also by an exception."""
    closed = []
    found = trained.RestoredRun(SimpleNamespace(close=lambda: closed.append(1)), "path", "words")
    with pytest.raises(KeyError), found as same:
        assert same is found and not closed
        raise KeyError
    assert closed == [1]
