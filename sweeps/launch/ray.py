"""Workers as Ray tasks: on a running cluster by its address, or on a local one that is started for
them.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ground import InputError
from sweeps.job import Job
from sweeps.launch import Child

# of a worker whose node died: what it had published is skipped, what it had claimed goes stale
RETRIES = 10
ANSWER_SECONDS = 10.0  # for an address to take a connection


@dataclass(frozen=True, kw_only=True)
class Ray:
    """What to ask Ray for, for each worker."""

    address: str = ""
    """Of a running cluster: "auto" on one of its nodes, HOST:PORT, or ray://HOST:PORT; "" = start a
    local one and stop it at the end. To a stated address Ray sends its token only with
    RAY_AUTH_MODE=token in the environment."""
    cpus: float = 1.0
    """Cores."""
    gpus: float = 0.0
    """GPUs."""


@dataclass
class Tasks:
    """Tasks under way."""

    refs: list[Any]

    def alive(self) -> int:
        import ray

        _, waiting = ray.wait(self.refs, num_returns=len(self.refs), timeout=0)
        if not waiting:
            ray.get(self.refs)  # raises what a task raised
        return len(waiting)

    def stop(self) -> None:
        import ray

        try:
            for ref in self.refs:
                ray.cancel(ref)  # an interrupt in the task, which ends its worker by SIGTERM
            ray.wait(self.refs, num_returns=len(self.refs))
        except BaseException:  # a second interrupt: no more waiting
            for ref in self.refs:
                ray.cancel(ref, force=True)
            raise
        finally:
            ray.shutdown()


def _work(job: str, log: Path) -> None:
    Child(job, log).wait()


def _answers(address: str) -> None:
    """Refuse a HOST:PORT where nothing answers, for which Ray would wait long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("", "auto", "local"):
        return
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise InputError(f"address={address!r}: must be auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise InputError(f"address={address!r}: nothing answers there ({error})") from None


def launch(job: Job, workers: int, logs: Path, ray_: Ray) -> Tasks:
    """Start `workers` tasks; their messages go to logs/worker-N.log.

    scalelab must be importable on the nodes, and the store on a file system that they share.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _answers(ray_.address)
    try:
        import ray
    except ImportError:
        raise InputError(
            "launcher='ray': needs the extra 'ray' (pip install 'scalelab[ray]')"
        ) from None
    try:
        if ray_.address:
            ray.init(address=ray_.address, log_to_driver=False)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=200 << 20,
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        hint = (
            ""
            if "RAY_AUTH_MODE" in os.environ
            else "; one that asks for a token (~/.ray/auth_token) needs RAY_AUTH_MODE=token"
        )
        raise InputError(
            f"address={ray_.address!r}: no Ray cluster there ({str(error).splitlines()[0]}){hint}"
        ) from None
    task = ray.remote(num_cpus=ray_.cpus, num_gpus=ray_.gpus, max_retries=RETRIES)(_work)
    logs.mkdir(parents=True, exist_ok=True)
    return Tasks([task.remote(job.json(), logs / f"worker-{i}.log") for i in range(workers)])
