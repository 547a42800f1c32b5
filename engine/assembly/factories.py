"""Factories of the network, the schedule, the optimizer and the loss scale, by the options."""

from __future__ import annotations

import dataclasses

import pipelines
from engine.config.schema import Config
from engine.models.build import build_model
from engine.models.sequential import Sequential
from engine.optim import build as optimizers
from engine.optim import schedules
from engine.optim.base import Optimizer
from engine.optim.precision import LossScale
from engine.optim.schedules import WarmupSchedule


def build_network(config: Config, source: pipelines.Source) -> Sequential:
    """Returns the network with initial weights, for a data set's image shape and classes."""
    return build_model(
        config.model.model,
        input_shape=source.image_shape,
        classes=source.classes,
        seed=config.run.seed,
        hidden=config.model.hidden,
    )


def build_schedule(config: Config, steps: int) -> WarmupSchedule:
    """Returns the learning rate schedule, warmup included, of a run of `steps` steps."""
    options = dataclasses.asdict(config.schedule)
    name, arguments = options.pop("schedule"), config.arguments_of("schedule")
    return schedules.build_schedule(name, total_steps=steps, arguments=arguments, **options)


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
    """Returns the optimizer; its slot variables are not created yet."""
    options = config.optimizer
    return optimizers.build_optimizer(
        options.optimizer,
        learning_rate=config.schedule.learning_rate,
        momentum=options.momentum,
        rho=options.rho,
        beta_1=options.beta_1,
        beta_2=options.beta_2,
        epsilon=options.epsilon,
        weight_decay=options.weight_decay,
        arguments=config.arguments_of("optimizer"),
    )
