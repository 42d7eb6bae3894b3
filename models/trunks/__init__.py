"""Shared feature extractors: one trunk feeds every head.

A trunk is a module that

- takes the model's inputs, positionally where there is one, by name where there are several;
- returns features `[batch, features]`, or a dict of named features: `pooled` `[batch, features]`, `tokens`
  `[batch, sequence, features]`, maps `[batch, channels, height, width]`;
- has `out_features`, the width of its pooled features (and of its tokens, where it has any);
- has `blocks()`: its parts from bottom (nearest the input) to top, each parameter in exactly one. What freezes or
  unfreezes a trunk, or slows the learning of its lower parts, goes by these.
"""
