"""An optimization inside another: derivatives of solutions with respect to what the problem was made of."""

from thalweg.bilevel.implicit import (
    NotARoot,
    SolveInaccurate,
    custom_fixed_point,
    custom_root,
    root_jvp,
    root_vjp,
)

__all__ = ["NotARoot", "SolveInaccurate", "custom_fixed_point", "custom_root", "root_jvp", "root_vjp"]
