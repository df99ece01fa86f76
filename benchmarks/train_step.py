"""Training step of SiT against PyTorch on this machine, in interleaved rounds of one process.

    python -m benchmarks.train_step --tokens 16 64 256 --width 192 --depth 6 --rounds 7

One step is forward, flow-matching loss, backward, gradient clip, AdamW and EMA, in float32; ours is
that of every training run (`sphere_jax/training/step.py`), with its guard against non-finite
gradients. PyTorch, if it is installed, runs eagerly and, unless `--no_compile`, through
torch.compile, with its fused AdamW. The first step of each turn is not timed.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from benchmarks import sit_cases, smoke
from benchmarks.sit_cases import Case
from sphere_jax.cli import run_command
from sphere_jax.config.options import OptimizerOptions, StageOptions
from sphere_jax.methods.base import Method
from sphere_jax.nn.compilation import quick_products
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step

if TYPE_CHECKING:
    from benchmarks.torch_way import TorchWay

RATE, DECAY, CLIP = 1e-4, 0.999, 1.0


def main(argv: list[str]) -> None:
    args = smoke.parse(sit_cases.flags(__doc__.splitlines()[0]), argv, lambda: sit_cases.SMOKE)
    title = "train step, {tokens} tokens, batch {batch}, width {width} x {depth}"
    sit_cases.compare(args, jax_step, torch_step, title, passes=3, settle=1)


class GivenFlow(Method):
    """Flow matching on straight paths: data, noise and times are those of the batch."""

    trains = ("network",)

    def __init__(self, case: Case):
        self.case = case

    def init(self, key, frozen):
        return {"network": self.case.params}

    def loss(self, params, frozen, batch, keys):
        t = batch["t"][:, None, None, None]
        z = (1 - t) * batch["data"] + t * batch["noise"]
        velocity = self.case.network.apply(params["network"], z, batch["t"], batch["labels"])
        return jnp.mean((velocity - (batch["noise"] - batch["data"])) ** 2), {}


def jax_step(case: Case, repeats: int = 1):
    """`repeats` steps a call."""
    method = GivenFlow(case)
    optimizer_options = OptimizerOptions(learning_rate=RATE, clip_norm=CLIP)
    options = StageOptions(ema_decay=DECAY, optimizer=optimizer_options)
    optimizer = make_optimizer(options.optimizer, options.steps)
    step = jax.jit(
        make_train_step(method, options, optimizer),
        donate_argnums=0,
        compiler_options=quick_products(),
    )
    batch = jax.tree.map(jnp.asarray, case.data)
    # Copied, because the step donates its state and the parameters go to the other contenders too.
    state = jax.tree.map(jnp.copy, init_state(method, optimizer, jax.random.key(0), {}))

    def call():
        nonlocal state
        for _ in range(repeats):
            state, _ = step(state, {}, batch)
        jax.block_until_ready(state)

    return call


def torch_step(case: Case, compiled: bool, how: "TorchWay | None" = None, repeats: int = 1):
    """As `jax_step`; `how` is where and in which precision PyTorch runs."""
    import torch
    import torch.nn.functional as F

    from benchmarks.torch_way import TorchWay

    how = how or TorchWay()
    network, weights, batch = how.prepare(case, compiled)
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
    labels = batch["labels"].long()

    def step():
        t = batch["t"][:, None, None, None]
        z = (1 - t) * batch["data"] + t * batch["noise"]
        with how.precision():
            velocity = network(z, batch["t"], labels)
        loss = F.mse_loss(velocity.float(), batch["noise"] - batch["data"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        torch._foreach_lerp_(average, weights, 1 - DECAY)

    def call():
        for _ in range(repeats):
            step()
        how.wait()

    return call


if __name__ == "__main__":
    run_command(main)
