"""What spreads work units over processes or machines. All of them run `polyhead.serving.scoring.runner.run_unit`."""
