"""What to change of a config, by an estimate of one of its programs."""

from sphere_jax.common.files import in_bytes
from sphere_jax.rehearsal.chips import CHIPS
from sphere_jax.rehearsal.estimate import Estimate
from sphere_jax.rehearsal.programs import BESIDE
from sphere_jax.rehearsal.recomputing import STRONGER, WEAKER

FEW = 4  # images a chip
ROOM = 0.9  # of the memory, that a program may take before it is told to recompute less
FLOAT32, COPIED = 0.05, 2**20  # share of products, and bytes of the state, that are passed over


def advice(found: Estimate) -> tuple[str, ...]:
    """Sentences without their full stops, the most urgent first."""
    said = (
        *_if_it_does_not_fit(found),
        _if_the_batch_is_gathered(found),
        _if_images_are_few(found),
        _if_products_are_wide(found),
        _if_the_state_is_copied(found),
        _if_there_is_room(found),
    )
    return tuple(filter(None, said))


def _if_it_does_not_fit(found: Estimate) -> list[str]:
    if found.fits is not False:
        return []
    said, kept = [], sum(found.parts.values())
    if kept > found.memory / 2 and found.mesh["fsdp"] == 1:
        said.append("what is kept takes more than half of the memory: raise config.mesh.fsdp")
    if not found.steps:
        fix = "lower config.sampler.batch_size"
        if found.parts.get(BESIDE):
            fix += ", or score after training (config.evaluation.every=0)"
        return [*said, f"does not fit: {fix}"]
    key = f"config.{_stage(found)}"
    ways = [
        f"compute {_stage(found)} in micro-batches ({key}.most_per_device, or {key}.accumulate "
        "where that is refused)"
    ]
    if found.recomputing and (stronger := STRONGER.get(found.recomputing[1])):
        ways.append(f"recompute more ({found.recomputing[0]}='{stronger}')")
    return [*said, f"does not fit: {', '.join(ways)}, or take more chips"]


def _if_the_batch_is_gathered(found: Estimate) -> str:
    gathered = found.collectives.get("all-gather", (0, 0))[1]
    once = found.chips * max(found.parts.get("params", 0), 1) * found.micro_batches
    if not found.steps or gathered <= 8 * once:
        return ""
    return (
        f"gathers {in_bytes(gathered)} a step, over 8 times the parameters in float32: "
        "activations of the whole batch are moved"
    )


def _if_images_are_few(found: Estimate) -> str:
    each = found.examples / found.chips
    if not found.steps or each >= FEW:
        return ""
    why, (computing, sending) = "", _times(found)
    if sending > computing:
        why = f", and sending takes {1e3 * sending:.3g} ms, computing {1e3 * computing:.3g}"
    are = "image a chip is" if each == 1 else "images a chip are"
    return f"{each:.3g} {are} few{why}: a larger batch, or fewer chips"


def _if_products_are_wide(found: Estimate) -> str:
    if found.float32[0] <= FLOAT32:
        return ""
    return f"{found.float32[0]:.0%} of the products are float32: see their names"


def _if_the_state_is_copied(found: Estimate) -> str:
    if found.not_donated <= COPIED:
        return ""
    return f"{in_bytes(found.not_donated)} of the state are not written in place"


def _if_there_is_room(found: Estimate) -> str:
    key, policy, more = found.recomputing or ("", "none", 0)
    if not found.fits or policy not in WEAKER or more == 0:
        return ""
    if found.peak + more > ROOM * found.memory:
        return ""
    return (
        f"{found.peak / found.memory:.0%} of the memory is used: try {key}='{WEAKER[policy]}', "
        f"which recomputes less and stores at most {in_bytes(more)} more"
    )


def _stage(found: Estimate) -> str:
    return found.program.removeprefix("train ")


def _times(found: Estimate) -> tuple[float, float]:
    """Seconds of computing, and of sending."""
    chip = CHIPS.get(found.topology.partition(":")[0])
    if chip is None or found.seconds is None:
        return 0.0, 0.0
    sending = found.sent / (chip.links / 2)
    return found.seconds[1] - sending, sending
