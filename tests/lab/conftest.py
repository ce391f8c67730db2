"""What the interpreter of Hopper's kernels needs: one program after the other on the CPU, since it
and what is sent behind it may wait for each other without an end; and each kernel compiled once,
where JAX compiles it anew in every thread of every program."""

import contextlib
import threading
from functools import partial

import jax
import pytest
from jax._src.pallas.mosaic.interpret import thread_map  # not public

from lab import population
from lab.executables import Executables

jax.config.update("jax_cpu_enable_async_dispatch", False)

compiling, compiled = threading.Lock(), {}


def run(jaxpr, consts, *args):
    with compiling:
        if jaxpr not in compiled:
            compiled[jaxpr] = (
                jax.jit(partial(jax.core.eval_jaxpr, jaxpr)).lower(consts, *args).compile()
            )
    compiled[jaxpr](consts, *args)


assert hasattr(thread_map, "_run_jaxpr")  # else all this is out of date
thread_map._run_jaxpr = run


PROGRAMS = {quick: Executables() for quick in (True, False)}


@contextlib.contextmanager
def compiler(quick):
    """Programs compiled so, none of them found by other folders' tests."""
    of_others, population.PROGRAMS = population.PROGRAMS, PROGRAMS[quick]
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()
    population.PROGRAMS = of_others


@pytest.fixture(scope="module", autouse=True)
def quick_compiler():
    """These tests' time is the compiler's: their programs run once, on little."""
    with compiler(quick=True):
        yield


@pytest.fixture
def users_compiler():
    """For what holds of different programs as they are compiled elsewhere."""
    with compiler(quick=False):
        yield
