"""Our zero-shot suites: lm-eval tasks in lm-eval's own YAML, over data generated from installed libraries.

They work in lm-eval too: `lm_eval --include_path` with this folder. The harness reads the data set's name for planning
from `dataset_kwargs: {data: ...}`, and every suite is judged on its `test_split`.
"""
