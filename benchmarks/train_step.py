"""Training step of SiT against PyTorch on this machine, in interleaved rounds of one process.

    python -m benchmarks.train_step --tokens 16 64 256 --width 192 --depth 6 --rounds 7

One step is forward, flow-matching loss, backward, gradient clip, AdamW and EMA, in float32; ours is
the project's own (`sphere_jax/training/step.py`), with its guard against non-finite gradients.
PyTorch runs eagerly and, unless `--no_compile`, through torch.compile, with its fused AdamW.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import rounds
from benchmarks.torch_sit import TorchSiT, load
from sphere_jax.config.options import FlowStage, Optimizer
from sphere_jax.models.sit import SiT
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step

CHANNELS, CLASSES = 16, 10
RATE, DECAY, CLIP = 1e-4, 0.999, 1.0


def main():
    args = rounds.parser(__doc__.splitlines()[0]).parse_args()
    clock, peak = rounds.start(args)
    for tokens in args.tokens:
        batch = args.batch or max(1, 2048 // tokens)
        sizes = network_sizes(args, tokens)
        data = random_batch(batch, sizes[0], args.seed)
        network = Network(lambda rngs, s=sizes: SiT(*s, unroll=True, rngs=rngs))
        params = random_params(network, args.seed)
        contenders = {
            "sphere_jax": jax_step(network, params, data),
            "torch eager": torch_step(sizes, params, data),
        }
        rounds.add_compiled(
            contenders,
            lambda s=sizes, p=params, d=data: torch_step(s, p, d, compiled=True),
            not args.no_compile,
        )
        times = rounds.time_rounds(contenders, args.rounds, clock)
        title = f"train step, {tokens} tokens, batch {batch}, width {args.width} x {args.depth}"
        flops = 3 * batch * rounds.forward_flops(tokens, CHANNELS, args.width, args.depth)
        rounds.report(title, times, flops, peak)


def network_sizes(args, tokens: int) -> tuple:
    """Positional arguments of SiT and of its PyTorch twin."""
    side = round(tokens**0.5)
    heads = args.heads or max(1, args.width // 64)
    return (side, side, CHANNELS), 1, args.width, args.depth, heads, CLASSES


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


def jax_step(network, params, data):
    def loss(params, frozen, batch, keys):
        t = batch["t"][:, None, None, None]
        z = (1 - t) * batch["data"] + t * batch["noise"]
        velocity = network.apply(params, z, batch["t"], batch["labels"])
        return jnp.mean((velocity - (batch["noise"] - batch["data"])) ** 2), {}

    stage = FlowStage(ema_decay=DECAY, optimizer=Optimizer(learning_rate=RATE, clip_norm=CLIP))
    method = types.SimpleNamespace(init=lambda key, frozen: params, loss=loss)
    optimizer = make_optimizer(stage.optimizer, stage.steps)
    step = jax.jit(
        make_train_step(method, stage, optimizer),
        donate_argnums=0,
        compiler_options=quick_products(),
    )
    batch = jax.tree.map(jnp.asarray, data)
    # Copied, because the step donates its state and `params` go to the other contenders too.
    state = jax.tree.map(jnp.copy, init_state(method, optimizer, jax.random.key(0), {}))

    def call():
        nonlocal state
        state, _ = step(state, {}, batch)
        jax.block_until_ready(state)

    return call


def torch_step(sizes, params, data, compiled=False):
    model = load(TorchSiT(*sizes), params)
    weights = list(model.parameters())
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
    batch = {name: torch.from_numpy(array) for name, array in data.items()}
    labels = batch["labels"].long()
    network = torch.compile(model) if compiled else model

    def call():
        t = batch["t"][:, None, None, None]
        z = (1 - t) * batch["data"] + t * batch["noise"]
        velocity = network(z, batch["t"], labels)
        loss = F.mse_loss(velocity, batch["noise"] - batch["data"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        torch._foreach_lerp_(average, weights, 1 - DECAY)

    return call


if __name__ == "__main__":
    main()
