"""From cells to results: stage keys, the store, the plan and its execution. Nothing here imports torch."""
