"""What every process of a test run shares: a compile cache, thrown away at the end, since most of
the suite's time is the compiler's; and XLA's number of threads, since those of an interpreted
kernel, which wait for each other, may take all that a small machine has."""

import os
import shutil
import subprocess
import sys
import tempfile

# XLA's older code for fusions compiles in half the time and runs tiny programs as fast
QUICK = "--xla_cpu_use_fusion_emitters=false"
# with few tests that take long: first, so that no worker is left with one of them at the end
LONG = ("test_demo", "test_mesh", "test_launch", "test_audit", "test_training", "test_fuzz",
        "test_pages")  # fmt: skip


def pytest_configure(config):
    if "PYTEST_XDIST_WORKER" in os.environ:  # inherits all this, as the children of tests do
        return
    # thrown away at the end: every run of the tests compiles
    config.compile_cache = tempfile.mkdtemp(prefix="scalelab-xla-")
    if knows(QUICK):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": config.compile_cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "NPROC": "8",
        "JAX_NUMPY_RANK_PROMOTION": "raise",  # a shape that is wrong does not broadcast in silence
    }


def knows(flag):
    """Whether this version of XLA has the flag; it ends a process that names an unknown one."""
    env = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    ask = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(ask, env=env, capture_output=True).returncode == 0


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_unconfigure(config):
    if folder := getattr(config, "compile_cache", None):
        shutil.rmtree(folder, ignore_errors=True)
