"""The cluster configuration, from TF_CONFIG or from the environment of a Slurm job step.

This module does not import TensorFlow, so that an invalid environment fails at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple


class ClusterConfig(NamedTuple):
    """The "host:port" of each worker, the chief's first, and the index of this process."""

    workers: tuple[str, ...]
    task: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief."""
        return self.task == 0

    def name(self, worker: int) -> str:
        """Returns the display name of a worker: its index, host and port."""
        return f"worker {worker} ({self.workers[worker]})"

    def address(self, worker: int) -> tuple[str, int]:
        """Returns the host and the port of a worker; an IPv6 address is without brackets."""
        host, _, port = self.workers[worker].rpartition(":")
        return host.strip("[]"), int(port)


def read(kind: str, environment: Mapping[str, str]) -> ClusterConfig:
    """Returns the cluster configuration that environment variables define.

    Args:
      kind: value of `--cluster`. "tf_config": TF_CONFIG, in which a task of type "chief" precedes
        those of type "worker". "slurm": the variables of a Slurm job step, each task of which is a
        worker.
      environment: environment variables.

    Raises:
      ValueError: if the configuration is missing or invalid.
    """
    return {"tf_config": _from_tf_config, "slurm": _from_slurm}[kind](environment)


def _from_tf_config(environment: Mapping[str, str]) -> ClusterConfig:
    text = environment.get("TF_CONFIG", "")
    if not text:
        raise ValueError(
            "--cluster=tf_config: TF_CONFIG is not set; set it on every machine, such as "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        )
    try:
        config = json.loads(text)
        jobs = {name: list(map(str, hosts)) for name, hosts in config["cluster"].items()}
        job, index = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG: cannot be read ({type(error).__name__}: {error}); it must be JSON with "
            '"cluster" and "task"'
        ) from None
    if unknown := sorted(set(jobs) - {"chief", "worker"}):
        raise ValueError(
            f"TF_CONFIG: has {', '.join(unknown)} in its cluster; only chief and worker train here"
        )
    if job not in jobs or not 0 <= index < len(jobs[job]):
        raise ValueError(f"TF_CONFIG: its task, {job} {index}, is not in its cluster")
    chiefs = jobs.get("chief", [])
    workers = tuple(chiefs + jobs.get("worker", []))
    return _checked("TF_CONFIG", workers, index + (len(chiefs) if job == "worker" else 0))


def _from_slurm(environment: Mapping[str, str]) -> ClusterConfig:
    """Returns the cluster of a Slurm job step, whose tasks are the workers.

    The ports are those of `srun --resv-ports`, or otherwise derived from the IDs of the job and the
    step.

    Raises:
      ValueError: if a variable is missing or invalid, if too few ports are reserved, or if the
        tasks are not distributed in blocks.
    """
    nodes = _slurm(environment, "SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
    per_node = _slurm(environment, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    job = _slurm(environment, "SLURM_JOB_ID", "SLURM_JOBID")
    task = _slurm(environment, "SLURM_PROCID")
    count = _slurm(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    hosts, tasks = expand_hosts(nodes), expand_counts(per_node)
    if not (job + task + count).isdigit():
        raise ValueError(f"--cluster=slurm: job {job}, task {task} or tasks {count} is no number")
    if len(tasks) != len(hosts) or sum(tasks) != int(count):
        raise ValueError(f"--cluster=slurm: {count} tasks are not {per_node} on the hosts {nodes}")
    if reserved := environment.get("SLURM_STEP_RESV_PORTS"):
        ports = list(map(int, _expand_ranges(reserved)))
    else:  # below Linux's ephemeral ports, 32768 and up
        step = environment.get("SLURM_STEP_ID", "0")
        first = 12_000 + (7 * int(job) + int(step if step.isdigit() else 0)) % 1_900 * 10
        ports = list(range(first, first + max(tasks)))
    if len(ports) < max(tasks):
        raise ValueError(
            f"--cluster=slurm: {len(ports)} ports are reserved, and a machine has {max(tasks)} "
            f"tasks; give srun --resv-ports={max(tasks)}"
        )
    slots = [(host, port) for host, n in zip(hosts, tasks, strict=True) for port in ports[:n]]
    workers = tuple(f"{host}:{port}" for host, port in slots)
    config = _checked("--cluster=slurm", workers, int(task))
    actual, listed = environment.get("SLURMD_NODENAME", ""), slots[config.task][0]
    if actual and actual.split(".")[0] != listed.split(".")[0]:
        raise ValueError(
            f"--cluster=slurm: task {task} runs on {actual}, not on {listed}; start the workers "
            "with srun --distribution=block"
        )
    return config


def _slurm(environment: Mapping[str, str], *names: str) -> str:
    """Returns the value of the first of the variables `names` that is set and not empty.

    The name of a variable depends on the version of Slurm.

    Raises:
      ValueError: if no variable is set.
    """
    for name in names:
        if environment.get(name):
            return environment[name]
    raise ValueError(
        f"--cluster=slurm: {names[0]} is not set; start the command by srun, in a Slurm job"
    )


def expand_hosts(text: str) -> list[str]:
    """Returns the hosts of a Slurm host list: `a[01-03,7],b` is a01, a02, a03, a7 and b.

    Raises:
      ValueError: if the list is empty or invalid.
    """
    hosts: list[str] = []
    items = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text)
    for item in items:
        first, *rest = re.split(r"\[([^\]]*)\]", item)
        expanded = [first]
        for ranges, suffix in zip(rest[::2], rest[1::2], strict=True):
            expanded = [p + number + suffix for p in expanded for number in _expand_ranges(ranges)]
        hosts += expanded
    if ",".join(items) != text or not hosts:
        raise ValueError(f"--cluster=slurm: cannot read the list of hosts {text!r}")
    return hosts


def _expand_ranges(text: str) -> list[str]:
    """Returns the numbers of Slurm's ranges, as text: `01-03,7` is 01, 02, 03 and 7.

    Raises:
      ValueError: if the text is not a list of numbers and ranges.
    """
    numbers: list[str] = []
    for item in text.split(","):
        if not (match := re.fullmatch(r"(\d+)(?:-(\d+))?", item)):
            raise ValueError(
                f"--cluster=slurm: cannot read the numbers [{text}] in a list of hosts"
            )
        first, last = match[1], match[2] or match[1]
        numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return numbers


def expand_counts(text: str) -> list[int]:
    """Returns the number of tasks on each node from Slurm's text: `2(x3),1` is 2, 2, 2 and 1.

    Raises:
      ValueError: if the text is invalid.
    """
    counts: list[int] = []
    for item in text.split(","):
        if not (match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", item)):
            raise ValueError(f"--cluster=slurm: cannot read the tasks per node {text!r}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _checked(source: str, workers: tuple[str, ...], index: int) -> ClusterConfig:
    for worker in workers:
        host, _, port = worker.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{source}: worker {worker!r} is not host:port")
    if len(set(workers)) < len(workers):
        raise ValueError(f"{source}: a worker is listed twice in {', '.join(workers)}")
    if not 0 <= index < len(workers):
        raise ValueError(f"{source}: there is no worker {index} among {len(workers)}")
    return ClusterConfig(workers, index)
