"""The kernels: tiles of logits and their sums, slopes of the logits, and the products of the gradient.

Nothing is added by two programs at a time, so sums have one order and two runs give the same bits.
"""

from decone.engines.triton.triton_compat import dot, jit, tl


@jit
def product(
    table: tl.tensor,
    hidden: tl.tensor,
    columns: tl.tensor,
    rows: tl.tensor,
    V: tl.tensor,
    N: tl.tensor,
    H: tl.tensor,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Rows of the table times hidden states, [COLUMNS, ROWS] in float32; zero where an index is out of range."""
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    valid = (columns >= 0) & (columns < V)
    row_address = table + columns.to(tl.int64)[:, None] * H
    state_address = hidden + rows.to(tl.int64)[None, :] * H
    for start in range(0, H, DEPTH):
        depth = start + tl.arange(0, DEPTH)
        weights = tl.load(row_address + depth[None, :], mask=valid[:, None] & (depth < H)[None, :], other=0.0)
        states = tl.load(state_address + depth[:, None], mask=(rows < N)[None, :] & (depth < H)[:, None], other=0.0)
        total = dot(weights, states, total, PRECISION)
    return total


@jit
def read(raw: tl.tensor, scale: tl.tensor, cap: tl.tensor, CAPPED: tl.constexpr) -> tl.tensor:
    """The logits that leave the model: cap * tanh(scale * raw / cap)."""
    plain = raw * scale
    if CAPPED:
        ratio = plain / cap
        power = tl.exp(-2.0 * tl.abs(ratio))
        bent = (1.0 - power) / (1.0 + power)
        # Near zero the difference has lost its digits, and a few terms of the series have them all.
        square = ratio * ratio
        series = tl.fma(square, -1382.0 / 155925.0, 62.0 / 2835.0)
        series = tl.fma(square, series, -17.0 / 315.0)
        series = tl.fma(square, series, 2.0 / 15.0)
        series = tl.fma(square, series, -1.0 / 3.0)
        near = tl.fma(ratio * square, series, ratio)
        plain = tl.where(tl.abs(ratio) < 0.3, near, tl.where(ratio < 0, -bent, bent)) * cap
    return plain


@jit
def scaled(plain: tl.tensor, temperature: tl.tensor, shift: tl.tensor, SHIFTED: tl.constexpr) -> tl.tensor:
    """The rule's scale and shift, rounded once by name: left to the compiler, two kernels may round differently."""
    if SHIFTED:
        return tl.fma(plain, temperature, shift)
    else:
        return plain * temperature


@jit
def target_logits_kernel(
    table: tl.tensor,
    hidden: tl.tensor,
    bias: tl.tensor,
    target: tl.tensor,
    list_of: tl.tensor,
    length: tl.tensor,
    slot: tl.tensor,
    rank: tl.tensor,
    plain_out: tl.tensor,
    ruled_out: tl.tensor,
    N: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    U: tl.tensor,
    scale: tl.tensor,
    cap: tl.tensor,
    temperature: tl.tensor,
    earlier_shift: tl.tensor,
    novel_shift: tl.tensor,
    BIASED: tl.constexpr,
    CAPPED: tl.constexpr,
    SHIFTED: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Logits of one tile of targets, by the arithmetic of `sweep_kernel`."""
    # A tile of the sweep's shape whose columns are the targets of its rows: only its diagonal is used, but it is
    # summed as the sweep sums, so that a token with the target's logit ties with it to the last bit.
    first = tl.program_id(0).to(tl.int64) * ROWS
    rows = first + tl.arange(0, ROWS)
    offsets = tl.arange(0, COLUMNS)
    columns = tl.load(target + first + offsets, mask=(offsets < ROWS) & (first + offsets < N), other=V)
    logits = product(table, hidden, columns, rows, V, N, H, COLUMNS, ROWS, DEPTH, PRECISION)
    raw = tl.sum(tl.where(offsets[:, None] == tl.arange(0, ROWS)[None, :], logits, 0.0), 0)
    inside = rows < N
    ids = tl.load(target + rows, mask=inside, other=0)
    valid = inside & (ids >= 0) & (ids < V)
    if BIASED:
        raw += tl.load(bias + ids, mask=valid, other=0.0).to(tl.float32)
    plain = read(raw, scale, cap, CAPPED)
    shift = 0.0
    if SHIFTED:
        slots = tl.load(slot + ids, mask=valid, other=-1)
        listed = inside & (slots >= 0)
        sequence = tl.load(list_of + rows, mask=inside, other=0)
        order = tl.load(rank + sequence * U + slots, mask=listed, other=2147483647)
        earlier = order < tl.load(length + rows, mask=inside, other=0)
        shift = tl.where(earlier, earlier_shift, novel_shift)
    ruled = scaled(plain, temperature, shift, SHIFTED)
    tl.store(plain_out + rows, plain, mask=inside)
    tl.store(ruled_out + rows, ruled, mask=inside)


@jit
def over_top(logits: tl.tensor, highest: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Exponentials of a tile over the greatest of each row, and their sum less the 1 of the greatest itself."""
    from_top = tl.exp(logits - tl.where(highest == float("-inf"), 0.0, highest)[None, :])
    # Ones are counted apart: a sum that begins with 1 forgets what is smaller than its last digit.
    ties = tl.sum((from_top == 1.0).to(tl.float32), 0)
    return from_top, tl.sum(tl.where(from_top == 1.0, 0.0, from_top), 0) + (ties - 1.0)


@jit
def sweep_kernel(
    table: tl.tensor,
    hidden: tl.tensor,
    bias: tl.tensor,
    target: tl.tensor,
    floor: tl.tensor,
    list_of: tl.tensor,
    length: tl.tensor,
    slot: tl.tensor,
    rank: tl.tensor,
    pair_logit: tl.tensor,
    entry: tl.tensor,
    live: tl.tensor,
    top: tl.tensor,
    beyond: tl.tensor,
    count: tl.tensor,
    plain_top: tl.tensor,
    plain_beyond: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    U: tl.tensor,
    L: tl.tensor,
    scale: tl.tensor,
    cap: tl.tensor,
    temperature: tl.tensor,
    earlier_shift: tl.tensor,
    novel_shift: tl.tensor,
    BIASED: tl.constexpr,
    CAPPED: tl.constexpr,
    SHIFTED: tl.constexpr,
    CHARGED: tl.constexpr,
    FLOORED: tl.constexpr,
    PLAIN: tl.constexpr,
    LEARNING: tl.constexpr,
    LIFT: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One tile of logits: its exponentials, sums, counts and live bits."""
    # Programs of one column tile follow each other: its part of the table is read once and stays in the cache.
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    logits = product(table, hidden, columns, rows, V, C, H, COLUMNS, ROWS, DEPTH, PRECISION)
    if BIASED:
        logits += tl.load(bias + columns, mask=columns < V, other=0.0).to(tl.float32)[:, None]
    # No mask of the tile's size outlives its line: logits out of range or dropped are minus infinity.
    edge = tl.where(columns < V, 0.0, float("-inf"))[:, None]
    plain = read(logits, scale, cap, CAPPED)
    at = tl.program_id(1).to(tl.int64) * C + rows
    if PLAIN:
        bare = plain + edge
        highest = tl.max(bare, 0)
        tl.store(plain_top + at, highest)
        tl.store(plain_beyond + at, over_top(bare, highest)[1])
    shift = 0.0
    if SHIFTED or CHARGED:
        slots = tl.load(slot + columns, mask=columns < V, other=-1)
        sequence = tl.load(list_of + rows)
        listed = tl.broadcast_to((slots >= 0)[:, None], COLUMNS, ROWS)
        order = tl.load(rank + sequence[None, :] * U + slots[:, None], mask=listed, other=2147483647)
        earlier = order < tl.load(length + rows)[None, :]
    if SHIFTED:
        shift = tl.where(earlier, earlier_shift, novel_shift)
    ruled = scaled(plain, temperature, shift, SHIFTED) + edge
    if FLOORED:
        # Compared in float32, before anything is rounded; NaN stays, so that it shows.
        ruled = tl.where(ruled < tl.load(floor + rows)[None, :], float("-inf"), ruled)
    if CHARGED:
        tl.store(pair_logit + rows.to(tl.int64)[None, :] * L + order, ruled, mask=earlier)
    # The target's logit is computed apart, in float32 to the end, whatever its value in this tile.
    ruled = tl.where(columns[:, None] == tl.load(target + rows)[None, :], float("-inf"), ruled)
    highest = tl.max(ruled, 0)
    tl.store(top + at, highest)
    tl.store(count + at, tl.sum((ruled > float("-inf")).to(tl.int32), 0))
    if FLOORED:
        alive = tl.max(ruled, 1) > float("-inf")
        tl.store(live + tl.program_id(0).to(tl.int64) * V + columns, alive.to(tl.int8), mask=columns < V)
    from_top, over = over_top(ruled, highest)
    tl.store(beyond + at, over)
    if LEARNING:
        if CAPPED:
            from_top *= 1.0 - (plain / cap) * (plain / cap)
        address = entry + columns.to(tl.int64)[:, None] * C + rows[None, :]
        tl.store(address, from_top * LIFT, mask=(columns < V)[:, None])


@jit
def slopes_kernel(
    entry: tl.tensor,
    live: tl.tensor,
    above: tl.tensor,
    gain: tl.tensor,
    target: tl.tensor,
    list_of: tl.tensor,
    length: tl.tensor,
    slot: tl.tensor,
    rank: tl.tensor,
    slope: tl.tensor,
    bias_sum: tl.tensor,
    up: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    U: tl.tensor,
    L: tl.tensor,
    DENSE: tl.constexpr,
    CHARGED: tl.constexpr,
    BIASED: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Makes the exponentials of one tile the gradient of its logits, in place."""
    group = tl.program_id(0)
    rows = group * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    alive = columns < V
    if not DENSE:
        alive = tl.load(live + group.to(tl.int64) * V + columns, mask=alive, other=0) > 0
        if tl.max(alive.to(tl.int32), 0) == 0:
            return
    address = entry + columns.to(tl.int64)[:, None] * C + rows[None, :]
    factor = tl.exp(tl.load(above + tl.program_id(1).to(tl.int64) * C + rows)) * tl.load(gain + rows)
    gradient = tl.load(address, mask=alive[:, None], other=0.0).to(tl.float32) * factor[None, :]
    if CHARGED:
        slots = tl.load(slot + columns, mask=alive, other=-1)
        target_id = tl.load(target + rows)
        listed = (slots >= 0)[:, None] & (columns[:, None] != target_id[None, :])
        sequence = tl.load(list_of + rows)
        order = tl.load(rank + sequence[None, :] * U + slots[:, None], mask=listed, other=2147483647)
        earlier = listed & (order < tl.load(length + rows)[None, :])
        gradient = tl.where(
            earlier, tl.load(slope + rows.to(tl.int64)[None, :] * L + order, mask=earlier, other=0.0), gradient
        )
    if BIASED:
        tl.store(bias_sum + group.to(tl.int64) * V + columns, tl.sum(gradient, 1), mask=alive)
    if up is not None:
        gradient *= tl.load(up)
    tl.store(address, gradient, mask=alive[:, None])


@jit
def hidden_gradient_kernel(
    entry: tl.tensor,
    table: tl.tensor,
    of_tile: tl.tensor,
    counts: tl.tensor,
    busiest: tl.tensor,
    out: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    SPLIT: tl.constexpr,
    DENSE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One tile of the gradient of the logits times the table."""
    share = tl.program_id(0) % SPLIT
    width = (tl.program_id(0) // SPLIT) * COLUMNS + tl.arange(0, COLUMNS)
    if DENSE:
        group = tl.program_id(1)
        count = V
        listed = of_tile
    else:
        # The tile with most live columns is begun first, so that no program waits for it in the end.
        group = tl.load(busiest + tl.program_id(1)).to(tl.int32)
        count = tl.load(counts + group)
        listed = of_tile + group.to(tl.int64) * V
    rows = group * ROWS + tl.arange(0, ROWS)
    span = tl.cdiv(tl.cdiv(count, SPLIT), DEPTH) * DEPTH
    begin = share * span
    end = tl.minimum(begin + span, count)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(begin, end, DEPTH):
        index = start + tl.arange(0, DEPTH)
        inside = index < end
        columns = index.to(tl.int64) if DENSE else tl.load(listed + index, mask=inside, other=0).to(tl.int64)
        slopes = tl.load(entry + columns[:, None] * C + rows[None, :], mask=inside[:, None], other=0.0)
        rows_of_table = tl.load(
            table + columns[:, None] * H + width[None, :], mask=inside[:, None] & (width < H)[None, :], other=0.0
        )
        total = dot(tl.trans(slopes), rows_of_table, total, PRECISION)
    at = (share.to(tl.int64) * C + rows)[:, None] * H + width[None, :]
    tl.store(out + at, total, mask=(width < H)[None, :])


@jit
def _add_class(
    total: tl.tensor,
    entry: tl.tensor,
    hidden: tl.tensor,
    tiles: tl.tensor,
    columns: tl.tensor,
    alive: tl.tensor,
    width: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    C: tl.tensor,
    H: tl.tensor,
    DENSE: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Adds the tiles of positions `begin` to `end` of a group's list; one flat loop, so that loads run ahead."""
    STEPS: tl.constexpr = ROWS // DEPTH
    for step in range(begin * STEPS, end * STEPS):
        group = step // STEPS if DENSE else tl.load(tiles + step // STEPS)
        rows = group * ROWS + (step % STEPS) * DEPTH + tl.arange(0, DEPTH)
        slopes = tl.load(entry + columns[:, None] * C + rows[None, :], mask=alive[:, None], other=0.0)
        states = tl.load(hidden + rows.to(tl.int64)[:, None] * H + width[None, :], mask=(width < H)[None, :], other=0.0)
        total = dot(slopes, states, total, PRECISION)
    return total


@jit
def table_gradient_kernel(
    entry: tl.tensor,
    hidden: tl.tensor,
    by_life: tl.tensor,
    tiles: tl.tensor,
    common: tl.tensor,
    reach: tl.tensor,
    on_common: tl.tensor,
    on_rare: tl.tensor,
    down: tl.tensor,
    out: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    G: tl.tensor,
    DENSE: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One tile of the transposed gradient of the logits times hidden states, added to `out`."""
    width = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    index = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    alive = index < V
    if DENSE:
        columns = index.to(tl.int64)
        end = G
        listed = tiles
    else:
        columns = tl.load(by_life + index, mask=alive, other=0).to(tl.int64)
        end = tl.load(reach + tl.program_id(1))
        listed = tiles + tl.program_id(1).to(tl.int64) * G
        if end == 0:
            return
    at = out + columns[:, None] * H + width[None, :]
    inside = alive[:, None] & (width < H)[None, :]
    total = tl.zeros((COLUMNS, WIDTH), dtype=tl.float32)
    if GATED:
        # A gate is one factor per column and class of target: it acts on a class's sum, once.
        border = tl.load(common) if DENSE else tl.load(common + tl.program_id(1))
        total = _add_class(
            total, entry, hidden, listed, columns, alive, width, 0, border, C, H, DENSE, ROWS, DEPTH, PRECISION
        )
        total *= tl.load(on_common + columns, mask=alive, other=0.0)[:, None]
        if down is not None:
            total *= tl.load(down)
        tl.store(at, tl.load(at, mask=inside, other=0.0) + total, mask=inside)
        tl.debug_barrier()  # another thread of the program may load values that this thread has stored
        total = tl.zeros((COLUMNS, WIDTH), dtype=tl.float32)
        total = _add_class(
            total, entry, hidden, listed, columns, alive, width, border, end, C, H, DENSE, ROWS, DEPTH, PRECISION
        )
        total *= tl.load(on_rare + columns, mask=alive, other=0.0)[:, None]
    else:
        total = _add_class(
            total, entry, hidden, listed, columns, alive, width, 0, end, C, H, DENSE, ROWS, DEPTH, PRECISION
        )
    if down is not None:
        total *= tl.load(down)
    tl.store(at, tl.load(at, mask=inside, other=0.0) + total, mask=inside)


@jit
def add_target_rows_kernel(
    hidden: tl.tensor,
    target_slope: tl.tensor,
    order: tl.tensor,
    target: tl.tensor,
    ends: tl.tensor,
    out: tl.tensor,
    bias_out: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Adds the gradient through targets' logits to one row of the table."""
    first = tl.program_id(0).to(tl.int64)
    column = tl.load(target + first)
    if (column < 0) | (column >= V):
        return
    # Positions are sorted by target; the first of each run of equals sums the run.
    before = tl.load(target + first - 1, mask=first > 0, other=-1)
    if before == column:
        return
    end = tl.load(ends + first)
    width = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    weights = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(first, end, ROWS):
        index = start + tl.arange(0, ROWS)
        inside = index < end
        rows = tl.load(order + index, mask=inside, other=0)
        weight = tl.load(target_slope + rows, mask=inside, other=0.0)
        states = tl.load(
            hidden + rows[:, None] * H + width[None, :], mask=inside[:, None] & (width < H)[None, :], other=0.0
        )
        total += tl.sum(weight[:, None] * states.to(tl.float32), 0)
        weights += weight
    if out is not None:
        at = out + column * H + width
        tl.store(at, tl.load(at, mask=width < H, other=0.0) + total, mask=width < H)
    if BIASED and tl.program_id(1) == 0:
        tl.store(bias_out + column, tl.load(bias_out + column) + tl.sum(weights, 0))
