import os
import subprocess
import sys
from pathlib import Path

from lab import runtime

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
from pathlib import Path
from lab import runtime
runtime.start(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
import jax
hits = []
def heard(name, **_):
    if name.endswith("cache_hits"):
        hits.append(name)
jax.monitoring.register_event_listener(heard)
def f(x):
    for i in range(12):  # long enough to compile that it is worth keeping, on a fast machine too
        x = jax.numpy.linalg.solve(x, jax.random.normal(jax.random.key(i), (8, 8)))
    return x
jax.jit(f)(jax.numpy.eye(8))
print(os.environ["XLA_FLAGS"], len(hits), jax.config.jax_compilation_cache_dir, sep="|")
"""


def run(*args: str, **env: str) -> list[str]:
    clean = {
        k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *args],
        cwd=ROOT,
        env=clean | env,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip().split("|")


def test_a_second_launch_does_not_compile(tmp_path):
    flags, hits, _ = run(str(tmp_path))
    assert hits == "0" and any(tmp_path.iterdir())
    assert flags.split() == [f"{name}={value}" for name, value in runtime.GPU_FLAGS.items()]
    _, hits, folder = run(JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert int(hits) >= 1 and folder == str(tmp_path)


def test_the_users_flags_win():
    name = "--xla_gpu_enable_triton_gemm"
    merged = runtime.flags(f"{name}=true --xla_dump_to=x").split()
    assert merged[:2] == [f"{name}=true", "--xla_dump_to=x"] and f"{name}=false" not in merged
    assert len(merged) == 1 + len(runtime.GPU_FLAGS)


def test_environment_says_where_a_number_came_from():
    found = runtime.environment()
    assert found["device"] == "cpu"
    assert {"jax", "optax", "flax"} <= set(found["versions"])


def test_revision(tmp_path, monkeypatch):
    monkeypatch.delenv("SCALELAB_REVISION", raising=False)
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "lab" / "runtime.py"))
    assert runtime.revision() == ""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path)]
    (tmp_path / "file").write_text("1")
    for args in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *args], check=True)
    clean = runtime.revision()
    assert len(clean) == 40
    if os.geteuid() == 0:  # a colleague's checkout
        os.chown(tmp_path, 60_001, -1)
        os.chown(tmp_path / ".git", 60_001, -1)
        foreign = subprocess.run(["git", "-C", str(tmp_path), "status"], capture_output=True)
        assert b"dubious ownership" in foreign.stderr and runtime.revision() == clean
    (tmp_path / "file").write_text("2")
    assert runtime.revision() == clean + "+dirty"
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "vendored" / "lab" / "runtime.py"))
    (tmp_path / "vendored").mkdir()
    assert runtime.revision() == "", "a copy inside another project's repository"
    monkeypatch.setenv("SCALELAB_REVISION", "0123abc")
    assert runtime.revision() == "0123abc", "a copy that says it"
