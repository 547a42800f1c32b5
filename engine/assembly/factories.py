"""Builds the network, the schedule, the optimizer and the loss scale from the options."""

from __future__ import annotations

import pipelines
from engine import models
from engine.config.schema import Config
from engine.optim import registry, schedules
from engine.optim.base import Optimizer
from engine.optim.precision import LossScale


def build_network(config: Config, source: pipelines.Source) -> models.Sequential:
    """Returns the network with its initial weights, for the images and classes of a data set."""
    return models.build(
        config.network.model,
        input_shape=source.image_shape,
        classes=source.classes,
        seed=config.run.seed,
        hidden=config.network.hidden,
    )


def build_schedule(config: Config, steps: int) -> schedules.Schedule:
    """Returns the learning rate schedule of a run of `steps` steps."""
    options = config.optimization
    return schedules.build(
        options.schedule,
        learning_rate=options.learning_rate,
        total_steps=steps,
        warmup_steps=options.warmup_steps,
        decay_rate=options.decay_rate,
        decay_steps=options.decay_steps,
        final_fraction=options.final_fraction,
    )


def build_loss_scale(config: Config) -> LossScale:
    """Returns the loss scale at its initial value; creates its variables."""
    options = config.precision
    return LossScale(
        options.precision,
        options.loss_scale,
        options.loss_scale_growth_steps,
        options.loss_scale_factor,
        options.loss_scale_floor,
    )


def build_optimizer(config: Config) -> Optimizer:
    """Returns the optimizer, without its slots."""
    options = config.optimization
    return registry.build(
        options.optimizer,
        momentum=options.momentum,
        rho=options.rho,
        beta_1=options.beta_1,
        beta_2=options.beta_2,
        epsilon=options.epsilon,
        weight_decay=options.weight_decay,
    )
