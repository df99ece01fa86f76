"""Training step of SiT against PyTorch on this machine, in interleaved rounds of one process.

    python -m benchmarks.train_step --tokens 16 64 256 --width 192 --depth 6 --rounds 7

One step is forward, flow-matching loss, backward, gradient clip, AdamW and EMA, in float32.
PyTorch runs eagerly and, unless `--no_compile`, through torch.compile, with its fused AdamW.
"""

import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F

from benchmarks.rounds import report, time_rounds
from benchmarks.torch_sit import TorchSiT, load
from sphere_jax.models.sit import SiT
from sphere_jax.nn.functional import Network

CHANNELS, CLASSES = 16, 10
BATCH = {16: 128, 64: 32, 256: 8}
RATE, DECAY, CLIP = 1e-4, 0.999, 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, help="default: head dimension 64, as all SiT sizes")
    parser.add_argument("--batch", type=int, help=f"default by tokens: {BATCH}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    heads = args.heads or max(1, args.width // 64)
    peak = matmul_peak()
    print(f"jax {jax.__version__} on {jax.default_backend()}, torch {torch.__version__}")
    print(f"{os.cpu_count()} threads, seed {args.seed}; matmul peak {peak / 1e9:.0f} GFLOP/s")
    for tokens in args.tokens:
        batch = args.batch or BATCH.get(tokens, max(1, 2048 // tokens))
        side = round(tokens**0.5)
        sizes = ((side, side, CHANNELS), 1, args.width, args.depth, heads, CLASSES)
        data = random_batch(batch, sizes[0], args.seed)
        params, jax_step = make_jax_step(sizes, data, args.seed)
        contenders = {"sphere_jax": jax_step, "torch eager": make_torch_step(sizes, params, data)}
        if not args.no_compile:
            try:
                step = make_torch_step(sizes, params, data, compile=True)
                step()
                contenders["torch.compile"] = step
            except Exception as error:  # no C++ compiler: say so and go on without
                print(f"torch.compile is not possible here: {str(error).splitlines()[0]}")
        times = time_rounds(contenders, args.rounds)
        title = (
            f"train step, {tokens} tokens, batch {batch}, width {args.width}, depth {args.depth}"
        )
        flops = 3 * batch * forward_flops(tokens, CHANNELS, args.width, args.depth)
        report(title, times, flops, peak)


def random_batch(batch: int, shape: tuple[int, int, int], seed: int) -> dict[str, np.ndarray]:
    """Data, noise, times and labels; the same arrays for both frameworks."""
    rng = np.random.default_rng(seed)
    return {
        "data": rng.standard_normal((batch, *shape), np.float32),
        "noise": rng.standard_normal((batch, *shape), np.float32),
        "t": rng.random(batch, np.float32),
        "labels": rng.integers(0, CLASSES, batch).astype(np.int32),
    }


def random_params(network: Network, seed: int):
    """Initial parameters with noise on every leaf, so that no zero gate spares any work."""
    params = jax.jit(network.init)(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(x + 0.02 * rng.standard_normal(x.shape, np.float32)), params
    )


def make_jax_step(sizes, data, seed):
    network = Network(lambda rngs: SiT(*sizes, rngs=rngs))
    params = random_params(network, seed)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=0.0))
    batch = {name: jnp.asarray(array) for name, array in data.items()}

    def loss(params, batch):
        t = batch["t"][:, None, None, None]
        z = (1 - t) * batch["data"] + t * batch["noise"]
        velocity = network.apply(params, z, batch["t"], batch["labels"])
        return jnp.mean((velocity - (batch["noise"] - batch["data"])) ** 2)

    @jax.jit(donate_argnums=0)
    def step(state, batch):
        params, ema, moments = state
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
        ema = optax.incremental_update(params, ema, 1 - DECAY)
        return (params, ema, moments), value

    state = [jax.tree.map(jnp.copy, (params, params, optimizer.init(params)))]

    def call():
        state[0], value = step(state[0], batch)
        value.block_until_ready()
        jax.block_until_ready(state[0])

    return params, call


def make_torch_step(sizes, params, data, compile=False):
    model = load(TorchSiT(*sizes), params)
    weights = list(model.parameters())
    ema = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
    batch = {name: torch.from_numpy(array) for name, array in data.items()}
    batch["labels"] = batch["labels"].long()
    network = torch.compile(model) if compile else model

    def call():
        t = batch["t"][:, None, None, None]
        z = (1 - t) * batch["data"] + t * batch["noise"]
        velocity = network(z, batch["t"], batch["labels"])
        loss = F.mse_loss(velocity, batch["noise"] - batch["data"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        torch._foreach_lerp_(ema, weights, 1 - DECAY)

    return call


def forward_flops(tokens: int, channels: int, width: int, depth: int) -> float:
    """Matmul FLOPs of one image forward: linears of the blocks, attention, adaLN, patches, head."""
    block = tokens * (2 * 12 * width**2 + 4 * tokens * width) + 2 * 6 * width**2
    ends = tokens * 2 * 2 * channels * width + 2 * (256 + width + 2 * width) * width
    return depth * block + ends


def matmul_peak(size: int = 2048, repeats: int = 8) -> float:
    """FLOP/s of the fastest float32 square matmul seen, in either framework."""
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    x, y = jnp.asarray(a), torch.from_numpy(a)
    product = jax.jit(jnp.dot)
    times = time_rounds(
        {"jax": lambda: product(x, x).block_until_ready(), "torch": lambda: y @ y}, repeats, 0.1
    )
    return 2 * size**3 / min(min(seconds) for seconds in times.values())


if __name__ == "__main__":
    main()
