"""Measures headrace against its peers and against the floor; see benchmarks/README.md."""
