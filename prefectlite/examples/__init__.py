"""Flows that ship with prefectlite, to run by name: ``prefectlite run prefectlite.examples.hello``."""
