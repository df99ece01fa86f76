"""Latents in files: what is written comes back, and damaged or foreign files are refused."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from refusals import refusal_of

from sphere_jax.common.files import SEAL
from sphere_jax.common.temporary import temporary_beside
from sphere_jax.config.options import DataOptions, EvaluationOptions
from sphere_jax.data.cached_latents import as_used, surely_finite
from sphere_jax.data.latent_cache import DTYPES, CacheWriter, check_cache, read_cache
from sphere_jax.data.pipeline import Batches, index_batches
from sphere_jax.data.record_files import whole_records
from sphere_jax.data.source import Source, load
from sphere_jax.data.sources.cache import SOURCE
from sphere_jax.distribution.mesh import batch_sharding, make_mesh

SHAPE = (2, 3, 4)
COUNTS = {"train": 11, "heldout": 4}
MADE_WITH = {"config.tokenizer.kind": "sd", "config.data.image_size": 16}


def latents(part):
    """As they are and mirrored: float32 (N, 2, h, w, d)."""
    rng = np.random.default_rng(COUNTS[part])
    return rng.normal(3.0, 2.0, (COUNTS[part], 2, *SHAPE)).astype(np.float32)


def labels():
    return {part: np.arange(count, dtype=np.int32) % 2 for part, count in COUNTS.items()}


def writer(folder, dtype="float32", **changed) -> CacheWriter:
    plan = {"made_with": MADE_WITH, "latent_shape": SHAPE, "dtype": dtype, "shard_size": 4}
    return CacheWriter(folder, plan | changed, labels())


def batches(shard, values=None):
    values = latents(shard.part) if values is None else values
    for start in range(shard.start, shard.stop, 3):
        yield values[start : min(start + 3, shard.stop)]


def fill(folder, dtype="float32", **changed):
    cache = writer(folder, dtype, **changed)
    cache.write_plan()
    for shard in cache.shards:
        cache.write(shard, batches(shard))
    return cache.write_index()


def data(folder) -> DataOptions:
    return DataOptions(source="cache", path=str(folder), num_classes=2)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_written_records_are_read_back(tmp_path, dtype):
    fill(tmp_path, dtype)
    for part, source in vars(load(data(tmp_path))).items():
        expected = latents(part).astype(DTYPES[dtype]).astype(np.float32)
        found = source.arrays["latents"]
        assert found.shape == (COUNTS[part], *SHAPE) and found.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(found), expected[:, 0])
        np.testing.assert_array_equal(source.labels, labels()[part])
        rows, mirrored = np.array([3, 0, 2, 3, 3]), np.array([True, False, True, False, True])
        both = source.read(rows, mirrored)
        np.testing.assert_array_equal(both["latents"], expected[rows, mirrored.astype(int)])
        np.testing.assert_array_equal(both["labels"], labels()[part][rows])
        np.testing.assert_array_equal(source.read(rows)["latents"], expected[rows, 0])
        np.testing.assert_array_equal(found[2], expected[2, 0])
        np.testing.assert_array_equal(found[1:3], expected[1:3, 0])
        np.testing.assert_array_equal(found[np.arange(len(found)) == 1], expected[1:2, 0])


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("normalised", [False, True])
def test_latents_are_of_16_bits_until_they_are_on_the_device(tmp_path, dtype, normalised):
    """A jitted function makes of what was stored what the host makes of it, to the bit."""
    fill(tmp_path, dtype)
    source = load(data(tmp_path)).train
    if normalised:
        rng = np.random.default_rng(0)
        mean, std = rng.normal(size=4).astype(np.float32), rng.uniform(0.1, 3, 4).astype(np.float32)
        cached = dataclasses.replace(source.arrays["latents"], mean=mean, std=std)
        source = Source(source.arrays | {"latents": cached})
    batch = next(Batches(source, 8, 0, batch_sharding(make_mesh()), flip=True))
    assert batch["latents"].dtype == DTYPES[dtype]
    used = jax.jit(as_used)(batch)
    (rows, mirrored), expected = index_batches(11, 8, 0)[0], latents("train").astype(DTYPES[dtype])
    expected = expected[rows, mirrored.astype(int)].astype(np.float32)
    if normalised:
        expected = (expected - mean) / std
    assert used.keys() == {"latents", "labels"} and used["latents"].dtype == np.float32
    np.testing.assert_array_equal(np.asarray(used["latents"]), expected)
    np.testing.assert_array_equal(source.read(rows, mirrored)["latents"], expected)


def test_finite_numbers_are_told_by_their_bits():
    for dtype, values in itertools.product(DTYPES.values(), ([1.0, -2.5], [-0.0, 6e4], [-6e4, 1])):
        assert surely_finite(np.array(values, dtype), 0.0, 1.0)
    for dtype, wrong in itertools.product(DTYPES.values(), (np.nan, -np.nan, np.inf, -np.inf)):
        assert not surely_finite(np.array([1.0, wrong], dtype), 0.0, 1.0)
    assert not surely_finite(np.ones(2, np.float16), np.zeros(4), np.array([1.0, 0.0, 1.0, 1.0]))


def test_statistics_are_those_of_the_stored_training_tokens(tmp_path):
    found = fill(tmp_path, "float16")["statistics"]
    tokens = latents("train").astype(np.float16).astype(np.float64).reshape(-1, SHAPE[-1])
    norms = np.linalg.norm(tokens, axis=1)
    expected = {
        "tokens": 11 * 2 * 6,
        "channel_mean": tokens.mean(0),
        "channel_std": tokens.std(0),
        "token_norm_mean": norms.mean(),
        "token_norm_std": norms.std(),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_statistics_keep_a_small_spread_about_a_large_mean(tmp_path):
    cache = writer(tmp_path)
    cache.write_plan()
    rng = np.random.default_rng(0)
    values = (1e4 + rng.normal(0.0, 1.0, (11, 2, *SHAPE))).astype(np.float32)
    for shard in cache.shards:
        cache.write(shard, batches(shard, values))
    tokens = values.astype(np.float64).reshape(-1, SHAPE[-1])
    np.testing.assert_allclose(
        cache.write_index()["statistics"]["channel_std"], tokens.std(0), rtol=1e-9
    )


def test_writing_resumes_where_it_was_cut_off(tmp_path):
    class Killed(Exception):
        pass

    def cut_off(shard):
        yield next(batches(shard))
        raise Killed

    cache = writer(tmp_path)
    cache.write_plan()
    first, second, *_ = cache.shards
    cache.write(first, batches(first))
    with pytest.raises(Killed):
        cache.write(second, cut_off(second))
    assert "not finished" in refusal_of(read_cache, tmp_path)
    again = writer(tmp_path)
    assert [again.is_finished(shard) for shard in again.shards] == [True] + [False] * 3
    for shard in again.shards[1:]:
        again.write(shard, batches(shard))
    again.write_index()
    assert all(again.is_finished(shard) for shard in again.shards)
    whole = tmp_path / "whole"
    fill(whole)
    assert load(data(tmp_path)).train.fingerprint == load(data(whole)).train.fingerprint


def test_a_folder_of_another_plan_is_refused(tmp_path):
    fill(tmp_path)
    assert "started with dtype='float32', not 'float16'" in refusal_of(writer, tmp_path, "float16")
    other = {"made_with": MADE_WITH | {"config.tokenizer.kind": "flux1"}}
    words = refusal_of(lambda: writer(tmp_path, **other))
    assert "started with config.tokenizer.kind='sd', not 'flux1'" in words
    check_cache(tmp_path, MADE_WITH)
    words = refusal_of(check_cache, tmp_path, MADE_WITH | {"config.data.image_size": 32})
    assert "made with config.data.image_size=16, not 32" in words


def test_damage_is_detected(tmp_path):
    fill(tmp_path)
    cache, file = writer(tmp_path), tmp_path / "train-00001.arrayrecord"
    whole = bytearray(file.read_bytes())
    record = latents("train")[5, 1].tobytes()  # the second image of the second shard
    whole[whole.find(record)] ^= 1
    file.write_bytes(whole)
    assert [cache.is_finished(shard) for shard in cache.shards] == [True, False, True, True]
    train = load(data(tmp_path)).train
    assert train.read(np.array([0, 4]))["latents"].shape == (2, *SHAPE)
    words = refusal_of(train.read, np.array([5]), np.array([True]))
    assert "train-00001.arrayrecord is damaged" in words
    file.write_bytes(whole[:-1])
    assert "missing or cut off" in refusal_of(load, data(tmp_path))
    file.unlink()
    assert "missing or cut off" in refusal_of(load, data(tmp_path))
    (tmp_path / "train-00001.json").write_text('{"images": 2, "bytes": null}')
    assert "train-00001.json is damaged" in refusal_of(cache.is_finished, cache.shards[1])
    cache.write(cache.shards[1], batches(cache.shards[1]))
    np.testing.assert_array_equal(
        load(data(tmp_path)).train.arrays["latents"][5], latents("train")[5, 0]
    )


def test_a_folder_that_is_no_cache_is_a_user_error(tmp_path):
    assert "holds no latent cache" in refusal_of(load, data(tmp_path / "none"))
    fill(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    changed = index | {"statistics": {}}
    (tmp_path / "index.json").write_text(json.dumps(changed))
    assert "index.json is damaged (its content has changed)" in refusal_of(load, data(tmp_path))
    del index[SEAL]  # as of an older version
    (tmp_path / "index.json").write_text(json.dumps(index))
    np.savez(tmp_path / "labels.npz", train=np.zeros(3, np.int32), heldout=np.zeros(4, np.int32))
    assert "labels.npz is of another cache" in refusal_of(load, data(tmp_path))
    for change, words in (
        ({"shards": {"train": [], "heldout": [{"name": "a"}]}}, "'images' is missing"),
        ({"shards": {"train": []}}, "'heldout' is missing"),
        ({"latent_shape": [2, 2]}, "'latent_shape' is none that is known"),
        ({"dtype": ["float32"]}, "'dtype' is none that is known"),
        ({"made_with": None}, "'made_with' is no object"),
    ):
        (tmp_path / "index.json").write_text(json.dumps(index | change))
        assert words in refusal_of(load, data(tmp_path))
    del index["shards"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert "index.json is damaged ('shards' is missing); delete it" in refusal_of(
        load, data(tmp_path)
    )
    (tmp_path / "index.json").write_text("{")
    assert "is damaged" in refusal_of(load, data(tmp_path))


def test_latents_that_do_not_fit_the_type_are_refused(tmp_path):
    cache, large = writer(tmp_path, "float16"), latents("train")
    cache.write_plan()
    large[6, 0, 0, 0, 0] = 1e5
    cache.write(cache.shards[0], batches(cache.shards[0], large))
    words = refusal_of(lambda: cache.write(cache.shards[1], batches(cache.shards[1], large)))
    assert "1e+05, more than float16 holds" in words
    large[6, 0, 0, 0, 0] = np.nan
    words = refusal_of(lambda: cache.write(cache.shards[1], batches(cache.shards[1], large)))
    assert "not finite for image 6 of the part 'train' (train-00001)" in words
    assert not cache.is_finished(cache.shards[1])


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    words = refusal_of(writer, tmp_path)
    assert "holds thesis.tex and no plan.json" in words and list(tmp_path.glob("plan*")) == []


def test_a_failed_write_is_a_user_error(tmp_path):
    cache = writer(tmp_path)
    shard = cache.shards[0]
    temporary_beside(tmp_path / f"{shard.name}.arrayrecord").mkdir()  # where its file would be
    assert "Cannot write" in refusal_of(lambda: cache.write(shard, batches(shard)))

    def failing():
        yield next(batches(shard))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):  # which is not the disk's fault
        cache.write(cache.shards[1], failing())
    assert not list(tmp_path.glob(f".{cache.shards[1].name}*"))


def test_a_plan_may_change_until_a_shard_is_written(tmp_path):
    first = writer(tmp_path, "float16")
    first.write_plan()
    other = writer(tmp_path, "float32")
    other.write_plan()
    other.write(other.shards[0], batches(other.shards[0]))
    words = refusal_of(lambda: writer(tmp_path, "float16"))
    assert "started with dtype='float32', not 'float16'" in words


def test_a_fingerprint_sees_content_and_making(tmp_path):
    def found(folder, **changed):
        fill(tmp_path / folder, **changed)
        return load(data(tmp_path / folder)).train.fingerprint

    assert found("a") == found("b")
    assert found("a") != found("c", dtype="bfloat16")
    assert found("a") != found("d", made_with={"config.tokenizer.kind": "flux1"})


def test_cached_latents_are_mirrored_where_images_would_be(tmp_path):
    """Which examples a batch holds and which are mirrored is a function of the seed alone."""
    fill(tmp_path)
    cached, both = load(data(tmp_path)).train, latents("train")
    # an image whose left pixel is dark: its number is the other pixel
    images = np.zeros((11, 1, 2, 1), np.uint8)
    images[:, 0, 1, 0] = 1 + np.arange(11)
    pictures = Source({"images": images, "labels": cached.labels})
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), "data"), PartitionSpec("data"))

    def drawn(source, flip=True):
        made = Batches(source, 5, 3, sharding, flip)
        return [{k: np.asarray(v) for k, v in next(made).items()} for _ in range(6)]

    turned = 0
    for a, b in zip(drawn(cached), drawn(pictures), strict=True):
        left, right = b["images"][:, 0, :, 0].astype(int).T
        mirrored = left > 0
        np.testing.assert_array_equal(a["latents"], both[left + right - 1, mirrored.astype(int)])
        np.testing.assert_array_equal(a["labels"], b["labels"])
        turned += mirrored.sum()
    assert 5 < turned < 25
    for a, b in zip(drawn(cached, flip=False), drawn(pictures, flip=False), strict=True):
        np.testing.assert_array_equal(a["latents"], both[b["images"][:, 0, 1, 0] - 1, 0])


class Tokenizer:
    """Its options are what its latents are made with, and statistics (mean, std) or None."""

    trained_here, decodes = False, True

    @classmethod
    def trained_by_run(cls, options):
        return cls.trained_here

    @staticmethod
    def latents_made_with(data, options):
        return options.made_with

    @staticmethod
    def statistics_to_apply(data, options, made_with):
        return options.statistics if made_with == options.made_with else None


@dataclasses.dataclass
class Options:
    made_with: dict
    statistics: tuple | None
    samples: bool


def config(
    folder, made_with=MADE_WITH, statistics=None, tokenizer=Tokenizer, samples=False, **evaluation
):
    return SimpleNamespace(
        data=data(folder) if folder else DataOptions(source="cache"),
        tokenizer=Options(made_with, statistics, samples),
        tokenizer_class=tokenizer,
        evaluation=EvaluationOptions(**evaluation),
    )


def test_a_run_loads_the_cache_of_its_tokenizer(tmp_path):
    fill(tmp_path)
    rows, mirrored = np.arange(11), np.arange(11) % 2 == 0
    plain = SOURCE.load_for(config(tmp_path)).train.read(rows, mirrored)["latents"]
    np.testing.assert_array_equal(plain, latents("train")[rows, mirrored.astype(int)])
    mean, std = np.float32([1.0, 2.0, 3.0, 4.0]), np.float32([1.0, 2.0, 4.0, 8.0])
    for part, source in vars(SOURCE.load_for(config(tmp_path, statistics=(mean, std)))).items():
        found = source.read(np.arange(4))["latents"]
        np.testing.assert_array_equal(found, (latents(part)[:4, 0] - mean) / std)
    other = MADE_WITH | {"config.data.image_size": 32}
    words = refusal_of(SOURCE.load_for, config(tmp_path, other, (mean, std)))
    assert "made with config.data.image_size=16, not 32" in words
    assert "config.data.path is empty" in refusal_of(SOURCE.load_for, config(""))


def test_means_and_deviations_are_stored_to_sample_from(tmp_path):
    deviations = {part: 0.1 + np.abs(np.roll(latents(part), 1, -1)) for part in COUNTS}
    both = {part: np.stack([latents(part), deviations[part]], 2) for part in COUNTS}
    cache = writer(tmp_path / "cache", moments=True)
    cache.write_plan()
    for shard in cache.shards:
        cache.write(shard, batches(shard, both[shard.part]))
    statistics = cache.write_index()["statistics"]

    rows, mirrored = np.arange(11), np.arange(11) % 2 == 0
    mean, std = np.float32([1.0, 2.0, 3.0, 4.0]), np.float32([1.0, 2.0, 4.0, 8.0])
    split = SOURCE.load_for(config(tmp_path / "cache", statistics=(mean, std), samples=True))
    found, turned = split.train.read(rows, mirrored), mirrored.astype(int)
    np.testing.assert_array_equal(found["latents"], (latents("train")[rows, turned] - mean) / std)
    np.testing.assert_array_equal(found["latent_std"], deviations["train"][rows, turned] / std)
    plain = SOURCE.load_for(config(tmp_path / "cache")).train.read(rows)
    assert plain.keys() == {"latents", "labels"}  # their means alone
    np.testing.assert_array_equal(plain["latents"], latents("train")[:, 0])

    # Of one sample of each: 132 tokens, so that the spread is known to about a tenth.
    variance = latents("train").var((0, 1, 2, 3)) + (deviations["train"] ** 2).mean((0, 1, 2, 3))
    np.testing.assert_allclose(np.square(statistics["channel_std"]), variance, rtol=0.4)
    assert np.all(np.square(statistics["channel_std"]) > 1.2 * latents("train").var((0, 1, 2, 3)))
    again = writer(tmp_path / "again", moments=True)
    again.write_plan()
    for shard in again.shards:  # in batches of another size
        again.write(shard, [both[shard.part][shard.start : shard.stop]])
    np.testing.assert_allclose(
        again.write_index()["statistics"]["channel_std"], statistics["channel_std"], rtol=1e-12
    )

    fill(tmp_path / "old")
    words = refusal_of(SOURCE.load_for, config(tmp_path / "old", samples=True))
    assert "holds no standard deviations, which config.tokenizer.latents='sample' needs" in words
    words = refusal_of(lambda: writer(tmp_path / "old", moments=True))
    assert "started with moments=None, not True" in words


@pytest.mark.parametrize("fact", [{"trained_here": True}, {"decodes": False}])
def test_a_cache_needs_a_tokenizer_whose_weights_are_in_files(tmp_path, fact):
    tokenizer = type("Other", (Tokenizer,), fact)
    wrong = SimpleNamespace(tokenizer=SimpleNamespace(name="t"), tokenizer_class=tokenizer)
    assert "config.tokenizer.name='t' are not known" in refusal_of(SOURCE.check, wrong)
    wrong.tokenizer_class = Tokenizer
    SOURCE.check(wrong)


def test_a_cache_stores_the_path_of_its_images(tmp_path):
    images, cache = tmp_path / "images.npz", tmp_path / "cache"
    plan = {"made_with": MADE_WITH, "latent_shape": SHAPE, "dtype": "float32", "shard_size": 4}
    plan["data"] = {"train": "a", "heldout": "b"}  # fingerprints
    written = CacheWriter(cache, plan, labels(), {"source": "npz", "path": str(images)})
    written.write_plan()
    for shard in written.shards:
        written.write(shard, batches(shard))
    written.write_index()

    def behind(**evaluation):
        return SOURCE.images_behind(config(cache, **evaluation))

    assert f"are not at {images}" in refusal_of(behind)
    images.touch()
    expected = dataclasses.replace(data(cache), source="npz", path=str(images))
    assert behind() == expected
    assert behind(data_path=str(cache)) == dataclasses.replace(expected, path=str(cache))
    assert behind(data_source="digits") == dataclasses.replace(expected, source="digits", path="")
    named = dict(data_source="tfds", data_path="imagenet2012")  # not a path
    assert behind(**named) == dataclasses.replace(expected, source="tfds", path="imagenet2012")
    assert SOURCE.made_of(data(cache)) == {"train": "a", "heldout": "b"}
    fill(tmp_path / "older")
    older = config(tmp_path / "older")
    assert "does not say which images" in refusal_of(SOURCE.images_behind, older)


def test_latents_that_are_not_finite_are_named(tmp_path):
    fill(tmp_path)
    values = latents("train")[4:8]  # of the second shard
    values[2, 1, 0, 0, 0] = np.nan  # image 6, mirrored
    with whole_records(tmp_path / "train-00001.arrayrecord") as add:
        add(record.tobytes() for record in values.reshape(-1, *SHAPE))
    train = load(data(tmp_path)).train
    rows = np.arange(11)
    assert np.isfinite(train.read(rows)["latents"]).all()
    words = refusal_of(train.read, rows, rows > 5)
    assert f"image 6 in {tmp_path / 'train-00001.arrayrecord'} are not finite" in words
    zero = dataclasses.replace(train.arrays["latents"], std=np.zeros(4))
    with np.errstate(divide="ignore"):
        words = refusal_of(zero.take, rows[:1], rows[:1] > 0)
    assert "check config.tokenizer.pretrained_statistics" in words
