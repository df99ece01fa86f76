"""Measurements that docs/ quotes. Most need what requirements.txt lists; those for a bare machine
(`benchmarks.accelerator`) get stand-ins of what is missing there."""

from benchmarks import bare as bare
