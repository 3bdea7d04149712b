"""Kills at random moments: ``python -m benchmarks.endurance --kills 20 --terms 10``, for each of the workloads.

Each is started, killed at a random moment by SIGKILL or SIGTERM, and started again with what it had kept, until it has
ended. Counted: answers that differ from those of a run that nobody killed, processes left behind, files half written,
and what was lost.
"""
