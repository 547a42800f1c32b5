"""All options of a run, collected from the packages that read them.

Each option is a field of a frozen dataclass in the `options.py` of the package that reads it: the
flags, help, `config.flags` and docs are derived from it, with the first line of the dataclass's
docstring as the heading. The groups are imported on use, because their packages import this one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from engine.config.arguments import resolved, split_name
from engine.config.registry import import_attribute

if TYPE_CHECKING:
    from engine.assembly.options import DataOptions, RunOptions, TrainingOptions
    from engine.benchmark.options import BenchmarkOptions
    from engine.checkpoint.options import CheckpointOptions
    from engine.core.options import EvaluationOptions, LoopOptions, StoppingOptions
    from engine.distributed.options import DeviceOptions
    from engine.inspection.options import InspectionOptions
    from engine.logging.options import LoggingOptions
    from engine.models.options import ModelOptions
    from engine.optim.options import OptimizerOptions, PrecisionOptions, ScheduleOptions
    from engine.reporting.options import ReportOptions
    from engine.serving.options import ServingOptions
    from engine.tasks.options import TaskOptions
    from engine.trainer.options import BadStepOptions
    from engine.tune.options import TuneOptions


class _Group:
    """Default factory of a field of Config: an option group, whose class is imported on use.

    `path` "PACKAGE:NAME" stands for the class NAME in engine/PACKAGE/options.py. A call returns the
    group with the default values.
    """

    def __init__(self, path: str) -> None:
        package, _, name = path.partition(":")
        self._path = f"engine.{package}.options:{name}"

    def load(self) -> Any:
        return import_attribute(self._path)

    def __call__(self) -> Any:
        return self.load()()


@dataclasses.dataclass(frozen=True)
class Config:
    """The values of all options of a run, by group; options not given have their defaults.

    `arguments` holds the arguments of the registered functions that the options select, such as
    the model of a user, by the names of their flags: "model.depth".
    """

    run: RunOptions = field(default_factory=_Group("assembly:RunOptions"))
    data: DataOptions = field(default_factory=_Group("assembly:DataOptions"))
    model: ModelOptions = field(default_factory=_Group("models:ModelOptions"))
    task: TaskOptions = field(default_factory=_Group("tasks:TaskOptions"))
    optimizer: OptimizerOptions = field(default_factory=_Group("optim:OptimizerOptions"))
    schedule: ScheduleOptions = field(default_factory=_Group("optim:ScheduleOptions"))
    precision: PrecisionOptions = field(default_factory=_Group("optim:PrecisionOptions"))
    training: TrainingOptions = field(default_factory=_Group("assembly:TrainingOptions"))
    loop: LoopOptions = field(default_factory=_Group("core:LoopOptions"))
    devices: DeviceOptions = field(default_factory=_Group("distributed:DeviceOptions"))
    evaluation: EvaluationOptions = field(default_factory=_Group("core:EvaluationOptions"))
    stopping: StoppingOptions = field(default_factory=_Group("core:StoppingOptions"))
    bad_steps: BadStepOptions = field(default_factory=_Group("trainer:BadStepOptions"))
    checkpoints: CheckpointOptions = field(default_factory=_Group("checkpoint:CheckpointOptions"))
    logging: LoggingOptions = field(default_factory=_Group("logging:LoggingOptions"))
    report: ReportOptions = field(default_factory=_Group("reporting:ReportOptions"))
    serving: ServingOptions = field(default_factory=_Group("serving:ServingOptions"))
    inspection: InspectionOptions = field(default_factory=_Group("inspection:InspectionOptions"))
    benchmark: BenchmarkOptions = field(default_factory=_Group("benchmark:BenchmarkOptions"))
    tune: TuneOptions = field(default_factory=_Group("tune:TuneOptions"))
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def arguments_of(self, option: str) -> dict[str, Any]:
        """Returns the arguments of the function that an option selects, by parameter name.

        `option` is "model", "task", "dataset", "optimizer" or "schedule". The result is {} for a
        built-in function.
        """
        prefix = f"{option}."
        named = self.arguments.items()
        return {name.removeprefix(prefix): v for name, v in named if name.startswith(prefix)}


def sections() -> Iterator[tuple[str, Any]]:
    """Yields (name of a Config attribute, dataclass of the option group), in the docs' order."""
    for group in dataclasses.fields(Config):
        if isinstance(group.default_factory, _Group):
            yield group.name, group.default_factory.load()


def option_fields() -> Iterator[dataclasses.Field]:
    """Yields the dataclass fields of all options, in the order of docs/options.md."""
    for _, section in sections():
        yield from dataclasses.fields(section)


def option_values(config: Config) -> dict[str, Any]:
    """Returns the values of all options, and the arguments of registered functions, by name."""
    groups = [dataclasses.asdict(getattr(config, name)) for name, _ in sections()]
    return {k: value for group in (*groups, config.arguments) for k, value in group.items()}


def replaced(config: Config, **values: Any) -> Config:
    """Returns a copy of a Config with other values of options, by name.

    `values` may hold arguments of registered functions, too. Arguments of a function that is no
    longer selected are dropped.

    Raises:
      ValueError: for an invalid value.
    """
    kept = {name: value for name, value in config.arguments.items() if name not in values}
    arguments = {name: values.pop(name) for name in tuple(values) if split_name(name)}
    groups = {}
    for name, section in sections():
        names = [each.name for each in dataclasses.fields(section) if each.name in values]
        chosen = {option: values.pop(option) for option in names}
        groups[name] = dataclasses.replace(getattr(config, name), **chosen)
    assert not values, f"no such options: {', '.join(values)}"
    now, before = option_values(Config(**groups)), option_values(config)
    kept = {k: v for k, v in kept.items() if now[split_name(k)] == before[split_name(k)]}
    return Config(**groups, arguments=resolved({**now, **kept, **arguments}))


def changed(before: Config, now: Config, *affects: str) -> list[tuple[str, Any, Any]]:
    """Returns (option, value before, value now) of each option whose value differs.

    Only options whose effect is in `affects` count: "trajectory", "length", "record", "end" or "";
    see `option`. Arguments of registered functions affect the trajectory; those of a function that
    is selected in one configuration only do not count, because the option that selects it does.
    """
    old, new = option_values(before), option_values(now)
    options = [
        (each.name, old[each.name], new[each.name])
        for _, section in sections()
        for each in dataclasses.fields(section)
        if each.metadata["affects"] in affects
        and each.metadata["same"].get(old[each.name], old[each.name])
        != each.metadata["same"].get(new[each.name], new[each.name])
    ]
    shared = before.arguments.keys() & now.arguments.keys() if "trajectory" in affects else ()
    arguments = [
        (name, old[name], new[name])
        for name in now.arguments
        if name in shared
        and old[split_name(name)] == new[split_name(name)]
        and old[name] != new[name]
    ]
    return options + arguments
