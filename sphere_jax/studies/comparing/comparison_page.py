"""The page of a comparison, of all arms or the first few: `comparison.html`, `comparison.md` with
its pictures `comparison-1.png` and so on, and the numbers in `comparison.json`.
"""

import math

from sphere_jax.common.files import write_json
from sphere_jax.evaluation import figures, page, score_tables
from sphere_jax.runs.records import options_of
from sphere_jax.studies.comparing.arms import differing_keys
from sphere_jax.studies.comparing.curve_sections import (
    ONE_SEED,
    curve_sections,
    shown,
    target_sections,
)
from sphere_jax.studies.comparing.matched import EXPLAINS
from sphere_jax.studies.comparing.numbers import (
    CONFIDENCE,
    mean_and_deviation,
    mean_interval,
)
from sphere_jax.studies.comparing.outcomes import Comparison

SHOWN = 12  # samples of every arm


def write_page(comparison: Comparison) -> str:
    """Writes the page of the outcomes so far; returns the final scores as a Markdown table.

    Raises UserError for arms that are not matched.
    """
    matched, final = comparison.check(), _final(comparison)
    write_json(comparison.root / "comparison.json", summary(comparison, matched))
    sections = [
        page.Section("Final scores", [final, page.Text(_spread(comparison))]),
        *_against_baseline(comparison),
        *curve_sections(comparison),
        *target_sections(comparison),
        *_samples(comparison),
        _matched(comparison, matched),
        *_protocol(comparison),
        _reproduce(comparison),
    ]
    done, all_arms = len(comparison.outcomes), len(comparison.seeds) * len(comparison.arms)
    sentence = f"{done} of {all_arms} arms. " if done < all_arms else ""
    sentence += (
        f"{len(comparison.arms)} arms in seeds {', '.join(map(str, comparison.seeds))}, equal but "
        f"for the values named below; '{comparison.baseline}' is the baseline."
    )
    root, title = comparison.root, comparison.root.name
    page.write_report(root / "comparison.html", title, sentence, _headlines(comparison), sections)
    page.write_markdown(root / "comparison.md", title, sentence, sections)
    return f"{final.markdown()}\n\n{_spread(comparison)}\n"


def summary(comparison: Comparison, matched: dict) -> dict:
    """What `comparison.json` holds: every number of the page."""
    names, others = comparison.metrics, comparison.names
    finished = [arm for arm in others if comparison.seeds_of(arm)]
    found = {
        "vary": comparison.label,
        "seeds": list(comparison.seeds),
        "baseline": comparison.baseline,
        "finished": [len(comparison.outcomes), len(comparison.seeds) * len(comparison.arms)],
        "values": {arm.name: dict(arm.values) for arm in comparison.arms},
        "arms": {a: {name: comparison.values(a, name) for name in names} for a in finished},
        "seeds_of": {arm: comparison.seeds_of(arm) for arm in finished},
        "real_data": dict(zip(names, _real_data(comparison), strict=True)),
        "matched": matched,
        "differences": {},
        "curves": {},
        "differences_by_step": {},
        "target": None,
    }
    for arm in finished:
        differences = {name: comparison.difference(arm, name) for name in names}
        if arm != comparison.baseline:
            known = {name: vars(d) for name, d in differences.items() if d}
            found["differences"][arm] = known
            found["differences_by_step"][arm] = {
                metric: {str(s): vars(d) for s, d in by_step.items()}
                for metric in comparison.curve_metrics
                if (by_step := comparison.differences_by_step(arm, metric))
            }
        found["curves"][arm] = {
            str(seed): comparison.outcomes[seed, arm].curve for seed in comparison.seeds_of(arm)
        }
    metric = comparison.target_metric
    if metric:
        seeds = comparison.seeds_of(comparison.baseline)
        found["target"] = {
            "metric": metric,
            "values": {str(seed): comparison.target_value(seed) for seed in seeds},
        }
        for axis in ("steps", "seconds"):
            reached = {arm: comparison.reached(arm, axis) for arm in finished}
            found["target"][axis] = {
                arm: {str(seed): value for seed, value in r.arm.items()} | {"speed_up": r.speed_up}
                for arm, r in reached.items()
                if r
            }
    return found


def _real_data(comparison: Comparison) -> list[float]:
    results = next(iter(comparison.outcomes.values())).results
    found = (results["real_data"][name] for name in comparison.metrics)
    return [math.nan if value is None else value for value in found]


def _spread(comparison: Comparison) -> str:
    seeds, outcomes = comparison.seeds, comparison.outcomes.values()
    spent = sorted({outcome.results["nfe"] for outcome in outcomes})
    several = len(seeds) > 1
    spread = "mean ± standard deviation" if several else "one value, without a deviation"
    missing = len(seeds) * len(comparison.arms) - len(comparison.outcomes)
    partial = [score_tables.describe(name)[0] for name in comparison.partial_metrics]
    return (
        f"{len(seeds)} seed{'s' if several else ''} ({', '.join(map(str, seeds))}): {spread}; "
        f"NFE {', '.join(map(str, spent))}."
        + (f" {missing} arms are not finished." if missing else "")
        + (f" Not of every arm, and left out: {', '.join(partial)}." if partial else "")
    )


def _headlines(comparison: Comparison) -> list[page.Headline]:
    metric, found = comparison.metrics[0], []
    name, better = score_tables.describe(metric)
    for arm in comparison.names[:6]:
        if comparison.seeds_of(arm):
            mean, half = mean_interval(comparison.values(arm, metric))
            note = f"{name}; better: {better}"
            note += f"; ± {CONFIDENCE:.0%} interval" if half is not None else ""
            value = f"{mean:.3g}" + (f" ± {half:.2g}" if half is not None else "")
            found.append(page.Headline(arm, value, note))
    return found


def _final(comparison: Comparison) -> page.Table:
    names = comparison.metrics
    rows = [
        [arm, *(mean_and_deviation(comparison.values(arm, name)) for name in names)]
        for arm in comparison.names
        if comparison.seeds_of(arm)
    ]
    rows.append(["real images", *(f"{v:.3f}" for v in _real_data(comparison))])
    remark = score_tables.remark_of(*(o.results["protocol"] for o in comparison.outcomes.values()))
    better = ["better", *(score_tables.reading(name, remark) for name in names)]
    return page.Table(
        [comparison.label, *(score_tables.describe(n)[0] for n in names)], [*rows, better]
    )


def _against_baseline(comparison: Comparison) -> list[page.Section]:
    """Paired differences from the baseline, with their intervals."""
    others = [
        arm
        for arm in comparison.names
        if arm != comparison.baseline and comparison.seeds_of(arm, comparison.baseline)
    ]
    if not others:
        return []
    names = comparison.metrics
    rows = [[arm, *(shown(comparison.difference(arm, name)) for name in names)] for arm in others]
    table = page.Table([comparison.label, *(score_tables.describe(n)[0] for n in names)], rows)
    seeds = max(len(comparison.seeds_of(arm, comparison.baseline)) for arm in others)
    text = (
        f"Arm minus baseline, paired by seed, with {CONFIDENCE:.0%} t-intervals. Decided where the "
        "interval leaves out zero (of a metric that should be near a number: of its distance from "
        "it). Intervals are one by one: of twenty, one leaves out zero by chance."
    )
    blocks = [table, page.Text(text if seeds > 1 else ONE_SEED)]
    return [page.Section(f"Against {comparison.baseline}", blocks)]


def _samples(comparison: Comparison) -> list[page.Section]:
    """One picture a seed, one row an arm, the same noise and label in a column."""
    blocks = []
    for seed in comparison.seeds:
        drawn = {arm: comparison.outcomes[seed, arm].samples for arm in comparison.names
                if (seed, arm) in comparison.outcomes}  # fmt: skip
        rows = {arm: images[:SHOWN] for arm, images in drawn.items() if images is not None}
        if rows and len({images.shape[1:] for images in rows.values()}) == 1:
            caption = f"Seed {seed}, uncurated: each column has the same noise and class."
            blocks.append(page.Picture(figures.labelled_rows(rows), caption))
    return [page.Section("Samples", blocks)] if blocks else []


def _matched(comparison: Comparison, matched: dict) -> page.Section:
    """What is identical, by the hashes of the arrays, and what differs."""
    baseline = comparison.configs[comparison.seeds[0], comparison.baseline]
    rows, differ = [], []
    for arm in comparison.arms:
        config = comparison.configs[comparison.seeds[0], arm.name]
        gone = {*baseline.stages} ^ {*config.stages}  # a stage more or less is one difference
        pairs = differing_keys(baseline, config).items()
        own = "; ".join(
            f"{key}: {ours!r}"
            for key, (_, ours) in pairs
            if key.partition(".")[0] not in gone or key in arm.values
        )
        differ.append([arm.name, own or "the baseline"])
        if arm.name in matched:
            rows.append([arm.name, *(matched[arm.name].get(item, "–") for item in EXPLAINS)])
    text = (
        "Compared with the baseline by hashes of the arrays themselves when an arm starts: "
        "rows of the first batches, initial weights, random numbers of the first step, noise of "
        "samples, what samples are scored against. 'no' names the values that explain it; a "
        "difference that none explains is an error."
    )
    blocks = [
        page.Table([comparison.label, "differs from the baseline in"], differ),
        page.Table([comparison.label, *EXPLAINS], rows),
        page.Text(text),
    ]
    return page.Section("Matched", blocks)


def _protocol(comparison: Comparison) -> list[page.Section]:
    stamp = next(iter(comparison.outcomes.values())).results["protocol"]
    return [page.Section("Protocol", [score_tables.protocol_table(stamp)])]


def _reproduce(comparison: Comparison) -> page.Section:
    """The command, and every value that all arms share."""
    configs = list(comparison.configs.values())
    differ = {key for c in configs[1:] for key in differing_keys(configs[0], c)} | {"seed"}
    values = {key.removeprefix("config."): leaf for key, leaf in options_of(configs[0]).items()}
    shared = [f"{key} = {leaf.value!r}" for key, leaf in values.items() if key not in differ]
    blocks = [page.Text("Values that all arms share:"), page.Code("\n".join(shared))]
    if comparison.command:
        blocks.insert(0, page.Code(comparison.command))
    return page.Section("Reproduce", blocks)
