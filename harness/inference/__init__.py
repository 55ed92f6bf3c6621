"""How fast a pruned model runs: packed weights, kernels that multiply them, engines that are timed."""
