"""What a decoder reads of its tokens: their length or their direction (arXiv 2605.15193;
arXiv 2601.22904; docs/systems/spherical_flow.md#probes, docs/systems/hae.md#probes)."""
