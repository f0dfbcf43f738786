"""A run folder: a study and its stages, run.json, locks, configuration, the pipeline, and what a run costs."""
