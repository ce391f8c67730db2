"""Workers as tasks of one SLURM array, through submitit: queued, requeued on preemption and at the
time limit.
"""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ground import InputError
from sweeps.job import Job
from sweeps.launch import Child

# of one worker at its time limit: a sweep may need many; a preempted one is requeued by SLURM,
# uncounted
REQUEUES = 100

ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
)


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What to ask SLURM for, for each worker."""

    partition: str = ""
    """Partition of the cluster; "" = its default."""
    gres: str = ""
    """Generic resources, as in gpu:1."""
    minutes: int = 60
    """Time limit; a worker saves what it is at, and is queued again."""
    cpus: int = 1
    """Cores."""
    memory: str = ""
    """Memory, as in 16GB; "" = the cluster's default."""
    at_once: int = 256
    """Most workers that run at the same time."""


class Task:
    """What submitit runs: one worker process. It calls `checkpoint` ahead of the time limit and on
    preemption, then requeues.
    """

    child: Child | None = None

    def __call__(self, job: str) -> None:
        self.child = Child(job)
        self.child.wait()

    def checkpoint(self, job: str) -> Any:
        from submitit.helpers import DelayedSubmission

        if self.child is not None:
            self.child.stop()
        return DelayedSubmission(Task(), job)


@dataclass
class Array:
    """Tasks under way, as squeue sees them (clusters without accounting have no sacct)."""

    ids: list[str]

    def states(self) -> list[str]:
        """What SLURM says of each task; one that it no longer knows has ended."""
        answer = subprocess.run(
            ["squeue", "-h", "-r", "-t", "all", "-o", "%i %T", "-j", self.ids[0].split("_")[0]],
            capture_output=True,
            text=True,
        )
        # the controller is away: ask again later
        if answer.returncode and "Invalid job id" not in answer.stderr:
            return ["UNKNOWN"] * len(self.ids)
        states = dict(line.split() for line in answer.stdout.splitlines())
        return [states.get(i, "COMPLETED") for i in self.ids]

    def alive(self) -> int:
        return sum(state not in ENDED for state in self.states())

    def stop(self) -> None:
        if self.alive():
            subprocess.run(["scancel", self.ids[0].split("_")[0]], check=False)
        while self.alive():
            time.sleep(1)


def launch(job: Job, workers: int, logs: Path, slurm: Slurm) -> Array:
    """Submit `workers` tasks; submitit keeps its files and their messages in `logs`. The store must
    be on a shared file system.
    """
    try:
        import submitit
    except ImportError:
        raise InputError(
            "launcher='slurm': needs the extra 'slurm' (pip install 'scalelab[slurm]')"
        ) from None
    try:
        executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise InputError(
            f"launcher='slurm': {error}; is this a machine from which sbatch works?"
        ) from None
    asked = {"partition": slurm.partition, "gres": slurm.gres, "mem": slurm.memory}
    executor.update_parameters(
        job_name=f"scalelab-{job.study}",
        time=slurm.minutes,
        cpus_per_task=slurm.cpus,
        array_parallelism=slurm.at_once,
        signal_delay_s=min(90, 20 * slurm.minutes),
        additional_parameters={"requeue": True},
        **{k: v for k, v in asked.items() if v},
    )
    return Array([str(j.job_id) for j in executor.map_array(Task(), [job.json()] * workers)])
