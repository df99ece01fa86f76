"""Images and latents as random-access sources, and the input pipeline over them."""
