"""Options of the network."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option
from engine.models.registry import NETWORKS


@dataclasses.dataclass(frozen=True)
class ModelOptions(OptionGroup):
    """Network.

    Options of the network; the first line is the heading in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    model: str = option("cnn", "network", choices=NETWORKS, trajectory=True, describes="network")
    hidden: tuple[int, ...] = option(
        (512, 512),
        "units of each hidden layer of the mlp",
        minimum=1,
        trajectory=True,
        describes="network",
    )
    recompute: str = option(
        "",
        "modules of the network, by names or patterns such as layers/*, whose forward pass is "
        "computed again in the backward pass, so that their activations take no memory; "
        "--mode=inspect lists the names; empty: none",
        trajectory=True,
    )
