"""The evaluation: plan, run, judge and report.  docs/EVALUATION.md says how."""
