"""Ours against the package a user would pick instead: to the same accuracy, on the same data, in one run."""
