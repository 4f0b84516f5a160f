"""What one batch becomes on a mesh, and its digest; as a program, on the mesh of two processes.

python tests/devices.py PORT PROCESS_ID RESULTS.npz
"""

import hashlib
import json
import sys

import jax
import numpy as np
from helpers import both, mesh_of, sent
from jax.sharding import NamedSharding, PartitionSpec

from jaxmix import CutMix, Flip, Neighbour, Permutation, Roll, Swap

SHAPE = (16, 6, 4, 2)
PAIRINGS = {
    "swap": Swap(),
    "flip": Flip(),
    "flip-groups8": Flip(groups=8),
    "roll": Roll(),
    "permutation": Permutation(),
}


def images():
    """A batch with both zeros in it."""
    values = np.random.default_rng(0).random(SHAPE, np.float32)
    return np.where(values < 0.3, np.float32(-0.0), values)


def on_mesh(array, mesh):
    """The array split over the batch, of which each process has only its own rows in hand."""
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    held = {
        part[0].indices(len(array)) for part in rows.addressable_devices_indices_map(SHAPE).values()
    }
    local = np.concatenate([array[slice(*span)] for span in sorted(held)])
    return jax.make_array_from_process_local_data(rows, local, array.shape)


def mix(pairing, images):
    """What a plan holds, what it paints opaquely, and what it makes of the images."""
    plan = both(pairing).plan(jax.random.key(0), SHAPE)
    share = plan.weights(SHAPE)[..., None]
    drawn = plan.region.start, plan.region.stop, plan.opacity, plan.lam, plan.partner
    return (*drawn, (share == 0) | (share == 1), plan.images(images))


def results(mesh=None):
    """[start, stop, opacity, lam, partner, opaque, images] for each pairing."""
    array, shared = images(), None
    if mesh is not None:
        array, shared = on_mesh(array, mesh), NamedSharding(mesh, PartitionSpec())
    mixed = jax.jit(mix, static_argnums=0, out_shardings=shared)
    return {name: jax.device_get(mixed(pairing, array)) for name, pairing in PAIRINGS.items()}


def exchanged(mesh):
    """Images that each device mixed with its neighbour's, by a key of its own."""
    rows = PartitionSpec("batch")

    def step(images):
        key = jax.random.fold_in(jax.random.key(0), jax.lax.axis_index("batch"))
        return CutMix(pairing=Neighbour("batch"))(key, images)

    step = jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=rows)
    shared = NamedSharding(mesh, PartitionSpec())
    return jax.device_get(jax.jit(step, out_shardings=shared)(on_mesh(images(), mesh)))


def digest(name, result):
    """A hash of everything that must be the same to the bit: the draws and the opaque pixels."""
    *drawn, opaque, pixels = result
    if name == "permutation":  # A sum over devices of what each has loses the sign of -0.0.
        pixels = pixels + 0.0
    chosen = np.where(opaque, pixels, np.float32(0))
    content = hashlib.sha256()
    for array in (*drawn, opaque, chosen):
        content.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return content.hexdigest()


def main():
    """Prints the digests and what a call sends as JSON; process 0 saves the pixels."""
    port, process, path = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    digests, saved = {}, {}
    for axis_type in ("Auto", "Explicit"):
        mesh = mesh_of(8, axis_type)
        for name, result in results(mesh).items():
            digests[f"{axis_type}-{name}"] = digest(name, result)
            saved[f"{axis_type}-{name}"] = result[-1]
        digests[f"{axis_type}-sent"] = sent(
            both(Swap()), jax.random.key(0), on_mesh(images(), mesh)
        )
        neighbour = exchanged(mesh)
        digests[f"{axis_type}-neighbour"] = hashlib.sha256(neighbour.tobytes()).hexdigest()
    if process == "0":
        np.savez(path, **saved)
    print(json.dumps(digests))


if __name__ == "__main__":
    main()
