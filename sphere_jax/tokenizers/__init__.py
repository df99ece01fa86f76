"""One file per tokenizer: images to latents and back. What a tokenizer is: `base.py`."""
