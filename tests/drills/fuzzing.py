"""Reads thousands of spoilt files and options: `python fuzzing.py KIND CASES SEED FOLDER`.

In a process of its own: one that crashes, takes the memory or never ends takes no tests with it.
Prints the cases that were answered otherwise than by a result or by one sentence, and ends with
exit code 1 if there are some. Case i of a seed is always the same; FOLDER keeps its file.
"""

import contextlib
import faulthandler
import io
import json
import os
import pickle
import resource
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import spoiling
from PIL import Image

from sphere_jax.common.errors import UserError

# A case hangs if it works for longer than SLOW seconds of the processor, or is not over after HANG
# seconds of the clock. The first does not depend on what else the machine does; the second is for
# what waits without working (a pipe, a lock), and so long that no busy machine takes it. A case
# that never ends is ended then, with a traceback that says where it was.
SLOW, HANG = 10.0, 60.0
MEMORY = 6 * 2**30  # bytes of address space that the process may take
SHOWN = 8
MADE = {"networks": {"inception_fid": {"outputs": ["pool"]}}, "image_size": [8, 8]}
STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn")  # whose first argument is a program
FORBIDDEN = (*STARTS, "os.system", "os.fork", "socket.connect", "ctypes.dlopen")


class Kind:
    """What is read. `make` writes the files of a case into an empty folder; `read` reads them and
    raises only `allowed`, in one line."""

    allowed: tuple = (UserError,)

    def __init__(self, rng: np.random.Generator):
        """Makes whole files to spoil."""

    def make(self, folder: Path, rng: np.random.Generator) -> None:
        raise NotImplementedError

    def read(self, folder: Path, rng: np.random.Generator) -> None:
        raise NotImplementedError


class Pictures(Kind):
    """Image files, by what training and scoring read them with."""

    FORMATS = (
        ("png", "L"), ("png", "RGB"), ("png", "P"), ("png", "I;16"), ("png", "RGBA"), ("png", "1"),
        ("jpeg", "L"), ("jpeg", "RGB"), ("jpeg", "CMYK"), ("webp", "RGB"), ("gif", "P"),
        ("bmp", "RGB"), ("tiff", "RGB"), ("tiff", "F"), ("ppm", "RGB"), ("ico", "RGB"),
        ("tga", "RGB"), ("pcx", "L"), ("jpeg2000", "RGB"), ("dds", "RGB"),
    )  # fmt: skip

    def __init__(self, rng):
        self.whole = []
        for kind, mode in self.FORMATS:
            pixels = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            picture = Image.fromarray(pixels)
            picture = (
                picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
            )
            target = io.BytesIO()
            with contextlib.suppress(OSError, KeyError):  # formats that this Pillow lacks
                picture.save(target, kind)
                self.whole.append((kind, target.getvalue()))

    def make(self, folder, rng):
        kind, content = self.whole[rng.integers(len(self.whole))]
        content = spoiling.spoilt(content, rng)
        if kind == "png" and rng.random() < 0.5:
            content = spoiling.png_with_sums(content)
        (folder / "a" / "x.png").parent.mkdir()
        (folder / "a" / "x.png").write_bytes(content)

    def read(self, folder, rng):
        from sphere_jax.config.options import DataOptions
        from sphere_jax.data.pictures import read_files
        from sphere_jax.evaluation.sides.open_side import open_side

        if rng.random() < 0.5:
            data = DataOptions(
                source="folder", path=str(folder), image_size=int(rng.choice([8, 32, 257])),
                channels=int(rng.choice([1, 3])), resize=str(rng.choice(["bicubic", "adm", "box"])),
            )  # fmt: skip
            read_files([folder / "a" / "x.png"], data)
        else:
            side = open_side(folder)
            for row in range(len(side.images)):
                side.images.read(row)


class Arrays(Kind):
    """`.npz` of images, labels, statistics, packed pictures; `.npy` of latents."""

    def __init__(self, rng):
        images = rng.integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
        labels = np.arange(12) % 2
        encoded = [_png(image) for image in images]
        packed = {
            "jpeg_bytes": np.frombuffer(b"".join(encoded), np.uint8),
            "offsets": np.cumsum([0, *map(len, encoded)]),
        }
        mu, sigma = rng.standard_normal(4), np.eye(4)
        protocol = np.asarray(json.dumps(MADE))
        names = np.array(["ape", "bee"])
        self.whole = [
            {"images": images, "labels": labels},
            {"images": images, "labels": labels, "class_names": names},
            {"images": images, "labels": labels, "test_images": images, "test_labels": labels},
            {"arr_0": images, "arr_1": labels},
            packed | {"labels": labels, "classes": names.astype("S")},
            {f"train_{k}": v for k, v in (packed | {"labels": labels}).items()},
            {"mu": mu, "sigma": sigma},
            {"mu": mu, "sigma": sigma, "n": np.asarray(9), "protocol": protocol},
            {"mu": mu, "sigma": sigma, "mu_s": mu, "sigma_s": sigma, "arr_0": images},
        ]
        self.latents = rng.standard_normal((12, 2, 2, 3)).astype(np.float32)
        self.labels = labels

    def make(self, folder, rng):
        arrays = dict(self.whole[rng.integers(len(self.whole))])
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, 3)):
                name = str(rng.choice(list(arrays)))
                arrays[name] = _odd(arrays[name], rng)
        target = io.BytesIO()
        (np.savez_compressed if rng.random() < 0.2 else np.savez)(target, **arrays)
        how, content = rng.random(), target.getvalue()
        if how < 0.35:
            content = spoiling.spoilt(content, rng)
        elif how < 0.75:
            content = spoiling.spoilt_zip(content, rng)
        (folder / "x.npz").write_bytes(content)
        for prefix in ("", "test_") if rng.random() < 0.3 else ("",):
            for name, array in (("latents", self.latents), ("labels", self.labels)):
                array = _odd(array, rng) if rng.random() < 0.3 else array
                target = io.BytesIO()
                np.save(target, array)
                content = target.getvalue()
                content = spoiling.spoilt(content, rng) if rng.random() < 0.5 else content
                (folder / f"{prefix}{name}.npy").write_bytes(content)

    def read(self, folder, rng):
        from sphere_jax.config.options import DataOptions, source_of
        from sphere_jax.data.class_names import classes_of
        from sphere_jax.evaluation.sides.open_side import open_side
        from sphere_jax.evaluation.statistics import Statistics

        how, file = rng.integers(4), folder / "x.npz"
        if how == 0:
            side = open_side(file, rounding=str(rng.choice(["", "nearest"])))
            if side.images is not None and hasattr(side.images, "read"):
                for row in range(len(side.images)):
                    side.images.read(row)
            elif side.images is not None:
                list(side.images)
        elif how == 1:
            Statistics.load(file)
        else:
            source, path = ("npz", str(file)) if how == 2 else ("latents", str(folder))
            data = DataOptions(source=source, path=path, image_size=8, channels=1, num_classes=0)
            if rng.random() < 0.5:
                classes_of(data)
            split = source_of(data).load(data)
            split.train.read(np.arange(len(split.train)))


class Records(Kind):
    """ArrayRecord files: of pictures, and the cache of latents with its lists."""

    def __init__(self, rng):
        from sphere_jax.data.tf_examples import write_example

        images = rng.integers(0, 256, (6, 8, 8)).astype(np.uint8)
        self.examples = [
            write_example({"image": _png(image), "label": number % 2})
            for number, image in enumerate(images)
        ]
        self.latents = rng.standard_normal((6, 2, 2, 2, 3)).astype(np.float32)

    def make(self, folder, rng):
        (self._make_pictures if rng.random() < 0.5 else self._make_cache)(folder, rng)

    def _make_pictures(self, folder, rng):
        from sphere_jax.data.record_files import whole_records

        file, records = folder / "train-00000.array_record", list(self.examples)
        if inside := rng.random() < 0.6:
            number = int(rng.integers(len(records)))
            records[number] = spoiling.spoilt(records[number], rng)
        with whole_records(file) as add:
            add(records)
        (folder / "images.json").write_text(json.dumps({"images": {"train": 6, "heldout": 0}}))
        (folder / "classes.json").write_text(json.dumps(["ape", ["bee", "a bee"]]))
        spoil = str(rng.choice(["images.json", "classes.json", file.name, file.name]))
        if spoil != file.name:
            _spoil_json(folder / spoil, rng)
        elif not inside:
            file.write_bytes(spoiling.spoilt(file.read_bytes(), rng))

    def _make_cache(self, folder, rng):
        from sphere_jax.data.latent_cache import CacheWriter

        plan = {
            "made_with": {"config.data.num_classes": 2}, "latent_shape": [2, 2, 3],
            "dtype": "float32", "shard_size": 4, "data": {"train": "x", "heldout": "y"},
        }  # fmt: skip
        labels = {"train": np.arange(4, dtype=np.int32) % 2, "heldout": np.zeros(2, np.int32)}
        writer = CacheWriter(folder, plan, labels, {"source": "digits", "path": ""})
        writer.write_plan()
        for shard in writer.shards:
            writer.write(shard, [self.latents[shard.start : shard.stop]])
        writer.write_index()
        (folder / "classes.json").write_text(json.dumps(["ape", "bee"]))
        self.plan, self.counts = plan, labels
        file = folder / str(rng.choice(sorted(os.listdir(folder))))
        if file.suffix == ".json":
            _spoil_json(file, rng)
        else:
            again = spoiling.spoilt_zip if file.suffix == ".npz" and rng.random() < 0.5 else None
            file.write_bytes((again or spoiling.spoilt)(file.read_bytes(), rng))

    def read(self, folder, rng):
        from sphere_jax.config.options import DataOptions, source_of
        from sphere_jax.data.class_names import classes_of
        from sphere_jax.data.latent_cache import CacheWriter
        from sphere_jax.evaluation.sides.record_side import record_side

        pictures = (folder / "images.json").exists()
        source = "array_record" if pictures else "cache"
        data = DataOptions(source=source, path=str(folder), image_size=8, channels=1, num_classes=0)
        if pictures and rng.random() < 0.4:
            side = record_side(folder)
            for row in range(len(side.images)):
                side.images.read(row)
        elif not pictures and rng.random() < 0.4:
            writer = CacheWriter(folder, self.plan, self.counts)
            if all([writer.is_finished(shard) for shard in writer.shards]):
                writer.write_index()
        else:
            classes_of(data)
            split = source_of(data).load(data)
            for part in (split.train, split.heldout):
                part.read(np.arange(len(part)))
                _ = part.fingerprint
            if not pictures:
                source_of(data).made_of(data)


class Weights(Kind):
    """Published weights: `.safetensors`, files of PyTorch (where it is installed) and pickles."""

    allowed = (UserError, ValueError)

    def __init__(self, rng):
        from safetensors.numpy import save

        tensors = {
            "a.weight": rng.standard_normal((5, 3)).astype(np.float32),
            "a.bias": rng.standard_normal(5).astype(np.float16),
            "count": np.asarray(3),
        }
        self.whole = {
            "x.safetensors": [save(tensors)],
            "x.pth": [pickle.dumps({"A": {"w": tensors["a.weight"]}}, 4)],
        }
        with contextlib.suppress(ImportError):
            import torch

            state = {name: torch.from_numpy(np.array(t)) for name, t in tensors.items()}
            whole = {"ema": {"module": state, "decay": 0.9}, "model": {}, "args": Path("x")}
            for content in (state, whole, {"state_dict": state, "best": np.float64(3)}):
                for zipped in (True, False):
                    target = io.BytesIO()
                    torch.save(content, target, _use_new_zipfile_serialization=zipped)
                    self.whole["x.pth"].append(target.getvalue())

    def make(self, folder, rng):
        name = str(rng.choice(list(self.whole)))
        kinds = self.whole[name]
        content = kinds[rng.integers(len(kinds))]
        how = rng.random()
        if how < 0.08:
            content = _attack(folder / "sprung", content, rng)
        elif name == "x.safetensors" and how < 0.6:
            content = spoiling.safetensors_with_header(content, rng)
        elif content.startswith(b"PK") and how < 0.6:
            content = spoiling.spoilt_zip(content, rng)
        else:
            content = spoiling.spoilt(content, rng)
        (folder / name).write_bytes(content)

    def read(self, folder, rng):
        from sphere_jax.weights.opening import open_tensors
        from sphere_jax.weights.stored import fingerprint_of, network_of, parts_of, trained_as

        file = next(folder.glob("x.*"))
        for ask in (fingerprint_of, network_of, parts_of, trained_as):
            with contextlib.suppress(UserError):
                ask(file)
        try:
            found = open_tensors(file)
            for tensor in found:
                assert found[tensor].shape == found.shape_of(tensor)
        finally:
            assert not (folder / "sprung").exists(), "code of the file was run"


class Converted(Kind):
    """Weights that `sphere_jax.convert` wrote, spoilt: never taken as the whole ones."""

    def __init__(self, rng):
        import jax

        from sphere_jax.nn.functional import Network
        from sphere_jax.nn.linear import Linear

        self.network = Network(lambda rngs: Linear(3, 5, rngs=rngs))
        shapes = jax.eval_shape(self.network.init, jax.random.key(0))
        self.params = jax.tree.map(
            lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes
        )
        self.content = b""

    def make(self, folder, rng):
        from sphere_jax.weights.stored import write_weights

        file = folder / "x.safetensors"
        if not self.content:
            write_weights(file, self.params, "small", "drill", {"space": {"path": "slerp"}})
            self.content = file.read_bytes()
        again = spoiling.safetensors_with_header if rng.random() < 0.5 else spoiling.spoilt
        file.write_bytes(again(self.content, rng))

    def read(self, folder, rng):
        import jax

        from sphere_jax.weights.stored import load_weights, no_layouts, trained_as

        file = folder / "x.safetensors"
        with contextlib.suppress(UserError):
            trained_as(file)
        found = load_weights(file, "small", self.network, no_layouts)
        for leaf, whole in zip(jax.tree.leaves(found), jax.tree.leaves(self.params), strict=True):
            np.testing.assert_array_equal(np.asarray(leaf), whole)


class Options(Kind):
    """Values of every option of every config, and flags of every command."""

    def __init__(self, rng):
        import sphere_jax
        from sphere_jax.config.config_files import shipped
        from sphere_jax.config.option_reference import help_of

        self.configs = sorted(str(file) for file in shipped("configs").glob("*.py"))
        text = help_of("all")
        self.names = sorted({w.split("=")[0] for w in text.split() if w.startswith("config.")})
        package = Path(sphere_jax.__file__).parent
        quick = ("main", "sample", "edit", "evaluate", "compare", "convert", "ema", "preflight",
                 "prepare", "probe", "rehearse")  # fmt: skip
        self.commands = [name for name in quick if (package / f"{name}.py").is_file()]
        self.flags = {}
        for name in self.commands:
            source = (package / f"{name}.py").read_text()
            words = {w.strip("\"',()") for w in source.split()}
            self.flags[name] = sorted(w for w in words if w.startswith("--") and w.isascii())

    def make(self, folder, rng):
        pass

    def read(self, folder, rng):
        from sphere_jax.config.config_files import load_config

        if rng.random() < 0.75:
            file = str(rng.choice(self.configs))
            names = rng.choice(self.names, rng.integers(1, 4))
            load_config(file, [f"--{name}={self._value(rng)}" for name in names])
            return
        name = str(rng.choice(self.commands))
        module = __import__(f"sphere_jax.{name}", fromlist=["main"])
        argv = []
        for flag in rng.choice(self.flags[name], rng.integers(0, 4)):
            value = self._value(rng)
            argv += (
                [f"{flag}={value}"]
                if rng.random() < 0.7
                else [str(flag), value][: rng.integers(1, 3)]
            )
        if rng.random() < 0.3:
            argv.insert(0, self._value(rng))
        if "--fetch" in " ".join(argv) or "--help" in argv or "-h" in argv:
            return
        with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
            module.main(argv)

    def _value(self, rng) -> str:
        if rng.random() < 0.3:
            text = str(rng.choice(["3", "0.5", "True", "slerp", "4,4", "(1,2)", "none", "digits"]))
            return spoiling.spoilt(text.encode(), rng, 1).decode("utf-8", "surrogateescape")
        value = spoiling.VALUES[rng.integers(len(spoiling.VALUES))]
        return (
            str(value)[:3500] if not (isinstance(value, int) and abs(value) > 2**70) else "9" * 400
        )


KINDS = {
    "pictures": Pictures, "arrays": Arrays, "records": Records, "weights": Weights,
    "converted": Converted, "options": Options,
}  # fmt: skip


def _png(image: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(image.squeeze()).save(target, "png")
    return target.getvalue()


def _odd(array: np.ndarray, rng) -> np.ndarray:
    """Another type, shape, or content."""
    array = np.asarray(array)
    array = array.reshape(1, -1)[0] if not array.ndim or not array.size else array
    if not array.size:
        return array
    some = array.ravel()[:3]
    choices = (
        lambda: array[:0],
        lambda: np.asarray(array.ravel()[0]),
        lambda: array[None],
        lambda: array.ravel(),
        lambda: array.astype(np.float64) if array.dtype.kind in "iuf" else array,
        lambda: np.full(array.shape, np.nan),
        lambda: array.astype(np.complex64) if array.dtype.kind in "iuf" else array,
        lambda: np.array([{"a": 1}, None, 3], object),
        lambda: np.array(["é", "b"]),
        lambda: np.array([b"\xff\xfe", b"b"]),
        lambda: np.zeros(3, [("a", "i4"), ("b", "f8")]),
        lambda: np.array(["2020-01-01"], "M8[D]"),
        lambda: -array.astype(np.int64) - 5 if array.dtype.kind in "iu" else -array
        if array.dtype.kind == "f" else array,
        lambda: np.full(array.shape, 2**63 - 1, np.int64),
        lambda: np.full(array.shape, 2**64 - 1, np.uint64),
        lambda: np.asfortranarray(array),
        lambda: array.astype(">i4") if array.dtype.kind in "iu" else array,
        lambda: array[:-1] if array.ndim else array,
        lambda: np.concatenate([some, some]),
        lambda: np.zeros((0, 4)),
        lambda: array.astype(bool) if array.dtype.kind in "iuf" else array,
        lambda: np.asarray(json.dumps(spoiling.spoilt_tree(MADE, rng))),
    )  # fmt: skip
    return choices[rng.integers(len(choices))]()


def _spoil_json(file: Path, rng) -> None:
    file.write_bytes(spoiling.spoilt_json(file.read_bytes(), rng))


def _attack(target: Path, content: bytes, rng) -> bytes:
    """A pickle that would write a file, alone or in place of the one in a zip of PyTorch."""

    class Trap:
        def __init__(self, call, *arguments):
            self.reduced = call, arguments

        def __reduce__(self):
            return self.reduced

    import builtins
    import importlib

    touch = f"open({str(target)!r}, 'w')"
    traps = (
        Trap(builtins.open, str(target), "w"),
        Trap(builtins.eval, touch),
        Trap(builtins.exec, touch),
        Trap(os.mkdir, str(target)),
        Trap(importlib.import_module, "antigravity"),
        Trap(getattr, Path(target), "touch"),
    )
    trap = {"a": traps[rng.integers(len(traps))], "w": np.zeros(2, np.float32)}
    attack = pickle.dumps(trap, int(rng.integers(0, 5)))
    if content.startswith(b"PK"):
        import zipfile

        source, sink = io.BytesIO(content), io.BytesIO()
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(sink, "w") as new:
            for name in old.namelist():
                new.writestr(name, attack if name.endswith("data.pkl") else old.read(name))
        return sink.getvalue()
    return spoiling.spoilt(attack, rng, 1) if rng.random() < 0.3 else attack


def judged(kind: Kind, folder: Path, rng) -> str:
    """What is wrong with how a case was answered; "" if nothing is."""
    start, worked, wrong = time.monotonic(), time.process_time(), ""
    try:
        kind.read(folder, rng)
    except kind.allowed as error:
        if "\n" in str(error) or not str(error) or type(error) not in kind.allowed:
            wrong = f"{type(error).__name__}, not one sentence: {str(error)[:300]}"
            wrong += "\n" + traceback.format_exc()
    except BaseException:
        wrong = traceback.format_exc()
    took, worked = time.monotonic() - start, time.process_time() - worked
    if worked > SLOW or took > HANG:
        wrong += f"took {took:.0f} s, {worked:.0f} of them on the processor"
    return wrong


def _is_forbidden(event: str, arguments: tuple) -> bool:
    """Packages that are installed load libraries of their own, and git is asked for the version
    that is noted in what is written."""
    installed = event == "ctypes.dlopen" and str(arguments[0]).startswith(sys.prefix)
    asked = event in STARTS and os.path.basename(os.fsdecode(arguments[0])) == "git"
    return event in FORBIDDEN and not installed and not asked


def main(name: str, cases: int, seed: int, base: Path, only: int | None = None) -> int:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    forbidden = []
    kind = KINDS[name](np.random.default_rng(seed))
    sys.addaudithook(
        lambda event, arguments: (
            forbidden.append((event, arguments)) if _is_forbidden(event, arguments) else None
        )
    )
    failures: dict[str, list[int]] = {}
    start = time.monotonic()
    for case in range(cases) if only is None else (only,):
        rng = np.random.default_rng([seed, case])
        folder = base / f"{name}-{case}"
        folder.mkdir(parents=True)
        (base / f"{name}.case").write_text(str(case))  # of one that crashes
        kind.make(folder, rng)
        forbidden.clear()
        faulthandler.dump_traceback_later(HANG + SLOW, exit=True)
        wrong = judged(kind, folder, rng)
        faulthandler.cancel_dump_traceback_later()
        if forbidden:
            wrong += f"\nran {forbidden[0]}"
        if wrong:
            failures.setdefault(_place(wrong), []).append(case)
            if len(failures[_place(wrong)]) == 1:
                print(f"--- {name} {case} (seed {seed})\n{wrong}", flush=True)
        else:
            _remove(folder)
    took = time.monotonic() - start
    print(f"{name}: {cases} cases, seed {seed}, {took:.0f} s, {len(failures)} kinds of failure")
    for place, numbers in failures.items():
        print(f"{len(numbers):5d}  {place}  {numbers[:SHOWN]}")
    return bool(failures)


def _place(wrong: str) -> str:
    """Where it was raised, so that each fault is shown once."""
    lines = [line.partition("/sphere_jax/")[2] for line in wrong.splitlines()]
    last = wrong.strip().splitlines()[-1]
    return f"{next((line for line in reversed(lines) if line), '')}: {last.partition(':')[0]}"


def _remove(folder: Path) -> None:
    for place, inner, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(Path(place, name))
        for name in inner:
            os.rmdir(Path(place, name))
    os.rmdir(folder)


if __name__ == "__main__":
    command, *numbers = sys.argv[1:]
    folder = Path(numbers[2])
    shutil.rmtree(folder, ignore_errors=True)
    chosen = int(numbers[3]) if len(numbers) > 3 else None
    code = main(command, int(numbers[0]), int(numbers[1]), folder, chosen)
    sys.stdout.flush()
    os._exit(code)
