"""Draft distillation (AdaSPEC, DistillSpec) and lossless speculative decoding in JAX.

Shape letters used as name suffixes throughout:
``B`` batch, ``T`` time, ``S`` cache slots, ``N`` proposal nodes, ``M`` = N + 1 verified rows (the root and the nodes),
``V`` vocabulary, ``D`` width, ``H`` heads, ``K`` head size, ``L`` layers.
"""

__version__ = "0.1.0"
