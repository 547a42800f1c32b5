"""Options -> the network and what moves its weights: learning rate, update rule, loss scale."""

from __future__ import annotations

import models
import pipelines
from engine import optimizers, schedule
from engine.config import Config
from engine.numerics.precision import LossScale


def network_of(config: Config, source: pipelines.Source) -> models.Sequential:
    """The network as it starts, for a data set's images and classes."""
    return models.build(
        config.network.model,
        input_shape=source.image_shape,
        classes=source.classes,
        seed=config.run.seed,
        hidden=config.network.hidden,
    )


def schedule_of(config: Config, steps: int) -> schedule.Schedule:
    """The learning rate over a run of so many steps."""
    options = config.optimization
    return schedule.build(
        options.schedule,
        learning_rate=options.learning_rate,
        total_steps=steps,
        warmup_steps=options.warmup_steps,
        decay_rate=options.decay_rate,
        decay_steps=options.decay_steps,
        final_fraction=options.final_fraction,
    )


def loss_scale_of(config: Config) -> LossScale:
    """The loss scale, at its start; makes its variables."""
    options = config.precision
    return LossScale(
        options.precision,
        options.loss_scale,
        options.loss_scale_growth_steps,
        options.loss_scale_factor,
        options.loss_scale_floor,
    )


def optimizer_of(config: Config) -> optimizers.Optimizer:
    """The update rule, without its slots."""
    options = config.optimization
    return optimizers.build(
        options.optimizer,
        momentum=options.momentum,
        rho=options.rho,
        beta_1=options.beta_1,
        beta_2=options.beta_2,
        epsilon=options.epsilon,
        weight_decay=options.weight_decay,
    )
