"""The registry of experiments: YAML entries read with their lines, checked, and expanded into the cells of a table."""
