"""XLA flags, compile cache, distributed start, and what a result says about where it was made.
Called by entry points only.
"""

import functools
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Each flag with the measurement that justifies it, on one H200 in bf16: tokens/s of one trial
# against without it, or bytes in the program.
GPU_FLAGS = {
    # cuBLAS for every matmul: +6 % at (8192, 512, 8, 64x512), +3 % at (8192, 256, 6, 32x512)
    "--xla_gpu_enable_triton_gemm": "false",
    # Products that share an operand stay as the model has them: merged, their results are cut apart
    # and put together again by copies; without, elementwise kernels move 7 % fewer bytes at (8192,
    # 128, 4, 32x256) and at (50304, 768, 12, 32x1024), as compiled for an H200
    "--xla_gpu_dot_merger_threshold_mb": "0",
    # Kernels of a CUDA graph that need not wait for each other do not: +10 % at (8192, 128, 4,
    # 32x256), +2 % at (8192, 256, 6, 32x512), -1 % (noise) at (8192, 512, 8, 64x512)
    "--xla_gpu_command_buffer_scheduling_mode": "CONCURRENT",
    # Attention and the loop over steps are in that graph too, so the host starts one a dispatch:
    # +15 %, +4 % and +2 % more
    "--xla_gpu_enable_command_buffer": "+CUDNN,+DYNAMIC_SLICE_FUSION,+WHILE",
    "--xla_gpu_command_buffer_unroll_loops": "true",  # +0.5 %, +0.4 %, nothing
}


def start(cache: Path | None = None) -> None:
    """Set flags and the persistent compile cache, before the first use of JAX in the process.

    `XLA_FLAGS` of the user win, flag by flag. The cache is `cache`, else JAX_COMPILATION_CACHE_DIR,
    else ~/.cache/scalelab/xla (XDG_CACHE_HOME honoured); a second launch of the same program does
    not compile.
    """
    os.environ["XLA_FLAGS"] = flags(os.environ.get("XLA_FLAGS", ""))
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache or cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or base / "scalelab" / "xla")


def flags(given: str) -> str:
    """The user's flags, and those of ours that they do not name."""
    named = {flag.split("=")[0] for flag in given.split()}
    return " ".join(
        [
            *given.split(),
            *(f"{name}={value}" for name, value in GPU_FLAGS.items() if name not in named),
        ]
    )


def start_distributed() -> None:
    """Join the processes of one job: SLURM, a TPU pod, or JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    import jax

    if "JAX_NUM_PROCESSES" in os.environ:
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"],
            int(os.environ["JAX_NUM_PROCESSES"]),
            int(os.environ["JAX_PROCESS_ID"]),
        )
    else:
        jax.distributed.initialize()


@functools.cache
def environment() -> dict[str, Any]:
    """`device`, `code` and `versions` of a `Result`."""
    import jax

    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "device": jax.devices()[0].device_kind,
        "code": revision(),
        "versions": {name: version(name) for name in names},
    }


def revision() -> str:
    """SCALELAB_REVISION, as whoever made a copy (an export, an image) set it; else the git revision
    of this source, "+dirty" when its tree has changes; "" outside a repository."""
    if said := os.environ.get("SCALELAB_REVISION"):
        return said
    root = Path(__file__).resolve().parents[1]
    try:
        top, head = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top) == root:  # else a copy inside another project's repository
            return head + (
                "+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
            )
    except (OSError, subprocess.SubprocessError):
        pass
    return ""


def _git(root: Path, *args: str) -> str:
    """Of a checkout whoever owns it: its code runs in this process already."""
    git = ("git", "--no-optional-locks", "-c", f"safe.directory={root}", "-C", str(root))
    return subprocess.run(
        (*git, *args), check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()
