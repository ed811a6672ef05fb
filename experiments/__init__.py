"""The commands: `plan-eval` and `goalward <verb>`; evaluation, statistics and reports. May import every other folder."""
