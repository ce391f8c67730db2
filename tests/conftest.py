"""What every process of a test run shares: a compiler that hurries, since most of the suite's time
is the compiler's and its programs run once, on little; its cache, thrown away at the end; and XLA's
number of threads, since those of an interpreted kernel, which wait for each other, may take all
that a small machine has. And Python's: modules are compiled once, not by each of the many children,
and what lives as long as the run is not searched for garbage again and again."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile

# XLA's older code for fusions compiles in half the time and runs tiny programs as fast; one part
# of a program is compiled in less than the many parts that more cores would share
QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    " --xla_cpu_multi_thread_eigen=false"
)
# with few tests that take long: first, so that no worker is left with one of them at the end
LONG = ("test_demo", "test_mesh", "test_launch", "test_audit", "test_training", "test_fuzz",
        "test_pages", "test_table")  # fmt: skip


def knows(flag):
    """Whether this version of XLA has the flag; it ends a process that names an unknown one."""
    env = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    ask = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(ask, env=env, capture_output=True).returncode == 0


def prepare():
    """The cache's folder, thrown away at the end: every run of the tests compiles."""
    cache = tempfile.mkdtemp(prefix="scalelab-xla-")
    if knows(QUICK):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "NPROC": "8",
        "OPENBLAS_NUM_THREADS": "1",  # more wait for each other on matrices as small as a fit's
        "JAX_NUMPY_RANK_PROMOTION": "raise",  # a shape that is wrong does not broadcast in silence
    }
    return cache


# at once, since folders' own conftest files import JAX; workers inherit all this, as do children
CACHE = None if "PYTEST_XDIST_WORKER" in os.environ else prepare()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_unconfigure(config):
    if CACHE:
        shutil.rmtree(CACHE, ignore_errors=True)
