"""From cells to results: stage keys, the store of their folders, the plan, its execution. Nothing here imports torch."""
