"""What every process of a test run shares: a compile cache, thrown away at the end, since most of
the suite's time is the compiler's; and XLA's number of threads, since those of an interpreted
kernel, which wait for each other, may take all that a small machine has."""

import os
import shutil
import tempfile


def pytest_configure(config):
    if "PYTEST_XDIST_WORKER" in os.environ:  # inherits all this, as the children of tests do
        return
    # thrown away at the end: every run of the tests compiles
    config.compile_cache = tempfile.mkdtemp(prefix="scalelab-xla-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": config.compile_cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "NPROC": "8",
        "JAX_NUMPY_RANK_PROMOTION": "raise",  # a shape that is wrong does not broadcast in silence
    }


def pytest_unconfigure(config):
    if folder := getattr(config, "compile_cache", None):
        shutil.rmtree(folder, ignore_errors=True)
