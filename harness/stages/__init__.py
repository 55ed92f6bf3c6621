"""Stages: verbs that read their parents' folders, call functions, and write one folder; one file a stage."""
