"""A SLURM of one node on this machine, started and stopped by hand: munged, slurmctld, slurmd.
Needs root and Debian's slurm-wlm, munge.

Two partitions: what is queued in `urgent` preempts what runs in `cpu`, which is queued again.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes={host} PriorityTier=9 MaxTime=INFINITE State=UP
"""
# two that SLURM counts and nobody opens: what `--gres` asks for
GRES = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"


def missing() -> str:
    """Why no SLURM can be started here; "" when it can."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            return f"{program} is not installed (Debian: slurm-wlm, munge)"
    if os.geteuid() != 0:
        return "starting slurmd by hand needs root"
    try:
        if not socket.gethostbyname(socket.gethostname().split(".")[0]).startswith("127."):
            return "the host's name must resolve to a loopback address"
    except OSError:
        return "the host's name does not resolve"
    return ""


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """SLURM_CONF of a cluster with state in `folder` (a short path: its socket's name is limited to
    108 bytes).
    """
    for name in ("run", "ctld", "d"):
        (folder / name).mkdir(parents=True)
    for path in (folder, folder / "run"):
        path.chmod(0o755)
    key, conf = folder / "munge.key", folder / "slurm.conf"
    (folder / "gres.conf").write_text(GRES)
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    conf.write_text(CONF.format(host=host, folder=folder, cpus=os.cpu_count()))
    env = {**os.environ, "SLURM_CONF": str(conf), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    munge = [
        f"--{k}={folder}/{v}"
        for k, v in (
            ("key-file", "munge.key"),
            ("socket", "run/munge.socket"),
            ("pid-file", "run/munged.pid"),
            ("log-file", "munged.log"),
            ("seed-file", "munged.seed"),
        )
    ]
    try:
        for command in (
            ["munged", "--force", *munge],
            ["slurmctld", "-f", str(conf)],
            ["slurmd", "-f", str(conf), "-N", host],
        ):
            subprocess.run(command, env=env, check=True, capture_output=True)
        deadline = time.monotonic() + 30
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=env, capture_output=True, text=True
            ).stdout
        ):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no idle node: {(folder / 'slurmctld.log').read_text()[-2000:]}"
                )
            time.sleep(0.2)
        yield str(conf)
    finally:
        subprocess.run(["scancel", "-u", "root"], env=env, capture_output=True)
        time.sleep(1)
        for name in ("slurmd", "slurmctld", "munged"):
            if (pid := folder / "run" / f"{name}.pid").exists():
                subprocess.run(["kill", pid.read_text().strip()], capture_output=True)
