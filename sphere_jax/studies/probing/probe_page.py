"""The page and the JSON of a probe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.files import write_json
from sphere_jax.evaluation.figures import labelled_rows
from sphere_jax.evaluation.page import Headline, Picture, Section, Table, Text, write_report
from sphere_jax.studies.probing import paths
from sphere_jax.studies.probing.claims import Claim, claims, mean, norm_distance
from sphere_jax.studies.probing.distances import Scores
from sphere_jax.studies.probing.measure import Probed
from sphere_jax.studies.probing.plots import Panel, panels

MEASURES = {  # as they are printed
    "psnr": "PSNR, dB",
    "lpips": "LPIPS",
    "semantic": "semantic distance",
    "agreement": "same top-1 class",
}


def write(folder: Path, probed: Probed, protocol: dict[str, Any]) -> list[Claim]:
    """Writes probe.html and probe.json, with the `protocol`; returns the verdicts."""
    found = list(claims(probed))
    write_json(folder / "probe.json", summary(probed, found, protocol))
    verdicts = [claim.shown for claim in found]
    headlines = [
        Headline(f"claims shown: {verdict}", f"{verdicts.count(verdict)} of {len(found)}")
        for verdict in ("yes", "in part", "no")
    ]
    parts, settings = sections(probed, found, protocol), protocol["tokenizer"]
    name = f"{settings['name']} {settings.get('kind', '')}".strip()
    about = (
        f"{name} on {protocol['images']}. Seed {protocol['seed']}; means over images, with "
        f"standard errors. LPIPS: {protocol['LPIPS']}. Semantic distance: "
        f"{protocol['semantic distance']}."
    )
    write_report(folder / "probe.html", "Direction or length?", about, headlines, parts)
    return found


def summary(probed: Probed, found: Sequence[Claim], protocol: dict[str, Any]) -> dict[str, Any]:
    """Every mean and standard error, for JSON."""

    def means(scores: Scores) -> dict[str, dict[str, float]]:
        return {name: mean(values)._asdict() for name, values in scores.items()}

    return {
        "protocol": protocol,
        "claims": [claim._asdict() for claim in found],
        "anchors": _anchors(probed),
        "shells": {name: s._asdict() | {"cv": s.variation} for name, s in probed.shells.items()},
        "times": paths.TIMES,
        "paths": {
            kind: {name: x.mean(0) for name, x in curves.items()}
            | {"distance of mean norm": norm_distance(probed, kind)}
            for kind, curves in probed.along.items()
        },
        "swap": {
            name: {f"to {parent}": means(scores) for parent, scores in both.items()}
            for name, both in probed.swaps.items()
        },
        "matched": {
            kind: {f"{eta:g}": means(scores) for eta, scores in by_eta.items()}
            for kind, by_eta in probed.matched.items()
        },
        "fixed norm": {
            name: {"norm": norm, **means(scores)} for name, (norm, scores) in probed.fixed.items()
        },
        "direction noise": {f"{s:.4g}": means(scores) for s, scores in probed.turned.items()},
    }


def sections(probed: Probed, found: Sequence[Claim], protocol: dict[str, Any]) -> list[Section]:
    """The page from top to bottom."""
    rows = [[c.shown, f"{c.statement} [{c.source}]", c.found] for c in found]
    table = Table(["shown here", "published claim", "measured"], rows)
    return [
        Section("What is claimed, and what this tokenizer shows", [table]),
        Section("Norms along paths, and the radial share", _paths(probed)),
        Section("Component swap", _swap(probed)),
        Section("Matched perturbation", _matched(probed)),
        Section("One norm for all tokens", _fixed(probed)),
        Section("Noise on the directions", _turned(probed)),
        Section("Protocol", [Table(["setting", "value"], list(protocol.items()))]),
    ]


def _paths(probed: Probed) -> list:
    def panel(title: str, name: str) -> Panel:
        lines = {kind: (paths.TIMES, *_curve(x[name])) for kind, x in probed.along.items()}
        return Panel(title, "time, from data (0) to noise (1)", lines)

    none = np.zeros(len(paths.TIMES))
    apart = {kind: (paths.TIMES, norm_distance(probed, kind), none) for kind in probed.along}
    shown = [
        panel("mean norm of a token", "norm"),
        Panel("its distance from the nearest shell, sigma", "time", apart),
        panel("radial share of the velocity", "share"),
    ]
    shown_at = (0, 5, 10, 15, 20)  # of TIMES
    rows = []
    for kind, x in probed.along.items():
        share = x["share"].mean(0)[list(shown_at)]
        numbers = norm_distance(probed, kind).max(), x["delta"].mean(0).max(), *share
        rows.append([kind, *(round(float(number), 4) for number in numbers)])
    times = [f"share at {paths.TIMES[i]:g}" for i in shown_at]
    head = ["path", "largest distance of the mean norm", "largest mean distance of a token"]
    caption = (
        "From each image's latent to Gaussian noise. The shells are those of the data and of the "
        "noise (mean and standard deviation of the norm); on the sphere, of radius sqrt(d), sigma "
        "is scaled with them to that radius. A single token of a raw end is itself some way from "
        "its shell's mean."
    )
    return [Picture(panels(shown), caption), Table([*head, *times], rows)]


def _swap(probed: Probed) -> list:
    names = _names(next(iter(probed.swaps.values()))["a"])
    rows = [
        [name, parent, *(str(mean(scores[m])) for m in names)]
        for name, both in probed.swaps.items()
        for parent, scores in both.items()
    ]
    text = (
        f"{_anchors(probed)} anchors a, each with another image b of its class: token by token the "
        "norm r of one and the direction u of the other, decoded, against the decodes of both."
    )
    return [
        Text(text),
        Picture(
            labelled_rows(probed.strips["swap"]),
            "The first anchors a and their neighbours b; D(a) is the decoded latent of a.",
        ),
        Table(["decoded", "against", *(MEASURES[m] for m in names)], rows),
    ]


def _matched(probed: Probed) -> list:
    names = _names(next(iter(probed.matched["radial"].values())))
    shown = [
        Panel(MEASURES[m], "eta: displacement / norm",
              {kind: (np.array(list(by)), *_curve(np.stack([s[m] for s in by.values()], 1)))
               for kind, by in probed.matched.items()})
        for m in names
    ]  # fmt: skip
    rows = [
        [kind, eta, *(str(mean(scores[m])) for m in names)]
        for kind, by in probed.matched.items()
        for eta, scores in by.items()
    ]
    caption = (
        "Compared with the decoded latent itself. Radial: each token's norm times 1 + eta or 1 - "
        "eta, at random. Angular: each token turned in a random direction by theta, 2 sin(theta / "
        "2) = eta, so that both move it equally far."
    )
    table = Table(["jitter", "eta", *(MEASURES[m] for m in names)], rows)
    strips = labelled_rows(probed.strips["matched"])
    return [Picture(panels(shown, True), caption), table, Picture(strips, "The same images.")]


def _fixed(probed: Probed) -> list:
    names = _names(next(iter(probed.fixed.values()))[1])
    rows = [
        [name, norm, *(str(mean(scores[m])) for m in names)]
        for name, (norm, scores) in probed.fixed.items()
    ]
    table = Table(["norm of every token", "which is", *(MEASURES[m] for m in names)], rows)
    strips = Picture(labelled_rows(probed.strips["fixed"]), "The same images.")
    return [Text("Directions unchanged; compared with the decoded latent itself."), table, strips]


def _turned(probed: Probed) -> list:
    names = _names(next(iter(probed.turned.values())))
    rows = [
        [f"{sigma:.3g}", str(mean(scores["angle"])), *(str(mean(scores[m])) for m in names)]
        for sigma, scores in probed.turned.items()
    ]
    text = (
        "Gaussian noise on the unit direction, renormalised, norms unchanged. The last sigma turns "
        "these channels as far as 0.1 turns the 1024 of the Hyperspherical Autoencoder: 72.6 "
        "degrees."
    )
    table = Table(["sigma", "mean angle, degrees", *(MEASURES[m] for m in names)], rows)
    return [Text(text), table, Picture(labelled_rows(probed.strips["turned"]), "The same images.")]


def _anchors(probed: Probed) -> int:
    """How many images have another of their class to swap with."""
    return len(next(iter(probed.swaps.values()))["a"]["psnr"])


def _names(scores: Scores) -> list[str]:
    return [name for name in MEASURES if name in scores]


def _curve(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors (T,) of (N, T)."""
    both = [mean(column) for column in np.asarray(values, np.float64).T]
    return np.array([m.value for m in both]), np.array([m.error for m in both])
