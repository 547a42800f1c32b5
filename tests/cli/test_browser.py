"""Tests the report and TensorBoard in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import Browser, browser
from tests.cli.command import Command, Run, Warm
from tests.tensorboard import tensorboard

OPTIONS = ("--report", "--flagfile=quickstart.flags", "--epochs=4", "--histograms")
PICTURES = {
    *("samples_train", "samples_by_class", "predictions", "confusion_counts", "confusion_rows"),
    *("mistakes", "calibration"),
}

# All elements of the document, including those in shadow roots.
ALL = """(() => {
  const found = [];
  const walk = node => {
    for (const child of node.querySelectorAll('*')) {
      found.push(child);
      if (child.shadowRoot) walk(child.shadowRoot);
    }
  };
  walk(document);
  return found;
})()"""
TEXT = f"{ALL}.map(e => e.childElementCount ? '' : e.textContent.trim()).filter(t => t)"


@pytest.fixture(scope="module")
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run with a report and histograms."""
    return warm.train(tmp_path_factory.mktemp("seen") / "run", *OPTIONS)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory):
    """Yields a browser that the tests of this module share."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_report_renders(chromium: Browser, run: Run, tmp_path: Path):
    """Every figure of the report is visible, and the page has no errors."""
    page = chromium.open(f"file://{run.run_dir / 'report.html'}")
    names = {path.stem for path in (run.run_dir / "plots").glob("*.png")}
    shown = page.run(
        "[...document.images]"
        ".map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width])"
    )
    assert len(shown) == len(names) >= 12
    assert all(complete and natural > 200 and width > 200 for complete, natural, width in shown)
    # Nothing is wider than the window, not even on a phone.
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(tmp_path / "report.png", whole=True)
    narrow = chromium.open(f"file://{run.run_dir / 'report.html'}", width=390)
    assert narrow.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.errors == narrow.errors == []


def test_tensorboard_renders(chromium: Browser, command: Command, run: Run, tmp_path: Path):
    """TensorBoard draws charts, images, text, the graph, histograms and hparams."""
    with tensorboard(command, run.run_dir / "tensorboard", tmp_path / "log") as board:
        board.await_points(run)
        page = chromium.open(f"{board.address}#timeseries", height=3000)
        for tag in ("accuracy", "loss", "learning_rate", "gradient_norm", "confusion_counts"):
            page.until(f"{TEXT}.includes('{tag}')")
        page.until(f"{ALL}.filter(e => e.tagName === 'LINE-CHART').length")
        page.screenshot(tmp_path / "timeseries.png")
        assert page.errors == []
        assert set(board.get("plugin/images/tags")["."]) == PICTURES
        large = f"{ALL}.filter(e => e.tagName === 'IMG' && e.naturalWidth > 200)"
        for part, script in {
            "images": f"{large}.length >= 2",  # it expands the first two
            "text": f"{TEXT}.some(t => t.includes('--model=cnn'))",
            "hparams": f"{TEXT}.includes('learning_rate')",
            "graphs": f"{ALL}.filter(e => e.matches('g.node')).length",
            "histograms": f"{TEXT}.some(t => t.includes('weights'))",
        }.items():
            page = chromium.open(f"{board.address}#{part}")
            page.until(script)
            page.screenshot(tmp_path / f"{part}.png")
            assert page.errors == [], part
