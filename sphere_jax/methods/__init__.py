"""One file per system: its objective, and how it generates.

A method is an object with

    trains            what its parameters are called among a run's artifacts
    preview_columns   how many pictures of a preview stand in a row
    is_transformer    whether its loss is matrix products without convolutions
    frozen(artifacts)                        -> what it takes from earlier stages
    init(key, frozen)                        -> params
    source(split, frozen, encode_all)        -> the Source that its batches come from, and held out
    loss(params, frozen, batch, keys)        -> scalar, {name: scalar}
    preview(params, frozen, batch, key)      -> uint8 images (N,H,W,C) to look at while it trains
    finish(params, frozen, split, map_over)  -> Outcome: what it measured when done

all pure functions of arrays. `keys` holds one PRNG key per sample, so that splitting a batch over
micro-batches or devices changes no draw. Adding a system means adding a file here, its settings to
`config.py` and a line to `experiment.py`.
"""
