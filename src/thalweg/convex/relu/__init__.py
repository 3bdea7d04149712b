"""Two-layer ReLU networks by convex optimization."""
