"""What a decoder reads of its tokens: their length or their direction (methods.md A.4, D.8)."""
