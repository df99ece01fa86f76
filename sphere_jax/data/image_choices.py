"""The named ways to bring images to a size and to uint8, for those who must not import Pillow."""

RESIZES = ("bicubic", "bilinear", "box", "lanczos", "nearest", "adm")  # `data.pictures.fit`
CROPS = ("center", "none")  # the middle is kept, or the whole is stretched
ROUNDINGS = ("nearest", "truncated", "floor")  # `evaluation.sides.array_side.rounded`
SPLITS = ("train", "heldout")  # of a data source
