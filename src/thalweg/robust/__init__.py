"""A decision before the uncertainty, one after."""
