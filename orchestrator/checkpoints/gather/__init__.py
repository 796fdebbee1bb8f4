"""A program that writes a checkpoint's weights as one model; it needs torch, and DeepSpeed for its shards.

It is copied and started with the Python of the training, which need not have the rest of this package.
"""
