"""Benchmarks: kluis beside a stock OpenBao, on one machine, in one run."""
