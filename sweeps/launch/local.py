"""Workers on this machine: one process a GPU, or processes pinned to their share of the CPU's
cores.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.files import appending
from sweeps.job import Job
from sweeps.launch import command, environment


@dataclass
class Workers:
    """Processes under way."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def alive(self) -> int:
        return sum(p.poll() is None for p in self.processes)

    def stop(self) -> None:
        """Ask each to save what is unfinished and end (SIGTERM), and wait until they have; an
        interrupt of that ends them at once.
        """
        try:
            for process in self.processes:
                process.terminate()
                process.send_signal(signal.SIGCONT)  # a frozen one hears nothing
            for process in self.processes:
                process.wait()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def gpus() -> list[str]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves to us, by what that variable calls
    them.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [g for g in given.split(",") if g.strip()]
    return [str(i) for i in range(_listed())]


@functools.cache
def _listed() -> int:
    """What the driver counts; where nothing keeps it loaded, it takes a second or more to say."""
    try:
        lines = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in lines)


@functools.cache
def backend() -> str:
    """What JAX computes on here ("cpu", "gpu", "tpu"), asked in a process of its own: whoever asks
    holds the device.
    """
    ask = "import jax; print(jax.default_backend())"
    return subprocess.run(
        [sys.executable, "-P", "-c", ask], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def cores() -> list[int]:
    """The cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def share_of_cores(cores: list[int], index: int, count: int) -> set[int]:
    """The cores of worker `index` of `count`: equal runs of neighbours; a core is shared only when
    there are too few.
    """
    if count > len(cores):
        return {cores[index % len(cores)]}
    return set(cores[index * len(cores) // count : (index + 1) * len(cores) // count])


def launch(job: Job, workers: int, logs: Path) -> Workers:
    """Start `workers` processes of `sweeps.job`; their messages go to logs/worker-N.log.

    With GPUs each process sees one (several share it when there are more workers than GPUs);
    without, each is pinned to its cores, which makes one thread pool of each (two pinned processes
    train 1.2 to 1.6 times as much as one with two threads).
    """
    logs.mkdir(parents=True, exist_ok=True)
    devices = gpus()
    own = cores()
    started = Workers()
    try:
        _start(started, job, workers, logs, devices, own)
    except BaseException:
        started.kill()
        raise
    return started


def _start(
    started: Workers, job: Job, workers: int, logs: Path, devices: list[str], own: list[int]
) -> None:
    for i in range(workers):
        env = environment()
        if devices:
            env["CUDA_VISIBLE_DEVICES"] = devices[i % len(devices)]
        with appending(logs / f"worker-{i}.log") as out:
            # a session of its own: an interrupt at the terminal reaches only us, and `stop` lets
            # the worker save
            process = subprocess.Popen(
                command(dataclasses.replace(job, parent=os.getpid()).json()),
                env=env,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        started.processes.append(process)
        if own and not devices and workers > 1:
            with contextlib.suppress(ProcessLookupError):  # it ended at once
                os.sched_setaffinity(process.pid, share_of_cores(own, i, workers))
