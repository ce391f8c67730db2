"""One program after the other on the CPU: the interpreter of Hopper's kernels and what is sent behind it may wait for each other without an
end."""

import jax

jax.config.update("jax_cpu_enable_async_dispatch", False)
