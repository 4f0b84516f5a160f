"""Strict settings for every test: what passes here passes in anybody's program.

pytest loads this file before it collects anything, so a bare `pytest` runs the doctests of the
package and of the README under these settings too, while `pytest jaxmix` or `pytest README.md`
alone runs them under JAX's defaults, as a reader would. They hold under both.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # Before jax is imported: it reads this only once.

import hypothesis
import jax
import pytest

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
collect_ignore = ["golden", "benchmarks", "mutations", "user_types.py"]


@pytest.fixture(autouse=True, scope="module")
def _clear_caches():
    """Lets go of a module's compiled programs.

    A process that keeps those of all modules grows to five gigabytes, and slow.
    """
    yield
    jax.clear_caches()
