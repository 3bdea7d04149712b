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
def bursty_rounds(order, seconds, shift, mu, B, W, lam, recent, late, out):
    """M-SGC: as many as the (B, W, lam) model allows are left out.

    ``recent`` (n,) and ``late`` (rounds, n) are work space: in how many rounds of the window a worker was late, and
    in which.
    """
    rounds, n = order.shape
    late[:] = False
    recent[:] = 0
    distinct = 0
    for r in range(rounds):
        if r >= W:
            distinct = _retire(late[r - W], recent, distinct)
        end = (1.0 + mu) * _at(seconds[r, order[r, 0]], shift)
        room, k = lam - distinct, n
        while k > 0 and _at(seconds[r, order[r, k - 1]], shift) > end:
            worker = order[r, k - 1]
            if recent[worker] == 0:
                if room == 0:
                    break
                room -= 1
            elif not _within(late, worker, r, B, W):
                break
            k -= 1
        if k == n:
            end = _at(seconds[r, order[r, n - 1]], shift)
        elif k > 0:
            end = max(end, _at(seconds[r, order[r, k - 1]], shift))
        for j in range(k, n):
            worker = order[r, j]
            late[r, worker] = True
            if recent[worker] == 0:
                distinct += 1
            recent[worker] += 1
        out[r] = end


@njit(cache=True)
def repeated_rounds(order, seconds, shift, mu, B, W, lam, s, recent, late, here, again, out):
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
        # How far down from the slowest each rule lets the round leave workers out; repeats stop both.
        by_count, allowed = n, s - repeats
        while by_count > 0 and allowed > 0 and not again[order[r, by_count - 1]]:
            if _at(seconds[r, order[r, by_count - 1]], shift) <= end:
                break
            by_count -= 1
            allowed -= 1
        room, k = lam - distinct, n
        while room >= 0 and k > 0 and _at(seconds[r, order[r, k - 1]], shift) > end:
            worker = order[r, k - 1]
            if again[worker]:
                break
            if recent[worker] == 0:
                if room == 0:
                    break
                room -= 1
            elif not _within(late, worker, r, B, W):
                break
            k -= 1
        k = min(k, by_count)
        if k == n:
            end = _at(seconds[r, order[r, n - 1]], shift)
        elif k > 0:
            end = max(end, _at(seconds[r, order[r, k - 1]], shift))
        for j in range(n):
            worker = order[r, j]
            if j >= k:
                late[r, worker] = True
                if recent[worker] == 0:
                    distinct += 1
                recent[worker] += 1
            elif again[worker]:
                here[r - B, worker] = True
            else:
                here[r, worker] = True
        out[r] = end


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
