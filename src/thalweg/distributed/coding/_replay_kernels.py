"""Lengths of rounds for thousands of settings: sequential in rounds and in workers from the slowest on."""

from numba import njit


@njit(cache=True)
def coded_rounds(order, seconds, shift, mu, s, out):
    """GC: the fastest times 1 + mu, or the (n - s)-th; the slowest where it is earlier."""
    rounds, n = order.shape
    for r in range(rounds):
        fastest = _at(seconds[r, order[r, 0]], shift)
        needed = _at(seconds[r, order[r, n - s - 1]], shift)
        out[r] = min(max((1.0 + mu) * fastest, needed), _at(seconds[r, order[r, n - 1]], shift))


@njit(cache=True)
def bursty_rounds(order, seconds, shift, mu, B, W, lam, recent, late, again, out):
    """M-SGC: as many as the (B, W, lam) model allows are left out.

    ``recent`` (n,), ``late`` (rounds, n) and ``again`` (n,) are work space: in how many rounds of the window a
    worker was late, and in which; nobody repeats.
    """
    rounds = len(order)
    late[:] = False
    recent[:] = 0
    again[:] = False
    distinct = 0
    for r in range(rounds):
        if r >= W:
            distinct = _retire(late[r - W], recent, distinct)
        end = (1.0 + mu) * _at(seconds[r, order[r, 0]], shift)
        k = _tolerated(order[r], seconds[r], shift, end, again, recent, late, r, B, W, lam - distinct)
        out[r] = _end(order[r], seconds[r], shift, end, k)
        distinct = _leave_out(order[r, k:], recent, late[r], distinct)


@njit(cache=True)
def repeated_rounds(order, seconds, shift, mu, B, W, lam, s, recent, late, again, here, out):
    """SR-SGC: repeats are waited for; others by the count s, or by the (B, W, lam) model.

    ``here`` (rounds, n): whose result of that round's own job has come; ``again`` (n,): who repeats.
    """
    rounds, n = order.shape
    late[:] = False
    here[:] = False
    recent[:] = 0
    distinct = 0
    for r in range(rounds):
        if r >= W:
            distinct = _retire(late[r - W], recent, distinct)
        repeats = _repeats(here, late, again, r, B, s)
        end = (1.0 + mu) * _at(seconds[r, order[r, 0]], shift)
        by_count, allowed = n, s - repeats
        while by_count > 0 and allowed > 0 and not again[order[r, by_count - 1]]:
            if _at(seconds[r, order[r, by_count - 1]], shift) <= end:
                break
            by_count -= 1
            allowed -= 1
        k = _tolerated(order[r], seconds[r], shift, end, again, recent, late, r, B, W, lam - distinct)
        k = min(k, by_count)
        out[r] = _end(order[r], seconds[r], shift, end, k)
        distinct = _leave_out(order[r, k:], recent, late[r], distinct)
        for worker in order[r, :k]:
            if again[worker]:
                here[r - B, worker] = True
            else:
                here[r, worker] = True


@njit(cache=True)
def _tolerated(order, seconds, shift, end, again, recent, late, r, B, W, room):
    """How many of the fastest have to be waited for so that the others fit the (B, W, lam) model; repeats always."""
    k = len(order)
    while room >= 0 and k > 0 and _at(seconds[order[k - 1]], shift) > end:
        worker = order[k - 1]
        if again[worker]:
            break
        if recent[worker] == 0:
            if room == 0:
                break
            room -= 1
        elif not _within(late, worker, r, B, W):
            break
        k -= 1
    return k


@njit(cache=True)
def _end(order, seconds, shift, end, k):
    """When a round ends that waits for its k fastest."""
    if k == len(order):
        return _at(seconds[order[k - 1]], shift)
    return max(end, _at(seconds[order[k - 1]], shift)) if k > 0 else end


@njit(cache=True)
def _leave_out(workers, recent, late, distinct):
    for worker in workers:
        late[worker] = True
        if recent[worker] == 0:
            distinct += 1
        recent[worker] += 1
    return distinct


@njit(cache=True)
def _at(seconds, shift):
    return max(seconds + shift, 1e-3 * seconds)


@njit(cache=True)
def _retire(row, recent, distinct):
    for worker in range(len(row)):
        if row[worker]:
            recent[worker] -= 1
            if recent[worker] == 0:
                distinct -= 1
    return distinct


@njit(cache=True)
def _within(late, worker, r, B, W):
    """Whether no round of the window more than B - 1 ago had this worker late."""
    return not late[max(r - W + 1, 0) : max(r - B + 1, 0), worker].any()


@njit(cache=True)
def _repeats(here, late, again, r, B, s):
    """Mark who repeats the job of round r - B: late ones first, then by number."""
    n = len(again)
    again[:] = False
    if r < B:
        return 0
    missing = n - s
    for worker in range(n):
        if here[r - B, worker]:
            missing -= 1
    marked = 0
    for turn in range(2):
        for worker in range(n):
            fits = not here[r - B, worker] and late[r - B, worker] == (turn == 0)
            if fits and marked < missing and not again[worker]:
                again[worker] = True
                marked += 1
    return marked
