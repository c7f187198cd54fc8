"""The driver of performance.py: processes, measurements, tables, plots."""
