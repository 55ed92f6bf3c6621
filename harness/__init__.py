"""A research harness for sparse fine-tuning of language models: registry, pruning, tuning, evaluation, records."""

__version__ = "0.1.0"
