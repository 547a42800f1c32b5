"""L7: one step is the same mathematics on 1 or N replicas."""

from __future__ import annotations

import pytest

from tests.harness import pictures, relative_difference, training


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "lamb", "muon"])
@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("examples", [40, 37])
def test_n_replicas_train_as_one_does_with_dropout_and_batch_norm(replicas, optimizer, examples):
    images, labels = pictures(examples)
    options = {"batch": 8, "optimizer": optimizer, "learning_rate": 0.001}
    alone = training(images, labels, **options).take(20)
    many = training(images, labels, replicas=replicas, **options).take(20)
    assert relative_difference(alone.weights(), many.weights()) < 2e-5
    ours, theirs = alone.state.sums.numpy(), many.state.sums.numpy()
    assert ours[1:3].tolist() == theirs[1:3].tolist()  # counts are exact
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
