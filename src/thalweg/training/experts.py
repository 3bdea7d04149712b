"""Experts for two of Gymnasium's classic control problems, from their equations of motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_continuous_are

Vector = NDArray[np.float64]


def lqr(A: Vector, B: Vector, Q: Vector, R: Vector) -> Vector:
    """Gain K of the linear-quadratic regulator: ``u = -K x`` minimises the integral of ``x'Qx + u'Ru``.

    >>> lqr(np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)))
    array([[1.]])
    """
    P = solve_continuous_are(A, B, Q, R)
    return np.asarray(np.linalg.solve(R, B.T @ P))


def cartpole_gain() -> Vector:
    """LQR gain of CartPole about the upright pole, for the state (x, x', angle, angle'); shape (4,)."""
    gravity, cart, pole, half = 9.8, 1.0, 0.1, 0.5
    total = cart + pole
    swing = half * (4.0 / 3.0 - pole / total)  # of the linearised equations
    A = np.zeros((4, 4))
    A[0, 1] = A[2, 3] = 1.0
    A[3, 2] = gravity / swing
    A[1, 2] = -pole * half * A[3, 2] / total
    B = np.zeros((4, 1))
    B[3, 0] = -1.0 / (total * swing)
    B[1, 0] = 1.0 / total - pole * half * B[3, 0] / total
    return lqr(A, B, np.diag([1.0, 1.0, 10.0, 1.0]), np.array([[0.1]]))[0]


class CartPoleExpert:
    """Pushes as the regulator would, to the left (0) or the right (1); observations of shape (n, 4)."""

    def __init__(self) -> None:
        self.gain = cartpole_gain()

    def __call__(self, observations: Vector) -> NDArray[np.int64]:
        """Actions, shape (n,)."""
        return np.asarray((-observations @ self.gain > 0).astype(np.int64))


class PendulumExpert:
    """Swings Pendulum up by its energy, and holds it by a regulator; observations (cos, sin, speed), shape (n, 3)."""

    gravity, mass, length, strongest = 10.0, 1.0, 1.0, 2.0

    def __init__(self) -> None:
        inertia = self.mass * self.length**2 / 3.0
        A = np.array([[0.0, 1.0], [0.5 * self.mass * self.gravity * self.length / inertia, 0.0]])
        B = np.array([[0.0], [1.0 / inertia]])
        self.gain = lqr(A, B, np.diag([10.0, 1.0]), np.array([[1.0]]))[0]
        self.inertia = inertia

    def __call__(self, observations: Vector) -> Vector:
        """Torques, shape (n, 1), in [-2, 2]."""
        cosine, sine, speed = np.asarray(observations, dtype=np.float64).T
        angle = np.arctan2(sine, cosine)
        height = 0.5 * self.mass * self.gravity * self.length
        lacking = height - (0.5 * self.inertia * speed**2 + height * cosine)
        swing = self.strongest * np.tanh(5.0 * lacking * np.where(speed == 0.0, 1.0, speed))
        hold = -(self.gain[0] * angle + self.gain[1] * speed)
        near = (np.abs(angle) < 0.4) & (np.abs(speed) < 2.0)
        return np.asarray(np.clip(np.where(near, hold, swing), -self.strongest, self.strongest)[:, None])
