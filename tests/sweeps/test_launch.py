"""The launchers: the same study on local processes, on a real SLURM and on a real Ray gives the
same table.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ground import InputError
from sweeps.job import Job
from sweeps.launch import Running, local, slurm
from sweeps.store import Store, create
from tests.sweeps import slurm_cluster, toy

ROOT = Path(__file__).parents[2]
TRIALS = toy.trials(24)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TOY_TRACE", str(tmp_path / "trace"))
    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", TRIALS)
    return Job(
        store=str(store.path),
        study="toy",
        trainer="tests.sweeps.toy:train",
        workers=2,
        most=3,
        beat_seconds=0.25,
    )


def wait(running: Running, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while running.alive():
        assert time.monotonic() < end, "workers did not end in time"
        time.sleep(0.1)


def assert_complete(job: Job) -> None:
    store = Store(Path(job.store))
    assert [store.read(t.run_id).result for t in TRIALS] == [toy.descend(t) for t in TRIALS]
    lines = [line.split() for line in (store.path.parent / "trace").read_text().splitlines()]
    begins = [line for line in lines if line[0] == "begin"]
    assert all(line[3] == "new" for line in begins) and {line[1] for line in begins} == {
        t.run_id for t in TRIALS
    }


def processes(job: Job) -> int:
    """How many processes trained."""
    return len(
        {line.split()[2] for line in (Path(job.store).parent / "trace").read_text().splitlines()}
    )


# 1. local ----------------------------------------------------------------------------------------


def test_local_workers_share_a_study(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_PAUSE", "0.05")
    workers = local.launch(job, 2, Path(job.store) / "logs")
    assert workers.alive() == 2
    wait(workers)
    assert_complete(job)
    assert processes(job) == 2
    assert "published" not in (Path(job.store) / "logs" / "worker-0.log").read_text()


def test_local_workers_stop_and_say_so(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_PAUSE", "0.2")
    workers = local.launch(job, 2, Path(job.store) / "logs")
    while not (Path(job.store).parent / "trace").exists() or processes(job) < 2:
        time.sleep(0.02)
    workers.stop()
    assert [p.returncode for p in workers.processes] == [143, 143] and workers.alive() == 0
    assert not any((Path(job.store) / "workers").iterdir())


def test_cores_are_shared_out_without_overlap() -> None:
    assert [local.share_of_cores([0, 1, 2, 3, 4], i, 2) for i in range(2)] == [{0, 1}, {2, 3, 4}]
    assert [local.share_of_cores([4, 7], i, 4) for i in range(4)] == [{4}, {7}, {4}, {7}]


def test_gpus_are_those_that_the_user_left_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f")
    assert local.gpus() == ["3", "GPU-8f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.gpus() == []


def test_a_worker_imports_nothing_from_where_it_starts(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A json.py or a sweeps/ in the folder that the command is started from is not ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH")
    for name in ("json.py", "sweeps.py", "jax.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    workers = local.launch(job, 1, Path(job.store) / "logs")
    local.backend.cache_clear()
    assert local.backend() == "cpu"
    wait(workers)
    assert_complete(job)
    assert not (tmp_path / "owned").exists()
    unguarded = [sys.executable, "-c", "import json"]
    subprocess.run(unguarded, cwd=tmp_path, check=True)
    assert (tmp_path / "owned").exists(), "without -P it is imported"


# 2. SLURM ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm_conf() -> Iterator[str]:
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed (extra: slurm)")
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    with slurm_cluster.cluster(folder) as conf:
        yield conf
    shutil.rmtree(folder, ignore_errors=True)


def test_slurm_runs_the_same_study(
    job: Job, slurm_conf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm_conf)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TOY_PAUSE", "0.05")
    array = slurm.launch(
        job, 2, Path(job.store) / "logs", slurm.Slurm(partition="cpu", gres="gpu:1", minutes=5)
    )
    assert len(array.ids) == 2
    wait(array)
    assert_complete(job)
    assert processes(job) == 2, "both tasks of the array trained"


@pytest.mark.proof
@pytest.mark.parametrize("order", ["scancel --signal=USR2", "scontrol requeue"])
def test_slurm_requeues_a_worker(
    job: Job, slurm_conf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """The signal that SLURM sends ahead of the time limit, and a requeue as in a preemption: the
    worker ends, is queued again, finishes.
    """
    monkeypatch.setenv("SLURM_CONF", slurm_conf)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TOY_PAUSE", "0.1")
    array = slurm.launch(job, 1, Path(job.store) / "logs", slurm.Slurm(minutes=5))
    store = Store(Path(job.store))
    while not store.ids():
        time.sleep(0.1)
    subprocess.run([*order.split(), array.ids[0]], check=True)
    until = time.monotonic() + 30
    while array.states() != ["PENDING"]:
        assert time.monotonic() < until and array.alive() == 1, "the job was not queued again"
        time.sleep(0.1)
    assert 0 < len(store.ids()) < len(TRIALS) and not any((store.path / "workers").iterdir()), (
        "stopped in the middle"
    )
    # SLURM holds a requeued job back for two minutes; an administrator may bring that forward, once
    # its node has cleaned up
    time.sleep(1.5)
    subprocess.run(["scontrol", "update", f"JobId={array.ids[0]}", "StartTime=now"], check=True)
    wait(array)
    assert_complete(job)
    assert processes(job) == 2
    shown = subprocess.run(
        ["scontrol", "show", "job", array.ids[0]], capture_output=True, text=True, check=True
    ).stdout
    assert "Restarts=1" in shown


@pytest.mark.parametrize("value", ["cpu\n#SBATCH --uid=0", "a b", "x\r", "é"])
@pytest.mark.parametrize("field", ["partition", "gres", "memory"])
def test_a_job_file_takes_no_line_that_an_option_brings(field: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{field}=.*one word"):
        slurm.Slurm(**{field: value})


def test_what_slurm_will_unpickle_lies_where_nobody_else_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slurm.private(str(tmp_path / "a" / "b"))
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o770)
    with pytest.raises(InputError, match="mode 770.*run as you"):
        slurm.private(str(made))
    made.chmod(0o700)
    made.parent.chmod(0o777)
    with pytest.raises(InputError, match="others may write .*/a "):
        slurm.private(str(made))
    made.parent.chmod(0o1777)
    assert slurm.private(str(made)) == made, "as in /tmp: nobody else may rename it"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InputError, match="others may write .*/b .owner"):
        slurm.private(str(made))


# 3. Ray ------------------------------------------------------------------------------------------


@pytest.mark.proof
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed (extra: ray)"
)
@pytest.mark.parametrize("address", ["", "127.0.0.1:6399"])
def test_ray_runs_the_same_study(job: Job, address: str) -> None:
    """On a local Ray that the launcher starts, and on a running cluster that asks for a token, by
    its address.
    """
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom sweeps.launch import ray\nfrom "
        "sweeps.job import Job\nimport json\n"
        "tasks = ray.launch(Job(**json.loads(sys.argv[1])), 2, Path(sys.argv[3]), "
        "ray.Ray(address=sys.argv[2]))\n"
        "while tasks.alive(): time.sleep(0.1)\ntasks.stop()\n"
    )
    env = {
        **os.environ,
        "TOY_PAUSE": "0.1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
    }
    with contextlib.ExitStack() as stack:
        if address:
            stack.enter_context(ray_head(address.split(":")[1], env))
        command = [sys.executable, "-c", script, job.json(), address, f"{job.store}/logs"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_complete(job)
    assert processes(job) == 2
    assert '"done"' in (Path(job.store) / "logs" / "worker-1.log").read_text()


@contextlib.contextmanager
def ray_head(port: str, env: dict[str, str]) -> Iterator[None]:
    """A running cluster of this machine alone."""
    options = ["--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--block"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert head.stdout is not None
        while "Ray runtime started" not in (line := head.stdout.readline()):
            assert line, "ray start ended"
        yield
    finally:
        head.terminate()
        head.wait(timeout=60)
