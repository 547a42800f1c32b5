"""Builds a run's task, network, learning-rate schedule, loss scale and optimizer from options."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.data import cache_dir
from engine.config.schema import Config
from engine.models import properties
from engine.models.build import build_model
from engine.optim import build as optimizers
from engine.optim import schedules
from engine.optim.base import Optimizer
from engine.optim.freezing import FreezeAfter
from engine.optim.lookahead import Lookahead, SlowDecay
from engine.optim.precision import LossScale
from engine.optim.schedules import WarmupSchedule
from engine.runtime.user_code import place
from engine.tasks import build as tasks
from engine.tasks.task import Task

_EXAMPLES = 5000  # number of training examples from which weights are initialized


def build_network(config: Config, source: pipelines.Source, task: Task) -> tf.Module:
    """Builds the network that `--model` names, with initial weights that `--seed` determines.

    The network maps the inputs of `source` to the outputs that `task` needs. Raises the errors of
    `engine.models.build.build_model`.
    """
    return build_model(
        config.model.model,
        inputs=source.inputs,
        outputs=task.output_spec(source),
        seed=config.run.seed,
        hidden=config.model.hidden,
        arguments=config.arguments_of("model"),
    )


def initialize_from_data(config: Config, source: pipelines.Source, model: tf.Module) -> None:
    """Initializes the weights of a model that depend on training data, if it has such weights.

    A model has them if it has a method `initialize_from` and `is_initialized_from_data` is not
    False. The method is called with the inputs of the first training examples, 5,000 at most, after
    preprocessing: a nest of tensors [n, ...]. So the weights are a pure function of the data.

    Args:
      config: options of the run.
      source: data set, with fitted preprocessing.
      model: model in its initial state.

    Raises:
      ValueError: if an example is damaged.
      OSError: if a file of the data set cannot be read.
    """
    initialize = getattr(model, "initialize_from", None)
    if initialize is None or not getattr(model, "is_initialized_from_data", True):
        return
    indices = np.arange(min(len(source.train), _EXAMPLES))
    examples = pipelines.read_examples(source, source.train, indices, cache_dir(config))
    initialize(source.preprocess(tf.nest.map_structure(tf.constant, examples.inputs)))


def build_task(config: Config, source: pipelines.Source) -> Task:
    """Builds the task that the options specify, for the targets of a data set.

    Reads the labels of the training split if the class weights are balanced.

    Raises:
      ValueError: if an option does not fit the task or the data, or if the data is damaged.
      OSError: if a file of the training split cannot be read.
    """

    def labels() -> np.ndarray:
        return np.asarray(pipelines.read_targets(source, source.train, cache_dir(config)))

    return tasks.build_task(
        config.task, source, labels=labels, arguments=config.arguments_of("task")
    )


def build_views(
    config: Config, source: pipelines.Source, task: Task
) -> tuple[pipelines.WeightedView, ...]:
    """Returns the views of inputs that `--evaluation_views` selects; () without the option.

    Raises:
      ValueError: if the option is invalid, or does not apply to the data set or the task.
    """
    views = pipelines.views_of(config.evaluation.evaluation_views, source)
    if views and not task.averages_views:
        kind = type(task)
        raise ValueError(
            f"{place(kind)}--evaluation_views={config.evaluation.evaluation_views}: the task "
            f"{kind.__name__} does not say that the mean of outputs over views stands for the "
            "outputs: set averages_views = True in the class if it does, or leave the option out"
        )
    return views


def build_schedule(config: Config, steps: int) -> WarmupSchedule:
    """Builds the learning-rate schedule, including the warmup, of a run of `steps` steps.

    Raises the errors of `engine.optim.schedules.build_schedule`.
    """
    options = dataclasses.asdict(config.schedule)
    name, arguments = options.pop("schedule"), config.arguments_of("schedule")
    return schedules.build_schedule(name, total_steps=steps, arguments=arguments, **options)


def build_loss_scale(config: Config) -> LossScale:
    """Builds the loss scale that the options specify, at its initial value; creates variables."""
    options = config.precision
    return LossScale(
        options.precision,
        options.loss_scale,
        options.loss_scale_growth_steps,
        options.loss_scale_factor,
        options.loss_scale_floor,
    )


def build_optimizer(config: Config, model: tf.Module, steps: int) -> Optimizer:
    """Builds the optimizer that the options specify for a model, without slot variables.

    Args:
      config: options of the run.
      model: model to train.
      steps: number of steps of the run.

    Raises the errors of `engine.optim.build.build_optimizer` and of `FreezeAfter`.
    """
    options = config.optimizer
    variables = {
        name: variable
        for name, variable in properties.named_variables(model).items()
        if variable.trainable
    }
    optimizer = optimizers.build_optimizer(
        options.optimizer,
        learning_rate=config.schedule.learning_rate,
        momentum=options.momentum,
        momentum_of=options.momentum_of,
        rho=options.rho,
        beta_1=options.beta_1,
        beta_2=options.beta_2,
        epsilon=options.epsilon,
        weight_decay=options.weight_decay,
        weight_decay_kind=options.weight_decay_kind,
        weight_decay_variables=options.weight_decay_variables,
        learning_rate_multipliers=options.learning_rate_multipliers,
        variables=variables,
        arguments=config.arguments_of("optimizer"),
    )
    if options.lookahead:
        decay = SlowDecay(options.lookahead_decay, options.lookahead_power, steps)
        optimizer = Lookahead(optimizer, options.lookahead, decay)
    if options.freeze_after:
        optimizer = FreezeAfter(optimizer, options.freeze_after, variables)
    return optimizer
