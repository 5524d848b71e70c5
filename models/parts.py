"""Many rows, some at a time: parts that stay in the processor's cache, in several threads."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def in_parts(work: Callable[[slice], None], rows: int, *, size: int, threads: int) -> None:
    """Do what is to be done for `rows` rows, at most `size` at a time, in so many threads.

    numpy works beside itself as long as parts are large against what it takes to call it.
    """
    parts = (slice(start, start + size) for start in range(0, rows, size))
    with ThreadPoolExecutor(threads) as pool:
        # Asked for one by one, so that a mistake in a thread is raised here.
        deque(pool.map(work, parts), maxlen=0)
