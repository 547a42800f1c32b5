"""The initial training state of a run: network, EMA, optimizer slots and counters."""

from __future__ import annotations

import tensorflow as tf

import pipelines
from engine.assembly import device_memory, factories
from engine.config.schema import Config
from engine.core.state import TrainState
from engine.optim.schedules import WarmupSchedule
from engine.tasks.task import Task


def initial_state(
    config: Config,
    source: pipelines.Source,
    task: Task,
    schedule: WarmupSchedule,
    steps: int,
    strategy: tf.distribute.Strategy,
) -> TrainState:
    """Builds the network, its EMA if there is one, the optimizer and its slots.

    Args:
      config: options of the run.
      source: data set, from whose training examples some layers are initialized.
      task: task to train.
      schedule: schedule of the learning rate.
      steps: number of steps of the run.
      strategy: strategy that places the variables.

    Raises:
      ValueError: for an option that does not fit the data set or the model.
      RuntimeError: if a device has no memory for the state.
    """
    with strategy.scope(), device_memory.memory_for(_advice(config)):
        model = factories.build_network(config, source, task)
        factories.initialize_from_data(config, source, model)
        ema_model = factories.build_network(config, source, task) if config.optimizer.ema else None
        if ema_model is not None:  # the EMA starts from the model's initial weights
            for average, variable in zip(ema_model.variables, model.variables, strict=True):
                average.assign(variable)
        optimizer = factories.build_optimizer(config, model, steps)
        optimizer.create_slots(model.trainable_variables)
    return TrainState(
        model,
        optimizer,
        task.metrics,
        ema=ema_model,
        plateau=schedule.plateau,
        make_loss_scale=lambda: factories.build_loss_scale(config),
    )


def _advice(config: Config) -> str:
    """Returns what to reduce when a device has no memory for the state."""
    ema = ", and without --ema" if config.optimizer.ema else ""
    return (
        f"the weights and the slots of --optimizer={config.optimizer.optimizer} need more: give a "
        f"smaller model, or an optimizer with fewer slots, such as sgd{ema}"
    )
