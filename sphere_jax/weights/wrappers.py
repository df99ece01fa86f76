"""What trainers put around weights: dicts in dicts, averages beside raw weights, prefixes of names.

The averages are taken where there are any. What is ambiguous is refused, never guessed.
"""

from collections.abc import Callable, Mapping
from typing import Any

# Keys of a checkpoint under which weights are, averages first, in the order of preference.
AVERAGES = (
    "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict",
    "params_ema", "ema_params", "g_ema",
)  # fmt: skip
RAW = (
    "state_dict", "model_state_dict", "model", "module", "generator", "params", "net", "network",
    "weights",
)  # fmt: skip
LIST = "shadow_params"  # averages without names, in the order of the model's parameters
DEPTH = 4  # of dicts in dicts

# What wrappers of PyTorch insert into names, and what they put before every name.
INSERTED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
PREFIXES = ("module.", "model.", "_forward_module.")
# In flat names: averages beside raw weights, and what the averages count by.
BESIDE = (("model_ema.", "model."), ("ema_model.", "online_model."), ("ema_model.", "model."))
COUNTERS = ("n_averaged", "decay", "num_updates", "initted", "step")


def weights_in(content: Any, is_tensor: Callable[[Any], bool]) -> tuple[dict[str, Any], str]:
    """The tensors by name of a loaded checkpoint, and the keys that lead to them, "ema.module".

    Raises ValueError, as the end of a sentence that begins with the file, if it holds none, or more
    than one set of them.
    """
    found = _find(content, is_tensor, DEPTH)
    if found is None:
        raise ValueError(_nothing(content, is_tensor))
    return found


def _find(content, is_tensor, depth) -> tuple[dict[str, Any], str] | None:
    if not isinstance(content, Mapping) or depth == 0:
        return None

    def inside(key):
        found = _find(content.get(key), is_tensor, depth - 1)
        return found and (found[0], f"{key}.{found[1]}".rstrip("."))

    for key in AVERAGES:
        if found := inside(key):
            return found
        averages = content.get(key)
        if isinstance(averages, Mapping) and averages.get(LIST):
            raw = next((r[0] for name in RAW if (r := inside(name))), {})
            return _with_names(averages[LIST], raw, is_tensor), f"{key}.{LIST}"
    own = {key: value for key, value in content.items() if is_tensor(value)}
    if own and not all(isinstance(key, str) for key in own):
        raise ValueError(
            f"numbers its tensors ({', '.join(map(str, list(own)[:3]))}, ...) and does not name "
            "them; save model.state_dict() there"
        )
    for key in RAW:
        if found := inside(key):
            return found
    if own:
        return own, ""
    others = {key: found for key in content if isinstance(key, str) and (found := inside(key))}
    if len(others) > 1:
        names = ", ".join(f"'{key}'" for key in others)
        raise ValueError(f"holds several sets of tensors, {names}; save one of them by itself")
    return next(iter(others.values()), None)


def _with_names(averages, raw: dict[str, Any], is_tensor) -> dict[str, Any]:
    """Averages that are listed, by the names of the raw weights if each is of that shape."""
    found = list(averages) if isinstance(averages, (list, tuple)) else []
    shapes = [tuple(tensor.shape) if is_tensor(tensor) else None for tensor in found]
    if not raw or shapes != [tuple(tensor.shape) for tensor in raw.values()]:
        raise ValueError(
            f"holds averages without names ('{LIST}') that do not match its named weights one by "
            "one; copy them into the model there and save model.state_dict()"
        )
    return dict(zip(raw, found, strict=True))


def _nothing(content, is_tensor) -> str:
    if not isinstance(content, (Mapping, list, tuple)):
        return (
            f"holds a {_kind(content)}, not tensors by name; where it was made, save "
            "model.state_dict() and not the model"
        )
    values = list(content.values()) if isinstance(content, Mapping) else list(content)
    kinds = sorted({_kind(value) for value in values if not is_tensor(value)})[:3]
    return "holds no tensors by name" + (f" but {', '.join(kinds)}" if kinds else "")


def _kind(value) -> str:
    return getattr(value, "kind", type(value).__name__)


def unwrapped(entries: dict[str, Any]) -> dict[str, Any]:
    """Entries (with a `shape`) under the names that the network itself has.

    Raises ValueError if two of them would have one name.
    """
    entries = _renamed(entries, _without_inserted)
    while entries:
        entries = _averages_of(_without_counters(entries))
        prefix = next((p for p in PREFIXES if all(n.startswith(p) for n in entries)), None)
        if prefix is None:
            break
        entries = {name.removeprefix(prefix): entry for name, entry in entries.items()}
    return entries


def _without_inserted(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in INSERTED)


def _renamed(entries: dict[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    names = {name: rename(name) for name in entries}
    if len(set(names.values())) < len(names):
        twice = next(n for n in names if list(names.values()).count(names[n]) > 1)
        raise ValueError(f"holds '{twice}' more than once, in a wrapper and without it")
    return {names[name]: entry for name, entry in entries.items()}


def _without_counters(entries: dict[str, Any]) -> dict[str, Any]:
    """Without what averages count by, if everything else is in a wrapper."""
    prefixes = PREFIXES + tuple(prefix for pair in BESIDE for prefix in pair)
    wrapped = {n: e for n, e in entries.items() if not _is_counter(n, e, prefixes)}
    return wrapped if wrapped and all(n.startswith(prefixes) for n in wrapped) else entries


def _is_counter(name: str, entry, prefixes: tuple[str, ...]) -> bool:
    bare = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
    return bare in COUNTERS and tuple(entry.shape) in ((), (1,))


def _averages_of(entries: dict[str, Any]) -> dict[str, Any]:
    """Of raw weights and their averages side by side, the averages, by the names of the raw ones.

    Averages of PyTorch Lightning's `LitEma` have the names of the raw weights without dots.
    """
    for average, raw in BESIDE:
        averages = {n.removeprefix(average): e for n, e in entries.items() if n.startswith(average)}
        weights = [n.removeprefix(raw) for n in entries if n.startswith(raw)]
        if not averages or len(averages) + len(weights) < len(entries):
            continue
        if averages.keys() <= set(weights) or not weights:
            return averages
        dotless = {name.replace(".", ""): name for name in weights}
        if len(dotless) == len(weights) and averages.keys() <= dotless.keys():
            return {dotless[name]: entry for name, entry in averages.items()}
    return entries
