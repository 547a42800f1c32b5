"""The cluster configuration, read from TF_CONFIG or Slurm's environment variables."""

from __future__ import annotations

import json

import pytest

from engine.distributed.cluster_config import ClusterConfig, expand_counts, expand_hosts, read

TWO = {"worker": ["a:2222", "b:2222"]}


def tf_config(cluster=None, job="worker", index=0) -> dict[str, str]:
    task = {"type": job, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": TWO if cluster is None else cluster, "task": task})}


def slurm(**changed: str) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "41",
        "SLURM_PROCID": "2",
        "SLURM_STEP_NODELIST": "n[01-02]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_STEP_NUM_TASKS": "4",
        **changed,
    }


def test_tf_config_workers():
    assert read("tf_config", tf_config(index=1)) == ClusterConfig(("a:2222", "b:2222"), 1)
    assert read("tf_config", tf_config()).is_chief
    assert not read("tf_config", tf_config(index=1)).is_chief


def test_chief_is_first_worker():
    cluster = {"worker": ["a:1", "b:1"], "chief": ["c:1"]}
    assert read("tf_config", tf_config(cluster, "chief")) == ClusterConfig(("c:1", "a:1", "b:1"), 0)
    assert read("tf_config", tf_config(cluster, "worker", 1)).task == 2


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "TF_CONFIG is not set"),
        ({"TF_CONFIG": "{"}, "cannot be read"),
        ({"TF_CONFIG": "[]"}, "cannot be read"),
        ({"TF_CONFIG": "{}"}, "cannot be read"),
        (tf_config({"worker": 3}), "cannot be read"),
        (tf_config({"worker": ["a:1"], "ps": ["b:1"]}), "has ps in its cluster"),
        (tf_config(index=2), "worker 2, is not in its cluster"),
        (tf_config(index=-1), "is not in its cluster"),
        (tf_config(job="evaluator"), "evaluator 0, is not in its cluster"),
        (tf_config({"worker": ["a", "b:1"]}), "'a' is not host:port"),
        (tf_config({"worker": ["a:0", "b:1"]}), "'a:0' is not host:port"),
        (tf_config({"worker": ["a:1", "a:1"]}), "listed twice"),
    ],
)
def test_refuses_bad_tf_config(environment, message):
    with pytest.raises(ValueError, match=message) as caught:
        read("tf_config", environment)
    assert "\n" not in str(caught.value)


def test_slurm_ports():
    """Slurm tasks on a host have different ports, from 12,000 to 31,999."""
    workers = ("n01:14870", "n01:14871", "n02:14870", "n02:14871")
    assert read("slurm", slurm()) == ClusterConfig(workers, 2)
    for job in range(0, 10**6, 997):
        cluster = read("slurm", slurm(SLURM_JOB_ID=str(job), SLURM_STEP_ID="3"))
        assert all(12_000 <= int(worker.split(":")[1]) < 32_000 for worker in cluster.workers)


def test_slurm_reserved_ports():
    reserved = read("slurm", slurm(SLURM_STEP_RESV_PORTS="12050-12051"))
    assert reserved.workers == ("n01:12050", "n01:12051", "n02:12050", "n02:12051")


def test_slurm_node_name():
    assert read("slurm", slurm(SLURMD_NODENAME="n02.cluster")).task == 2
    with pytest.raises(ValueError, match="--distribution=block"):
        read("slurm", slurm(SLURMD_NODENAME="n01"))


def test_older_slurm_names():
    environment = slurm()
    for new, old in {
        "SLURM_STEP_NODELIST": "SLURM_JOB_NODELIST",
        "SLURM_STEP_TASKS_PER_NODE": "SLURM_TASKS_PER_NODE",
        "SLURM_STEP_NUM_TASKS": "SLURM_NTASKS",
    }.items():
        environment[old] = environment.pop(new)
    assert read("slurm", environment) == read("slurm", slurm())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SLURM_PROCID": ""}, "SLURM_PROCID is not set; start the command by srun"),
        ({"SLURM_PROCID": "x"}, "is no number"),
        ({"SLURM_PROCID": "4"}, "no worker 4 among 4"),
        ({"SLURM_STEP_NUM_TASKS": "5"}, "5 tasks are not 2"),
        ({"SLURM_STEP_NODELIST": "n[01-"}, "cannot read"),
        ({"SLURM_STEP_NODELIST": "n[a]"}, "cannot read"),
        ({"SLURM_STEP_TASKS_PER_NODE": "two"}, "cannot read"),
        ({"SLURM_STEP_RESV_PORTS": "12050"}, "--resv-ports=2"),
    ],
)
def test_refuses_bad_slurm_environment(changed, message):
    with pytest.raises(ValueError, match=message):
        read("slurm", slurm(**changed))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-10]", ["n08", "n09", "n10"]),
        ("n[1,3-4],m[07],last", ["n1", "n3", "n4", "m07", "last"]),
        ("r[1-2]n[1-2].net", ["r1n1.net", "r1n2.net", "r2n1.net", "r2n2.net"]),
    ],
)
def test_slurm_host_lists(text, hosts):
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize(
    ("text", "counts"), [("1", [1]), ("2(x3),1", [2, 2, 2, 1]), ("4,2", [4, 2])]
)
def test_slurm_task_counts(text, counts):
    assert expand_counts(text) == counts
