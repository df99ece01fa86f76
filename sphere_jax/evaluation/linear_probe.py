"""How well a linear classifier tells classes apart by the features of a frozen network."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer
from scipy.optimize import minimize

Features = Float[np.ndarray, "samples width"]
Labels = Integer[np.ndarray, " samples"]

DECAY = 1e-2  # of half the squared weights, beside the mean cross-entropy
STEPS = 200  # of L-BFGS, at most


def linear_probe(
    train: Features,
    train_labels: Labels,
    heldout: Float[np.ndarray, "_ width"],
    heldout_labels: Integer[np.ndarray, " _"],
) -> dict[str, float]:
    """{"top1", "top5"}: accuracy in percent on held-out features of a logistic regression.

    Features are standardised by the training ones. Classes are those of the training labels; with
    five or fewer there is no "top5".
    """
    classes, targets = np.unique(train_labels, return_inverse=True)
    mean, std = train.mean(0), np.maximum(train.std(0), 1e-6)
    x, y = (jnp.asarray((part - mean) / std, jnp.float32) for part in (train, heldout))
    shape = (x.shape[1] + 1, len(classes))

    @jax.jit
    def loss(flat):
        weights = flat.reshape(shape)
        logits = x @ weights[:-1] + weights[-1:]
        picked = jnp.take_along_axis(logits, jnp.asarray(targets)[:, None], 1)[:, 0]
        error = jnp.mean(jax.nn.logsumexp(logits, 1) - picked)
        return error + DECAY / 2 * jnp.sum(weights[:-1] ** 2)

    slope = jax.jit(jax.value_and_grad(loss))

    def both(flat):
        value, gradient = slope(jnp.asarray(flat, jnp.float32))
        return float(value), np.asarray(gradient, np.float64)

    start = np.zeros(int(np.prod(shape)))
    found = minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    weights = found.x.reshape(shape)
    order = np.argsort(-(np.asarray(y) @ weights[:-1] + weights[-1]), axis=1)
    hit = classes[order] == np.asarray(heldout_labels)[:, None]
    scores = {"top1": 100 * float(hit[:, :1].any(1).mean())}
    if len(classes) > 5:
        scores["top5"] = 100 * float(hit[:, :5].any(1).mean())
    return scores
