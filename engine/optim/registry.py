"""The registries of optimizers and learning-rate schedules by name.

A factory is called with the options that have the names of its parameters, such as `beta_1`; other
keyword-only parameters of a factory that a user registers become flags, such as
`--optimizer.nesterov`. This module does not import TensorFlow, so that the names are known before
TensorFlow is imported.
"""

from __future__ import annotations

from engine.config.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "sgd": "engine.optim.fused:GradientDescent",
        "momentum": "engine.optim.fused:Momentum",
        "nesterov": "engine.optim.fused:nesterov",
        "rmsprop": "engine.optim.fused:RMSProp",
        "adam": "engine.optim.fused:Adam",
        "adamw": "engine.optim.fused:adamw",
        "lamb": "engine.optim.lamb:Lamb",
        "lion": "engine.optim.lion:lion",
        "muon": "engine.optim.muon:muon",
    },
    passed=("momentum", "momentum_of", "rho", "beta_1", "beta_2", "epsilon", "weight_decay"),
)

SCHEDULES = Registry(
    "schedule",
    {
        "constant": "engine.optim.schedules:constant",
        "cosine": "engine.optim.schedules:cosine",
        "linear": "engine.optim.schedules:linear",
        "piecewise_linear": "engine.optim.schedules:piecewise_linear",
        "piecewise_constant": "engine.optim.schedules:piecewise_constant",
        "step": "engine.optim.schedules:step_decay",
        "exponential": "engine.optim.schedules:exponential",
        "one_cycle": "engine.optim.schedules:one_cycle",
        "plateau": "engine.optim.plateau:plateau",
    },
    passed=(
        *("total_steps", "decay_rate", "decay_steps", "final_fraction", "schedule_points"),
        *("plateau_patience", "plateau_cooldown"),
    ),
)
