"""Decisions as the data comes: bandits that `act` and `learn`, episodes, searches, predictions good on every group."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
