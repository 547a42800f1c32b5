"""The benchmark of evaluation: its table is that of its figures, and other results are seen."""

from __future__ import annotations

import json

from benchmarks import evaluation
from benchmarks.rounds import HERE

W6 = evaluation.NETWORKS["W6"]


def test_table_is_of_figures():
    results = json.loads((HERE / evaluation.RAW).read_text())
    assert "\n".join(evaluation.written(results)) + "\n" == (HERE / "EVALUATION.md").read_text()


def test_other_results_are_seen():
    def found(loss, accuracy):
        return {"final": {"a": {"loss": 2.0, "accuracy": 0.5}, "b": {**loss, **accuracy}}}

    one = {"accuracy": 0.5 + 1 / W6.examples}  # an example on the border of two classes
    assert evaluation.agree(found({"loss": 2.0001}, one), W6)
    assert not evaluation.agree(found({"loss": 2.001}, one), W6)
    assert not evaluation.agree(found({"loss": 2.0}, {"accuracy": 0.501}), W6)


def test_contenders_of_each_network(tmp_path):
    for name, network in evaluation.NETWORKS.items():
        made = evaluation.contenders(name, tmp_path, "data", tmp_path / "weights.npz", True)
        assert [each.name for each in made] == list(evaluation.SHORT.values())
        assert len(made[-1].variants) == len(network.batches)
