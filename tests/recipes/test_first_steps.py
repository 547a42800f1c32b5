"""The first steps of each recipe have the losses that are kept in losses.json.

The kept losses are those of one processor. On others, sums of float32 round otherwise: without
oneDNN, held to AVX2 and with one thread, the losses differed by at most 6e-7 of themselves.
"""

from __future__ import annotations

import os

import pytest

from engine.config import flags
from tests.golden.runs import drift
from tests.recipes.first_steps import NAMES, RECIPES, STEPS, kept, losses

BOUND = 1e-5  # relative difference of a loss


def test_losses_of_every_recipe_are_kept():
    assert sorted(kept()) == NAMES


@pytest.mark.parametrize("recipe", NAMES)
def test_losses_of_first_steps(recipe, real_data, cache_dir):
    dataset = flags.parse([f"--flagfile={RECIPES / recipe}.flags"]).data.dataset
    if not os.path.isdir(os.path.join(real_data, dataset)):
        pytest.skip(f"{dataset} is not prepared in {real_data}")
    found = losses(recipe, real_data, cache_dir)
    assert len(found) == STEPS and drift(found, kept()[recipe]) <= BOUND
