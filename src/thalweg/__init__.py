"""thalweg: published optimization systems with one vocabulary, tested, fast, and with evidence.

The names load on first use, so that ``import thalweg`` stays instant; ``__init__.pyi`` lists them.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
