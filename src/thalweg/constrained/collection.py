"""Small test problems of the literature, stated from their formulas, with their starts and best known values.

Hock and Schittkowski (1981), "Test examples for nonlinear programming codes" (HS); Boggs and Tolle (1989), "A
strategy for global convergence in a sequential quadratic programming algorithm" (BT); More, Garbow and Hillstrom
(1981); systems of equations have f = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from thalweg.constrained.problem import EqualityConstrained
from thalweg.core import UnknownName


@dataclass(frozen=True)
class Formulas:
    """A problem as text: minimise, subject to, x0; the best known value, and others that local methods end in."""

    minimize: str
    subject_to: tuple[str, ...]
    x0: tuple[float, ...]
    optimum: float
    local: tuple[float, ...] = ()


def _more_boundary(n: int) -> tuple[str, ...]:
    h = 1.0 / (n + 1)
    x = ["0", *(f"x{i}" for i in range(1, n + 1)), "0"]
    return tuple(
        f"2*{x[i]} - {x[i - 1]} - {x[i + 1]} + {h * h / 2}*({x[i]} + {i * h + 1})**3" for i in range(1, n + 1)
    )


def _integral(n: int) -> tuple[str, ...]:
    h = 1.0 / (n + 1)
    cubes = [f"(x{j} + {j * h + 1})**3" for j in range(1, n + 1)]
    equations = []
    for i in range(1, n + 1):
        before = " + ".join(f"{j * h}*{cubes[j - 1]}" for j in range(1, i + 1))
        after = " + ".join(f"{1 - j * h}*{cubes[j - 1]}" for j in range(i + 1, n + 1)) or "0"
        equations.append(f"x{i} + {h / 2}*({1 - i * h}*({before}) + {i * h}*({after}))")
    return tuple(equations)


def _trigonometric(n: int) -> tuple[str, ...]:
    cosines = " + ".join(f"cos(x{j})" for j in range(1, n + 1))
    return tuple(f"{n} - ({cosines}) + {i}*(1 - cos(x{i})) - sin(x{i})" for i in range(1, n + 1))


def _grid(n: int) -> tuple[float, ...]:
    return tuple(i / (n + 1) * (i / (n + 1) - 1) for i in range(1, n + 1))


_A, _B = math.asin(math.sqrt(1 / 4.2)), math.asin(math.sqrt(5 / 7.2))
_R2 = math.sqrt(2.0)
_HS77 = ("x1**2*x4 + sin(x4 - x5) - 2*sqrt(2)", "x2 + x3**4*x4**2 - 8 - sqrt(2)")
_F77 = "(x1 - 1)**2 + (x1 - x2)**2 + (x3 - 1)**2 + (x4 - 1)**4 + (x5 - 1)**6"
_F79 = "(x1 - 1)**2 + (x1 - x2)**2 + (x2 - x3)**2 + (x3 - x4)**4 + (x4 - x5)**4"
_F51 = "(x2 + x3 - 2)**2 + (x4 - 1)**2 + (x5 - 1)**2"
_C51 = ("x3 + x4 - 2*x5", "x2 - x5")
_HS39 = ("-x1", ("x2 - x1**3 - x3**2", "x1**2 - x2 - x4**2"), (2.0,) * 4, -1.0)

COLLECTION: dict[str, Formulas] = {
    "HS6": Formulas("(1 - x1)**2", ("10*(x2 - x1**2)",), (-1.2, 1.0), 0.0),
    "HS7": Formulas("log(1 + x1**2) - x2", ("(1 + x1**2)**2 + x2**2 - 4",), (2.0, 2.0), -math.sqrt(3.0)),
    "HS8": Formulas("-1", ("x1**2 + x2**2 - 25", "x1*x2 - 9"), (2.0, 1.0), -1.0),
    "HS9": Formulas("sin(pi*x1/12)*cos(pi*x2/16)", ("4*x1 - 3*x2",), (0.0, 0.0), -0.5),
    "HS26": Formulas(
        "(x1 - x2)**2 + (x2 - x3)**4", ("(1 + x2**2)*x1 + x3**4 - 3",), (-2.6, 2.0, 2.0), 0.0, (21.16,)
    ),
    "HS27": Formulas("0.01*(x1 - 1)**2 + (x2 - x1**2)**2", ("x1 + x3**2 + 1",), (2.0, 2.0, 2.0), 0.04),
    "HS28": Formulas("(x1 + x2)**2 + (x2 + x3)**2", ("x1 + 2*x2 + 3*x3 - 1",), (-4.0, 1.0, 1.0), 0.0),
    "HS39": Formulas(*_HS39),
    "HS40": Formulas(
        "-x1*x2*x3*x4", ("x1**3 + x2**2 - 1", "x1**2*x4 - x3", "x4**2 - x2"), (0.8,) * 4, -0.25, (0.0,)
    ),
    "HS42": Formulas(
        "(x1 - 1)**2 + (x2 - 2)**2 + (x3 - 3)**2 + (x4 - 4)**2",
        ("x1 - 2", "x3**2 + x4**2 - 2"),
        (1.0,) * 4,
        28 - 10 * _R2,
    ),
    "HS46": Formulas(
        "(x1 - x2)**2 + (x3 - 1)**2 + (x4 - 1)**4 + (x5 - 1)**6",
        ("x1**2*x4 + sin(x4 - x5) - 1", "x2 + x3**4*x4**2 - 2"),
        (_R2 / 2, 1.75, 0.5, 2.0, 2.0),
        0.0,
    ),
    "HS47": Formulas(
        "(x1 - x2)**2 + (x2 - x3)**3 + (x3 - x4)**4 + (x4 - x5)**4",
        ("x1 + x2**2 + x3**3 - 3", "x2 - x3**2 + x4 - 1", "x1*x5 - 1"),
        (2.0, _R2, -1.0, 2 - _R2, 0.5),
        0.0,
    ),
    "HS48": Formulas(
        "(x1 - 1)**2 + (x2 - x3)**2 + (x4 - x5)**2",
        ("x1 + x2 + x3 + x4 + x5 - 5", "x3 - 2*(x4 + x5) + 3"),
        (3.0, 5.0, -3.0, 2.0, -2.0),
        0.0,
    ),
    "HS49": Formulas(
        "(x1 - x2)**2 + (x3 - 1)**2 + (x4 - 1)**4 + (x5 - 1)**6",
        ("x1 + x2 + x3 + 4*x4 - 7", "x3 + 5*x5 - 6"),
        (10.0, 7.0, 2.0, -3.0, 0.8),
        0.0,
    ),
    "HS50": Formulas(
        "(x1 - x2)**2 + (x2 - x3)**2 + (x3 - x4)**4 + (x4 - x5)**2",
        ("x1 + 2*x2 + 3*x3 - 6", "x2 + 2*x3 + 3*x4 - 6", "x3 + 2*x4 + 3*x5 - 6"),
        (35.0, -31.0, 11.0, 5.0, -5.0),
        0.0,
    ),
    "HS51": Formulas(f"(x1 - x2)**2 + {_F51}", ("x1 + 3*x2 - 4", *_C51), (2.5, 0.5, 2.0, -1.0, 0.5), 0.0),
    "HS52": Formulas(f"(4*x1 - x2)**2 + {_F51}", ("x1 + 3*x2", *_C51), (2.0,) * 5, 1859 / 349),
    "HS56": Formulas(
        "-x1*x2*x3",
        (
            "x1 - 4.2*sin(x4)**2",
            "x2 - 4.2*sin(x5)**2",
            "x3 - 4.2*sin(x6)**2",
            "x1 + 2*x2 + 2*x3 - 7.2*sin(x7)**2",
        ),
        (1.0, 1.0, 1.0, _A, _A, _A, _B),
        -3.456,
        (0.0,),
    ),
    "HS61": Formulas(
        "4*x1**2 + 2*x2**2 + 2*x3**2 - 33*x1 + 16*x2 - 24*x3",
        ("3*x1 - 2*x2**2 - 7", "4*x1 - x3**2 - 11"),
        (0.0, 0.0, 0.0),
        -143.6461422,
        (-81.91,),
    ),
    "HS77": Formulas(_F77, _HS77, (2.0,) * 5, 0.24150513),
    "HS78": Formulas(
        "x1*x2*x3*x4*x5",
        ("x1**2 + x2**2 + x3**2 + x4**2 + x5**2 - 10", "x2*x3 - 5*x4*x5", "x1**3 + x2**3 + 1"),
        (-2.0, 1.5, 2.0, -1.0, -1.0),
        -2.91970041,
    ),
    "HS79": Formulas(
        _F79,
        ("x1 + x2**2 + x3**3 - 2 - 3*sqrt(2)", "x2 - x3**2 + x4 + 2 - 2*sqrt(2)", "x1*x5 - 2"),
        (2.0,) * 5,
        0.0787768209,
    ),
    "HS100LNP": Formulas(
        "(x1 - 10)**2 + 5*(x2 - 12)**2 + x3**4 + 3*(x4 - 11)**2 + 10*x5**6 + 7*x6**2 + x7**4"
        " - 4*x6*x7 - 10*x6 - 8*x7",
        (
            "2*x1**2 + 3*x2**4 + x3 + 4*x4**2 + 5*x5 - 127",
            "-4*x1**2 - x2**2 + 3*x1*x2 - 2*x3**2 - 5*x6 + 11*x7",
        ),
        (1.0, 2.0, 0.0, 4.0, 0.0, 1.0, 1.0),
        680.6300573,
    ),
    "BT1": Formulas("100*x1**2 + 100*x2**2 - x1 - 100", ("x1**2 + x2**2 - 1",), (0.08, 0.06), -1.0),
    "BT2": Formulas(
        "(x1 - 1)**2 + (x1 - x2)**2 + (x2 - x3)**4",
        ("x1*(1 + x2**2) + x3**4 - 4 - 3*sqrt(2)",),
        (10.0,) * 3,
        0.0325682,
    ),
    "BT3": Formulas(f"(x1 - x2)**2 + {_F51}", ("x1 + 3*x2", *_C51), (20.0,) * 5, 4.0930233),
    "BT4": Formulas(
        "x1 - x2 + x2**3",
        ("x1**2 + x2**2 + x3**2 - 25", "x1 + x2 + x3 - 1"),
        (4.0382, -2.9470, -0.09115),
        -45.5105510,
        (3.70477,),
    ),
    "BT5": Formulas(
        "1000 - x1**2 - 2*x2**2 - x3**2 - x1*x2 - x1*x3",
        ("x1**2 + x2**2 + x3**2 - 25", "8*x1 + 14*x2 + 7*x3 - 56"),
        (2.0,) * 3,
        961.7151721,
    ),
    "BT6": Formulas(_F77, _HS77, (2.0,) * 5, 0.24150513),
    "BT7": Formulas(
        "100*(x2 - x1**2)**2 + (x1 - 1)**2",
        ("x1*x2 - 1 - x3**2", "x2**2 - x4**2 + x1", "x1 + x5**2 - 0.5"),
        (-2.0, 1.0, 1.0, 1.0, 1.0),
        306.4996,
        (360.3798,),
    ),
    "BT8": Formulas(
        "x1**2 + x2**2 + x3**2",
        ("x1 - 1 - x4**2 + x2**2", "-1 + x1**2 + x2**2 - x5**2"),
        (1.0, 1.0, 1.0, 0.0, 0.0),
        1.0,
    ),
    "BT9": Formulas(*_HS39),
    "BT10": Formulas("-x1", ("x2 - x1**3", "x1**2 - x2"), (2.0, 2.0), -1.0, (0.0,)),
    "BT11": Formulas(
        _F79,
        ("x1 + x2**2 + x3**3 + 2 - 3*sqrt(2)", "x2 + x4 - x3**2 + 2 - 2*sqrt(2)", "x1 - x5 - 2"),
        (2.0,) * 5,
        0.8248918,
    ),
    "BT12": Formulas(
        "0.01*x1**2 + x2**2",
        ("x1 + x2 - x3**2 - 25", "x1**2 + x2**2 - x4**2 - 25", "x1 - x5**2 - 2"),
        (15.811, 1.5811, 0.0, 15.083, 3.7164),
        6.1881188,
    ),
    "BYRDSPHR": Formulas(
        "-x1 - x2 - x3",
        ("x1**2 + x2**2 + x3**2 - 9", "(x1 - 1)**2 + x2**2 + x3**2 - 9"),
        (5.0, 1e-4, -1e-4),
        -4.6833001,
        (3.6833001,),
    ),
    "GENHS28": Formulas(
        " + ".join(f"(x{i} + x{i + 1})**2" for i in range(1, 10)),
        tuple(f"x{i} + 2*x{i + 1} + 3*x{i + 2} - 1" for i in range(1, 9)),
        (-4.0, *(1.0,) * 9),
        0.9271737,
    ),
    "BOOTH": Formulas("0", ("x1 + 2*x2 - 7", "2*x1 + x2 - 5"), (0.0, 0.0), 0.0),
    "CUBENE": Formulas("0", ("x1 - 1", "10*(x2 - x1**3)"), (-1.2, 1.0), 0.0),
    "DENSCHNCNE": Formulas("0", ("x1**2 + x2**2 - 2", "exp(x1 - 1) + x2**3 - 2"), (2.0, 3.0), 0.0),
    "DENSCHNFNE": Formulas(
        "0", ("2*(x1 + x2)**2 + (x1 - x2)**2 - 8", "5*x1**2 + (x2 - 3)**2 - 9"), (2.0, 0.0), 0.0
    ),
    "GOTTFR": Formulas(
        "0", ("x1 - 0.1136*(x1 + 3*x2)*(1 - x1)", "x2 + 7.5*(2*x1 - x2)*(1 - x2)"), (0.5, 0.5), 0.0
    ),
    "HELIXNE": Formulas(
        "0", ("10*(x3 - 5*atan2(x2, x1)/pi)", "10*(sqrt(x1**2 + x2**2) - 1)", "x3"), (-1.0, 0.0, 0.0), 0.0
    ),
    "HIMMELBC": Formulas("0", ("x1**2 + x2 - 11", "x1 + x2**2 - 7"), (1.0, 1.0), 0.0),
    "HYPCIR": Formulas("0", ("x1*x2 - 1", "x1**2 + x2**2 - 4"), (0.0, 1.0), 0.0),
    "INTEQNE": Formulas("0", _integral(10), _grid(10), 0.0),
    "MOREBVNE": Formulas("0", _more_boundary(10), _grid(10), 0.0),
    "PRICE4NE": Formulas("0", ("2*x1**3*x2 - x2**3", "6*x1 - x2**2 + x2"), (1.0, 5.0), 0.0),
    "RSNBRNE": Formulas("0", ("10*(x2 - x1**2)", "1 - x1"), (-1.2, 1.0), 0.0),
    "TRIGON1NE": Formulas("0", _trigonometric(10), (0.1,) * 10, 0.0),
    "WAYSEA1NE": Formulas("0", ("x1**6 + x2**4 - 17", "2*x1 + x2 - 4"), (10.0, 10.0), 0.0),
    "WAYSEA2NE": Formulas(
        "0", ("1.613 - 4*(x1 - 0.3125)**2 - 4*(x2 - 1.625)**2", "x2 - 1"), (10.0, 10.0), 0.0
    ),
    "ZANGWIL3": Formulas("0", ("x1 - x2 + x3", "-x1 + x2 + x3", "x1 + x2 - x3"), (100.0, -1.0, 2.5), 0.0),
}


def named_problem(name: str) -> EqualityConstrained:
    """A problem of `COLLECTION` by name, from its standard start with zero multipliers.

    >>> named_problem("HS6").x0
    array([-1.2,  1. ])
    """
    if name not in COLLECTION:
        raise UnknownName("test problem", name, COLLECTION)
    stated = COLLECTION[name]
    return EqualityConstrained.from_formulas(stated.minimize, stated.subject_to, stated.x0)
