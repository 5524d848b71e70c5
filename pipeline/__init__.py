"""Effects: configs, clock, MLflow, tables, command line and reports."""
