"""V-JEPA 2-AC's public code beside ours: what the two benchmarks share. Nothing of the public code is here; a checkout of it is given."""
