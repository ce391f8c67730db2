"""Workers as tasks of one SLURM array, through submitit: queued, requeued on preemption and at the
time limit.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ground import InputError, files
from sweeps.job import Job
from sweeps.launch import Child, environment

# of one worker at its time limit: a sweep may need many; a preempted one is requeued by SLURM,
# uncounted
REQUEUES = 100
ANSWER_SECONDS = 60.0  # of the controller: without one, ask again later

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
    private: str = ""
    """Folder for what the tasks run, which no other user may be able to write, on a file system
    that the nodes share; "" = ~/.local/state/scalelab/slurm."""

    def __post_init__(self) -> None:
        for name in ("partition", "gres", "memory"):
            if not re.fullmatch(r"[!-~]*", getattr(self, name)):
                raise InputError(
                    f"{name}={getattr(self, name)!r}: must be one word of letters, digits and signs"
                )
        for name in ("minutes", "cpus", "at_once"):
            if not 1 <= getattr(self, name) < 10**7:
                raise InputError(f"{name}={getattr(self, name)}: must be 1 to 10 million")


def private(folder: str) -> Path:
    """`ground.files.private`: what submitit unpickles in it runs as this user."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return files.private(Path(folder or Path(state) / "scalelab" / "slurm"))


class Task:
    """What submitit runs: one worker process. It calls `checkpoint` ahead of the time limit and on
    preemption, then requeues.
    """

    child: Child | None = None

    def __call__(self, job: str, log: Path) -> None:
        self.child = Child(job, log)
        self.child.wait()

    def checkpoint(self, job: str, log: Path) -> Any:
        from submitit.helpers import DelayedSubmission

        if self.child is not None:
            self.child.stop()
        return DelayedSubmission(Task(), job, log)


@dataclass
class Array:
    """Tasks under way, as squeue sees them (clusters without accounting have no sacct)."""

    ids: list[str]

    def states(self) -> list[str]:
        """What SLURM says of each task; one that it no longer knows has ended."""
        try:
            answer = subprocess.run(
                ["squeue", "-h", "-r", "-t", "all", "-o", "%i %T", "-j", self.ids[0].split("_")[0]],
                capture_output=True,
                text=True,
                timeout=ANSWER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return ["UNKNOWN"] * len(self.ids)
        # the controller is away: ask again later
        if answer.returncode and "Invalid job id" not in answer.stderr:
            return ["UNKNOWN"] * len(self.ids)
        states = dict(line.split() for line in answer.stdout.splitlines())
        return [states.get(i, "COMPLETED") for i in self.ids]

    def alive(self) -> int:
        return sum(state not in ENDED for state in self.states())

    def stop(self) -> None:
        if self.alive():
            order = ["scancel", self.ids[0].split("_")[0]]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(order, check=False, timeout=ANSWER_SECONDS)
        while self.alive():
            time.sleep(1)


def launch(job: Job, workers: int, logs: Path, slurm: Slurm) -> Array:
    """Submit `workers` tasks; their messages go to logs/worker-N.log, submitit's files to a private
    folder. The store must be on a shared file system.
    """
    try:
        import submitit
    except ImportError:
        raise InputError(
            "launcher='slurm': needs the extra 'slurm' (pip install 'scalelab[slurm]')"
        ) from None
    try:
        python = f"{shlex.quote(sys.executable)} -P"
        folder = private(slurm.private)
        executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES, python=python)
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
        setup=[f"export PYTHONPATH={shlex.quote(environment()['PYTHONPATH'])}"],
        **{k: v for k, v in asked.items() if v},
    )
    logs.mkdir(parents=True, exist_ok=True)
    each = [job.json()] * workers, [logs / f"worker-{i}.log" for i in range(workers)]
    return Array([str(j.job_id) for j in executor.map_array(Task(), *each)])
