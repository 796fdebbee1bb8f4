"""What a run's metrics are shown as: a table, CSV, JSON lines, Prometheus' format, TensorBoard's files."""
