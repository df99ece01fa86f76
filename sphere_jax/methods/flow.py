"""Flow matching between data latents and noise, in any space (arXiv 2605.15193; arXiv 2601.22904,
Algorithms 1 and 2; docs/systems/spherical_flow.md#objective, docs/systems/hae.md#flow).

The space defines path, tangent and step, so this file implements linear flow matching,
shell-linear, data-projected, polar, nlerp and slerp flow matching, Euclidean or Riemannian.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, Keys, Labels, OneKey, PerSample, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, SamplerOptions
from sphere_jax.geometry import sphere
from sphere_jax.geometry.spaces import Space
from sphere_jax.losses.cosine import cosine_distance
from sphere_jax.methods.base import Batch, Drawn, Loss, Method, Params, Passed, Pictures, Trace
from sphere_jax.methods.on_latents import OnLatents, OnLatentsOptions
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import (
    Guidance,
    Sampler,
    dimension_shift,
    noise_of,
    require_diffrax,
    sample,
    sample_times,
    unfit_solver,
)
from sphere_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class FlowOptions(OnLatentsOptions):
    method: str = "flow"
    tangent_projection: bool = option(True, help="compare only the tangent part of the prediction")
    radial_weight: float = option(0.0, 0.0, help="penalty on the radial part (HAE: 0.1)")
    loss_weight: Literal["none", "jacobi", "jacobi_reversed"] = option(
        "none", help="of the squared error along a geodesic (docs/systems/hae.md#rjf)"
    )
    direction_weight: float = option(
        0.0, 0.0, help="of 1 - cos of prediction and target, token by token (LightningDiT: 1)"
    )
    time_density: Literal["uniform", "logit_normal", "truncated_logit_normal"] = option(
        "uniform", help="of training times"
    )
    time_mean: float = option(0.0, help="of the logit")
    time_std: float = option(1.0, 1e-6, help="of the logit")
    time_low: float = option(0.0, 0.0, 1.0, help="truncation")
    time_high: float = option(1.0, 0.0, 1.0, help="truncation")
    time_shift: float = option(
        1.0, 0.0, help="of training times and the sampler's grid; 1 is off, 0: from the dimension"
    )


@dataclasses.dataclass(frozen=True)
class FlowSamplerOptions(SamplerOptions):
    steps: int = option(
        50, 1, swept=True, help="from noise to data; dopri5 chooses its own, and records so many"
    )
    solver: Literal["euler", "heun", "midpoint", "multistep", "euler_maruyama", "dopri5"] = option(
        "euler",
        swept=True,
        help="of the ODE; euler_maruyama: of SiT's SDE, dopri5: adaptive, both for path='linear'",
    )
    last_step: float = option(
        0.04, 1e-6, 0.999, swept=True, help="length of euler_maruyama's last step, which is a mean"
    )
    rtol: float = option(1e-3, 0.0, swept=True, help="relative tolerance of dopri5")
    atol: float = option(1e-6, 0.0, swept=True, help="absolute tolerance of dopri5")
    time_shift: float = option(
        0.0, 0.0, swept=True, help="of the grid of times; 1 is off, 0: that of training"
    )
    t_end: float = option(
        0.0, 0.0, 0.999, swept=True, help="where the last step ends, before the shift; 0 is data"
    )
    guidance_low: float = option(
        0.0, 0.0, 1.0, swept=True, help="guide from this time, 0 (data) to 1 (noise)"
    )
    guidance_high: float = option(1.0, 0.0, 1.0, swept=True, help="guide up to this time")
    guidance_channels: int = option(
        0, 0, swept=True, help="guide the first so many channels only; 0: all"
    )
    auto_guidance: str = option(
        "", path=True, help="run folder of a weaker network, used in place of the null label"
    )
    decode_radius: float = option(
        0.0, 0.0, swept=True, help="radius of the tokens that are decoded; 0: the space's own"
    )

    @property
    def weaker_run(self) -> str:
        return self.auto_guidance


def time_shift(options: FlowOptions, latent_shape: tuple[int, int, int]) -> float:
    """Of training times and of the sampler's grid alike."""
    return options.time_shift or dimension_shift(latent_shape)


def jacobi_weight(
    angles: Float[AnyArray, "batch rows"], t: PerSample, direction: str
) -> Float[AnyArray, "batch rows"]:
    """`(sin a / a)^2` (B, N), for angles (B, N) in rad between the ends and times (B,).

    Velocity errors along a geodesic spread as Jacobi fields, `sin a / a` after an arc a. The
    direction is "jacobi", `a = (1 - t) angle` as RJF's code has it: small weights near the data; or
    "jacobi_reversed", `a = t angle`, the arc left for a sampler (arXiv 2602.10099;
    docs/systems/hae.md#rjf).
    """
    left = 1.0 - t if direction == "jacobi" else t
    return sphere.sinc(left[:, None] * angles) ** 2


@dataclasses.dataclass(frozen=True)
class Flow(OnLatents):
    """A class-conditional velocity network on (projected) latents."""

    tokenizer: Tokenizer
    space: Space
    network: Network
    num_classes: int
    options: FlowOptions
    sampler: Sampler
    weaker: Network | None = None  # of auto-guidance; its parameters are params["weaker"]

    Options = FlowOptions
    SamplerOptions = FlowSamplerOptions
    shows_path = True

    @classmethod
    def title(cls, config: Config) -> str:
        return f"{config.space.path} flow matching"

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        super().check(config, name)
        stage, space = config.stage(name), config.space
        reason = config.network.unfit_space(config.model, space)
        check(not reason, f"config.model.{reason}")
        check(
            stage.loss_weight == "none" or space.path == "slerp",
            f"config.{name}.loss_weight='{stage.loss_weight}' measures arcs of a sphere: "
            "config.space.path='slerp'.",
        )
        check(
            stage.time_low < stage.time_high,
            f"config.{name}.time_low must be below time_high.",
        )
        check(
            stage.time_density != "uniform" or (stage.time_mean, stage.time_std) == (0, 1),
            f"config.{name}.time_mean and time_std need config.{name}.time_density='logit_normal', "
            "truncated or not.",
        )
        check(
            stage.time_density != "logit_normal" or (stage.time_low, stage.time_high) == (0, 1),
            f"config.{name}.time_low and time_high need "
            f"config.{name}.time_density='truncated_logit_normal'.",
        )

    @classmethod
    def check_sampler(cls, config: Config) -> None:
        sampler, space = config.sampler, config.space
        check(
            sampler.guidance_low <= sampler.guidance_high,
            "config.sampler.guidance_low must not exceed guidance_high.",
        )
        check(
            sampler.auto_guidance == "" or sampler.guidance != 1.0,
            f"config.sampler.auto_guidance={sampler.auto_guidance} does nothing at guidance "
            "1, which is off: set config.sampler.guidance above 1, or auto_guidance to ''.",
        )
        reason = unfit_solver(sampler.solver, space.path == "linear")
        check(
            not reason,
            f"config.sampler.solver='{sampler.solver}' {reason}: set config.space.path='linear', "
            "or another solver.",
        )
        check(
            sampler.solver != "euler_maruyama" or sampler.t_end == 0.0,
            "config.sampler.t_end must be 0 for solver='euler_maruyama', whose last step ends at "
            "the data.",
        )
        check(
            sampler.solver != "dopri5" or not config.evaluation.at_steps,
            "config.evaluation.at_steps has no meaning for solver='dopri5', which chooses its "
            "steps.",
        )
        check(
            sampler.decode_radius == 0.0 or (space.projects and space.sphere == "token"),
            "config.sampler.decode_radius needs tokens of one radius: config.space.sphere='token' "
            "and a path that ends there, not 'linear' or 'polar'.",
        )

    @classmethod
    def make_sampler(cls, config: Config, name: str, tokenizer: Tokenizer) -> Sampler:
        s = config.sampler
        channels, d = s.guidance_channels, tokenizer.latent_shape[-1]
        check(
            channels <= d,
            f"config.sampler.guidance_channels={channels} is more than the {d} channels of the "
            "latents; 0 guides all.",
        )
        guidance = Guidance(s.guidance, s.guidance_low, s.guidance_high, s.auto_guidance, channels)
        if s.solver == "dopri5":
            require_diffrax()
        return Sampler(
            s.solver,
            s.steps,
            s.time_shift or time_shift(config.stage(name), tokenizer.latent_shape),
            s.t_end,
            guidance,
            s.decode_radius,
            s.last_step,
            s.rtol,
            s.atol,
        )

    def guided_by(self, weaker: Method | None) -> "Flow":
        """Networks with another parameterization are already converted to velocities
        (`models.parameterization`)."""
        if not isinstance(weaker, Flow):
            raise ValueError("must be the run of a 'flow' stage")
        ours, theirs = self.tokenizer.latent_shape, weaker.tokenizer.latent_shape
        if ours != theirs:
            raise ValueError(f"has latents of shape {theirs}, not {ours}")
        if self.num_classes != weaker.num_classes:
            raise ValueError(f"has {weaker.num_classes} classes, not {self.num_classes}")
        if self._path != weaker._path:
            raise ValueError(f"learnt the velocities of {weaker.space}, not of {self.space}")
        return dataclasses.replace(self, weaker=weaker.network)

    @property
    def _path(self) -> Space:
        """Its space, whatever the retraction of the sampler."""
        space = self.space
        return dataclasses.replace(space, retraction="exp") if space.spherical else space

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: Keys) -> Loss:
        """`mean w |P v - u_t|^2 + radial_weight mean |v - P v|^2`, P the tangent projection at z_t.

        Latents (B, h, w, d) of the batch are normalised, not yet projected. The weight w is 1 or
        `jacobi_weight`; `velocity_error` among the metrics is without it. LightningDiT (arXiv
        2501.01423) adds `direction_weight mean (1 - cos(P v, u_t))` over tokens.
        """
        options = self.options
        noise_keys, time_keys, drop_keys = jax.vmap(lambda k: jax.random.split(k, 3))(keys).T
        z0 = self.space.project(self.latents_of(frozen, batch, keys))
        noise = noise_of(noise_keys, z0.shape[1:])
        t = sample_times(
            time_keys,
            options.time_density,
            options.time_mean,
            options.time_std,
            options.time_low,
            options.time_high,
            time_shift(options, z0.shape[1:]),
        )
        labels = self.drop_labels(drop_keys, batch["labels"])

        z1 = self.space.prior(noise)
        z_t, u_t = self.space.interpolate(z0, z1, t)
        v = self.network.apply(params["network"], z_t, t, labels)
        tangent, radial = self.space.split(z_t, v)
        compared = tangent if options.tangent_projection else v
        squares = (compared - u_t) ** 2
        velocity_error = weighted_error = jnp.mean(squares)
        if options.loss_weight != "none":
            weight = jacobi_weight(self.space.angles(z0, z1), t, options.loss_weight)
            weighted_error = jnp.mean(weight[..., None] * squares.reshape(*weight.shape, -1))
        radial_error = jnp.mean(radial**2)
        loss = weighted_error + options.radial_weight * radial_error
        metrics = {"velocity_error": velocity_error, "radial_error": radial_error}
        if options.direction_weight:
            metrics["direction_error"] = cosine_distance(compared, u_t, (3,))
            loss = loss + options.direction_weight * metrics["direction_error"]
        return loss, metrics

    def generate(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: Sampler
    ) -> tuple[Drawn, Trace]:
        """Latents on the space (B, h, w, d), and the mean `radius` after every step; of an adaptive
        solver, the `evaluations` of each sample too."""
        latents, along = self._sample(params, keys, labels, scale, sampler, trajectory=True)
        return self.space.project(latents), along

    def path(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: Sampler
    ) -> Passed:
        """Latents (steps + 1, B, h, w, d) from noise to data, on the space."""
        _, along = self._sample(params, keys, labels, scale, sampler, states=True)
        return jax.vmap(self.space.project)(along["states"])

    def _sample(self, params, keys, labels, scale, sampler, **wanted):
        return sample(
            partial(self.network.apply, params["network"]),
            self.space,
            noise_of(keys, self.tokenizer.latent_shape),
            labels,
            self.num_classes,
            sampler,
            scale if sampler.scale != 1.0 else None,
            weaker=self.weaker and partial(self.weaker.apply, params["weaker"]),
            keys=keys,
            **wanted,
        )

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """Without guidance where that needs a weaker network, which training does not load."""
        if self.sampler.guidance.auto:
            plain = dataclasses.replace(self.sampler, guidance=Guidance())
            return dataclasses.replace(self, sampler=plain).preview(params, frozen, batch, key)
        return super().preview(params, frozen, batch, key)


METHOD = Flow
