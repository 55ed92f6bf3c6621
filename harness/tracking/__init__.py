"""What is kept of a run: the JSON record that git holds, its mirror in MLflow, and the progress shown meanwhile."""
