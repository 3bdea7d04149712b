"""Numba loops over multiple-choice knapsacks: an item is left out, taken, or taken with more weight and more value.

Item i has two ways in: weight w1, value v1, and weight w2 >= w1, value v2. Capacity is C, and up to ``extra`` more can
be had at ``price`` a unit. The linear relaxation is solved by a greedy over increments of falling efficiency (Sinha
and Zoltners, 1979), which is the bound of a depth-first branch and bound.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def increments(w1, v1, w2, v2, item, weight, value):
    """The upper hulls of all items as increments of falling efficiency; returns their number.

    Writes into ``item``, ``weight``, ``value``, each of length 2 n.
    """
    count = 0
    for i in range(len(w1)):
        first = v1[i] > 0.0
        second = v2[i] > 0.0 and v2[i] > v1[i]
        if first and second and v1[i] * w2[i] >= v2[i] * w1[i]:  # the first way is the more efficient one
            item[count], weight[count], value[count] = i, w1[i], v1[i]
            item[count + 1], weight[count + 1], value[count + 1] = i, w2[i] - w1[i], v2[i] - v1[i]
            count += 2
        elif second:
            item[count], weight[count], value[count] = i, w2[i], v2[i]
            count += 1
        elif first:
            item[count], weight[count], value[count] = i, w1[i], v1[i]
            count += 1
    rate = np.empty(count)
    for k in range(count):
        rate[k] = value[k] / weight[k] if weight[k] > 0.0 else np.inf
    order = np.argsort(-rate, kind="mergesort")
    item[:count], weight[:count], value[:count] = item[order], weight[order], value[order]
    return count


@njit(cache=True)
def _greedy(item, weight, value, count, place, depth, room, extra, price):
    """Value of the relaxation over items whose place is ``depth`` or later, with ``room`` left (it may be below 0)."""
    total = 0.0
    paid = extra
    if room < 0.0:
        paid += room
        total += room * price
        room = 0.0
    for k in range(count):
        if place[item[k]] < depth:
            continue
        w, v = weight[k], value[k]
        if w <= room:
            room -= w
            total += v
            continue
        if room > 0.0:
            total += v * (room / w)
            v -= v * (room / w)
            w -= room
            room = 0.0
        if paid <= 0.0 or v <= price * w:
            return total
        if w <= paid:
            paid -= w
            total += v - price * w
        else:
            return total + (v - price * w) * (paid / w)
    return total


@njit(cache=True)
def relaxed_values(w1, v1, w2, v2, capacity, extra, price):
    """Values of relaxations, shape (count,), of tables (count, n): one label each."""
    rows, n = w1.shape
    found = np.empty(rows)
    item, weight, value = np.empty(2 * n, np.int64), np.empty(2 * n), np.empty(2 * n)
    place = np.zeros(n, np.int64)
    for r in range(rows):
        count = increments(w1[r], v1[r], w2[r], v2[r], item, weight, value)
        found[r] = _greedy(item, weight, value, count, place, 0, capacity[r], extra[r], price)
    return found


@njit(cache=True)
def branch_and_bound(w1, v1, w2, v2, capacity, extra, price, gap, most_nodes):
    """The best choice (0, 1 or 2 an item), its value, and a bound above every value.

    Branches bound at most ``gap`` above the best value are cut; after ``most_nodes`` nodes the search ends, and the
    bound says how far it may be off.
    """
    n = len(w1)
    item, weight, value = np.empty(2 * n, np.int64), np.empty(2 * n), np.empty(2 * n)
    count = increments(w1, v1, w2, v2, item, weight, value)
    place, order, known = np.full(n, -1, np.int64), np.empty(n, np.int64), 0
    for k in range(count):
        if place[item[k]] < 0:
            place[item[k]] = known
            order[known] = item[k]
            known += 1
    choice, best_choice = np.zeros(n, np.int64), np.zeros(n, np.int64)
    tried = np.zeros(known + 1, np.int64)
    room, worth = np.empty(known + 1), np.empty(known + 1)
    room[0], worth[0] = capacity, 0.0
    best = -np.inf if capacity + extra < 0.0 else (price * capacity if capacity < 0.0 else 0.0)
    ceiling, depth, nodes = best, 0, 0
    if known == 0:
        return best_choice, best, best
    while depth >= 0:
        if tried[depth] == 0:
            nodes += 1
            left = room[depth]
            if left + extra >= 0.0:
                here = worth[depth] + (price * left if left < 0.0 else 0.0)
                if here > best:
                    best = here
                    best_choice[:] = 0
                    for k in range(depth):
                        best_choice[order[k]] = choice[order[k]]
            bound = -np.inf
            if left + extra >= 0.0 and depth < known:
                bound = worth[depth] + _greedy(item, weight, value, count, place, depth, left, extra, price)
            if bound <= best + gap or nodes > most_nodes:
                ceiling = max(ceiling, bound)
                depth -= 1
                continue
        if tried[depth] == 3:
            tried[depth] = 0
            depth -= 1
            continue
        i = order[depth]
        way = (1, 2, 0)[tried[depth]]
        if v2[i] * w1[i] > v1[i] * w2[i] and way < 2:  # the more efficient way first
            way = 3 - way if way > 0 else 0
        elif way == 2 and v2[i] * w1[i] > v1[i] * w2[i]:
            way = 1
        tried[depth] += 1
        if (way == 1 and v1[i] <= 0.0) or (way == 2 and (v2[i] <= 0.0 or v2[i] <= v1[i])):
            continue
        choice[i] = way
        w = 0.0 if way == 0 else (w1[i] if way == 1 else w2[i])
        v = 0.0 if way == 0 else (v1[i] if way == 1 else v2[i])
        room[depth + 1], worth[depth + 1] = room[depth] - w, worth[depth] + v
        depth += 1
        tried[depth] = 0
    return best_choice, best, max(best, ceiling)
