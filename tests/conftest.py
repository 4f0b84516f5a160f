"""Strict settings for every test: what passes here passes in any program.

pytest loads this file before it collects anything, so a bare `pytest` runs the doctests of the
package and of the guide under these settings too, while `pytest jaxmix` alone runs them under
JAX's defaults, as a reader would. They hold under both.
"""

import os

# Before jax is imported: it reads these only once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Workers share an accelerator.

import helpers
import hypothesis
import jax
import pytest

if jax.__version_info__ < (0, 11):
    # Before jax 0.11 XLA has two generators of loops for CPUs. The older one, which later versions
    # do not have, halves the time of these tests. An XLA_FLAGS that is given is left as it is.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", flags)
if "JAX_NUM_CPU_DEVICES" not in os.environ:
    jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# No clock, no chance and no files: the same examples on every run.
hypothesis.settings.register_profile(
    "jaxmix", derandomize=True, database=None, deadline=None, max_examples=30
)
hypothesis.settings.load_profile("jaxmix")

# Programs of their own, and a file that is read by a type checker.
collect_ignore = ["golden", "benchmarks", "mutations", "accelerator.py", "conformance.py"]
collect_ignore += ["user_types.py"]


# What a compiler makes of a program is seen here; elsewhere its optimisations take longer than they
# save. `JAX_DISABLE_MOST_OPTIMIZATIONS=0` has every program optimised.
OPTIMISED = (
    "test_compiled",
    "test_golden",
    "test_laws_eager",
    "test_sharding_traffic",
    "test_tpu",
)


@pytest.fixture(autouse=True, scope="module")
def _programs(request):
    """Compiles a module's programs as it needs them, and lets go of them at its end."""
    name = getattr(request.module, "__name__", "")
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
        jax.config.update("jax_disable_most_optimizations", name not in OPTIMISED)
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _memory():
    """Lets go of compiled programs before a process holds more than 0.7 GB."""
    yield
    helpers.let_go(0.7e9)
