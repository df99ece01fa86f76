"""What `benchmarks.accelerator_study` makes of its flows: samples, pictures, Fréchet distances."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.study_parts import ARMS, Arm, Study, load, slices
from sphere_jax.evaluation.features.efficientnet_lite0 import FEATURES
from sphere_jax.evaluation.features.published import PublishedFeatures
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.statistics import Statistics, Stream
from sphere_jax.nn.functional import Params
from sphere_jax.nn.pixels import to_uint8
from sphere_jax.sampling import sample_keys
from sphere_jax.tokenizers.tiny_vae import TinyVAE
from sphere_jax.weights.catalogue import catalogue

SHOWN = 8  # samples of a class and flow, at most
Samples = dict[str, list[jax.Array]]  # latents of each arm, in batches of --draw


def samples(study: Study, flows: dict[str, Params]) -> Samples:
    """Sample i is of class i modulo their number, and of the same noise for every arm."""
    count, size = study.args.samples, study.args.draw
    found = {}
    for arm in ARMS:
        draw, params = _drawer(study, arm), study.params | {"network": flows[arm.name]}
        starts = range(0, count, size)
        found[arm.name] = [draw(params, jnp.arange(i, i + size)) for i in starts]
    return jax.block_until_ready(found)


def _drawer(study: Study, arm: Arm) -> Callable[[Params, jax.Array], jax.Array]:
    method, key = study.flow(arm), jax.random.key(study.args.seed + 1)

    @jax.jit
    def draw(params, indices):
        labels = (indices % study.args.classes).astype(jnp.int32)
        keys = sample_keys(key, indices)
        return method.generate(params, keys, labels, 1.0, method.sampler)[0]

    return draw


def shown(study: Study, drawn: Samples, decoders: dict[str, Params]) -> dict[str, np.ndarray]:
    """The first images of each class and flow, class by class, in its finetuned decoder."""
    classes = study.args.classes
    each = min(SHOWN, study.args.samples // classes)
    batches = -(-each * classes // study.args.draw)
    images = {}
    for name, latents in drawn.items():
        decoded = _decoded(study, latents[:batches], decoders[name])
        first = np.concatenate(list(decoded))[: each * classes]
        first = first.reshape(each, classes, *first.shape[1:])
        images[name] = first.swapaxes(0, 1).reshape(-1, *first.shape[2:])
    return images


def scores(
    study: Study,
    drawn: Samples,
    decoders: dict[str, Params],
    deadline: float,
    found: dict[str, float],
) -> None:
    """Fills `found` with Fréchet distances to the held-out images, those of the finetuned decoders
    first; after `deadline` (by `time.monotonic`) none is begun."""
    args, entry = study.args, catalogue()[FEATURES.weights]
    if args.features is None:
        print("  no --features: nothing is scored", flush=True)
        return
    params = load(args.features, FEATURES.weights, entry.network(), entry.layouts)
    features = PublishedFeatures(FEATURES, "", None, entry.network(), params)
    reference = _statistics(features, slices(study.heldout, args.draw), len(study.heldout))
    original = dict.fromkeys(decoders, study.params["decoder"])
    for title, chosen in (("finetuned", decoders), ("original", original)):
        for arm in ARMS:
            name = f"{arm.name}, {title} decoder"
            if time.monotonic() > deadline:
                print(f"  {name}: not scored, the time was over", flush=True)
                continue
            images = _decoded(study, drawn[arm.name], chosen[arm.name])
            sampled = _statistics(features, images, args.samples)
            found[name] = frechet_distance_of(reference, sampled)
            print(f"  {name:<44}{found[name]:>12.5g}", flush=True)


def _decoded(study: Study, latents: list[jax.Array], decoder: Params) -> Iterator[np.ndarray]:
    """Batches of images, uint8."""
    decode, params = _decoder(study.tokenizer), study.params | {"decoder": decoder}
    return (np.asarray(decode(params, batch)) for batch in latents)


@cache
def _decoder(tokenizer: TinyVAE) -> Callable[[Params, jax.Array], jax.Array]:
    return jax.jit(lambda params, latents: to_uint8(tokenizer.decode(params, latents)))


def _statistics(
    features: PublishedFeatures, batches: Iterable[np.ndarray], count: int
) -> Statistics:
    """Of the first `count` images of batches."""
    stream = Stream()
    for batch in batches:
        rows = np.asarray(features.batch(batch)["features"])[:count]
        count -= len(rows)
        stream.add(rows)
    return stream.statistics()
