"""What the interpreter of Hopper's kernels needs: one program after the other on the CPU, since it
and what is sent behind it may wait for each other without an end; and each kernel compiled once,
where JAX compiles it anew in every thread of every program."""

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


@pytest.fixture
def users_compiler():
    """For what holds of different programs as users' are compiled, with all optimizations."""
    of_others, population.PROGRAMS = population.PROGRAMS, Executables()
    hurried = jax.config.read("jax_disable_most_optimizations")
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", hurried)
    jax.clear_caches()
    population.PROGRAMS = of_others
