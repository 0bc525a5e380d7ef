"""The Triton kernels of `mm.decoder.fused`: one decode step of one sequence, five kernels a layer.

A step of one token is bound by reading the weights, and each kernel reads only a few megabytes:
2 us at 4 TB/s, about what it takes to start a kernel and to wait for memory. So every kernel first
lets the next one start, then asks for its weights, and only then waits for the kernel before it
(programmatic dependent launch); the weights of the next kernel are on their way while this one
computes. What a kernel reads before `gdc_wait` must not be written by the kernels of this step:
weights, the cache of earlier tokens, and, after the step's first kernel, the token and its
position.

A program holds its whole share of a matrix in registers: `ROWS` rows, as a tuple of tiles of
`CHUNK` columns. Sums are float32; values are rounded to the model's dtype where
`mm.decoder.qwen3` rounds them, so that both choose the same tokens.

This module imports Triton and is imported only by what is about to run it.

D model width, H query heads, K key/value heads, Dh head width, F feed-forward width, V vocabulary,
S cached tokens; `state` is int64 `[2]`: the number of cached tokens and the token's position.
"""
# ruff: noqa: N803
# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def load_vector(pointer, SIZE: tl.constexpr, CHUNK: tl.constexpr):
    """Load `[SIZE]` as a tuple of `[CHUNK]`, zeros past the end."""
    parts = ()
    for chunk in tl.static_range((SIZE + CHUNK - 1) // CHUNK):
        columns = chunk * CHUNK + tl.arange(0, CHUNK)
        if SIZE % CHUNK == 0:
            parts += (tl.load(pointer + columns),)
        else:
            parts += (tl.load(pointer + columns, mask=columns < SIZE, other=0.0),)
    return parts


@triton.jit
def load_rows(
    pointer, first, num_rows, SIZE: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
    BOUNDED: tl.constexpr,
):  # fmt: skip
    """Load rows `first` to `first + ROWS` of a matrix `[num_rows, SIZE]` as tiles `[ROWS, CHUNK]`.

    With `BOUNDED`, rows from `num_rows` on are zeros; without, the caller knows there are none.
    """
    rows = first + tl.arange(0, ROWS)[:, None]
    tiles = ()
    for chunk in tl.static_range((SIZE + CHUNK - 1) // CHUNK):
        columns = chunk * CHUNK + tl.arange(0, CHUNK)[None, :]
        at = pointer + rows * SIZE + columns
        # Weights are read once a step: they need not push anything else out of the cache.
        if SIZE % CHUNK == 0 and not BOUNDED:
            tiles += (tl.load(at, eviction_policy="evict_first"),)
        else:
            inside = (rows < (num_rows if BOUNDED else first + ROWS)) & (columns < SIZE)
            tiles += (tl.load(at, mask=inside, other=0.0, eviction_policy="evict_first"),)
    return tiles


@triton.jit
def rms_norm(parts, weights, eps, SIZE: tl.constexpr, CHUNK: tl.constexpr):
    """RMSNorm of a tuple of `[CHUNK]`: float32 values, rounded twice as in the readable file."""
    squares = tl.zeros([CHUNK], tl.float32)
    for chunk in tl.static_range((SIZE + CHUNK - 1) // CHUNK):
        wide = parts[chunk].to(tl.float32)
        squares += wide * wide
    scale = tl.rsqrt(tl.sum(squares, 0) / SIZE + eps)
    normed = ()
    for chunk in tl.static_range((SIZE + CHUNK - 1) // CHUNK):
        dtype = parts[chunk].dtype
        unit = (parts[chunk].to(tl.float32) * scale).to(dtype).to(tl.float32)
        normed += ((unit * weights[chunk].to(tl.float32)).to(dtype).to(tl.float32),)
    return normed


@triton.jit
def dot_rows(
    tiles, parts, SIZE: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """Multiply tiles of a matrix with a vector in as many parts; returns float32 `[ROWS]`."""
    products = tl.zeros([ROWS, CHUNK], tl.float32)
    for chunk in tl.static_range((SIZE + CHUNK - 1) // CHUNK):
        products += tiles[chunk].to(tl.float32) * parts[chunk].to(tl.float32)[None, :]
    return tl.sum(products, 1)


@triton.jit
def qkv_kernel(
    x_ptr, token_ptr, norm_ptr, q_ptr, k_ptr, v_ptr, qkv_ptr, eps,
    D: tl.constexpr, Q_ROWS: tl.constexpr, KV_ROWS: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, EMBED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Norm, then the rows of q_proj, k_proj and v_proj: `qkv[(H + 2K) Dh]`.

    With `EMBED`, `x_ptr` is the embedding table, of which this step's token is read. That kernel
    begins the step: it waits before it lets others start, so that they may read the token and its
    position at once although a step before may have run in the same graph.
    """
    if PDL and not EMBED:
        gdc_launch_dependents()
    first = tl.program_id(0) * ROWS
    if first < Q_ROWS:
        weight_ptr = q_ptr
        row = first
    elif first < Q_ROWS + KV_ROWS:
        weight_ptr = k_ptr
        row = first - Q_ROWS
    else:
        weight_ptr = v_ptr
        row = first - (Q_ROWS + KV_ROWS)
    tiles = load_rows(weight_ptr, row, 0, D, ROWS, CHUNK, False)
    scales = load_vector(norm_ptr, D, CHUNK)
    if PDL:
        gdc_wait()
    if EMBED:
        if PDL:
            gdc_launch_dependents()
        x_ptr += tl.load(token_ptr) * D
    x = rms_norm(load_vector(x_ptr, D, CHUNK), scales, eps, D, CHUNK)
    out = dot_rows(tiles, x, D, ROWS, CHUNK)
    tl.store(qkv_ptr + first + tl.arange(0, ROWS), out.to(qkv_ptr.dtype.element_ty))


@triton.jit
def span_of(length, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """How many cached tokens each split reads: whole blocks, so that short texts use few splits."""
    return tl.maximum(tl.cdiv(tl.cdiv(length, SPLITS), BLOCK), 1) * BLOCK


@triton.jit
def turned_head(head_ptr, norm_ptr, cos, sin, dims, eps, Dh: tl.constexpr):
    """Norm of one head, then RoPE, rounded after each step as in the readable file.

    `dims` is `[LANES, Dh]`, each lane the same: every lane has the whole head, and nothing moves
    between warps. Each dimension also loads its partner, half a head away.
    """
    partners = (dims + Dh // 2) % Dh
    x = tl.load(head_ptr + dims)
    partner = tl.load(head_ptr + partners)
    dtype = x.dtype
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / Dh + eps)[:, None]
    x = (wide * scale).to(dtype).to(tl.float32)
    partner = (partner.to(tl.float32) * scale).to(dtype).to(tl.float32)
    x = (x * tl.load(norm_ptr + dims).to(tl.float32)).to(dtype).to(tl.float32)
    partner = (partner * tl.load(norm_ptr + partners).to(tl.float32)).to(dtype).to(tl.float32)
    along = (x * cos).to(dtype).to(tl.float32)
    across = (partner * sin).to(dtype).to(tl.float32)
    return tl.where(dims < Dh // 2, along - across, along + across).to(dtype)


@triton.jit
def load_block(
    pointer, first, end, dims, Dh: tl.constexpr, LANES: tl.constexpr, TIMES: tl.constexpr
):  # fmt: skip
    """Load `TIMES * LANES` keys or values as tiles `[LANES, Dh]`, zeros from `end` on."""
    tiles = ()
    for time in tl.static_range(TIMES):
        rows = first + time * LANES + tl.arange(0, LANES)[:, None]
        tiles += (tl.load(pointer + rows * Dh + dims, mask=rows < end, other=0.0),)
    return tiles


@triton.jit
def attend_kernel(
    qkv_ptr, q_norm_ptr, k_norm_ptr, cos_ptr, sin_ptr, state_ptr, keys_ptr, values_ptr,
    part_ptr, lse_ptr, eps, scale_log2, max_length,
    H: tl.constexpr, K: tl.constexpr, Dh: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK: tl.constexpr, LANES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Query/key norm, RoPE, cache write and attention of one query head over one split.

    Split 0 also attends to the new token, which it takes from `qkv` and not from the cache.
    Writes the split's mean of values to `part[SPLITS, H, Dh]` and the log2 of its sum of
    exponentials to `lse[SPLITS, H]`.

    Each of the `LANES` rows of threads has a running softmax of its own over every `LANES`-th key;
    they meet once, at the end.
    """
    if PDL:
        gdc_launch_dependents()
    head = tl.program_id(0)
    split = tl.program_id(1)
    kv_head = head // (H // K)
    length = tl.load(state_ptr).to(tl.int32)
    span = span_of(length, SPLITS, BLOCK)
    start = split * span
    if (split > 0) & (start >= length):
        return
    end = tl.minimum(start + span, length)
    lanes = tl.arange(0, LANES)
    dims = tl.arange(0, Dh)[None, :] + (lanes * 0)[:, None]
    keys_ptr += kv_head * max_length * Dh
    values_ptr += kv_head * max_length * Dh
    TIMES: tl.constexpr = BLOCK // LANES
    k_tiles = load_block(keys_ptr, start, end, dims, Dh, LANES, TIMES)
    v_tiles = load_block(values_ptr, start, end, dims, Dh, LANES, TIMES)
    turn = tl.load(state_ptr + 1) * (Dh // 2) + dims % (Dh // 2)
    cos = tl.load(cos_ptr + turn).to(tl.float32)
    sin = tl.load(sin_ptr + turn).to(tl.float32)
    if PDL:
        gdc_wait()
    q = turned_head(qkv_ptr + head * Dh, q_norm_ptr, cos, sin, dims, eps, Dh).to(tl.float32)
    k_new = turned_head(qkv_ptr + (H + kv_head) * Dh, k_norm_ptr, cos, sin, dims, eps, Dh)
    v_new = tl.load(qkv_ptr + (H + K + kv_head) * Dh + dims)
    if (split == 0) & (head % (H // K) == 0):
        tl.store(keys_ptr + length * Dh + dims, k_new, mask=(lanes == 0)[:, None])
        tl.store(values_ptr + length * Dh + dims, v_new, mask=(lanes == 0)[:, None])

    # The new token is where the first lane of split 0 starts from.
    mine = (lanes == 0) & (split == 0)
    score_new = tl.sum(q * k_new.to(tl.float32), 1) * scale_log2
    top = tl.where(mine, score_new, -1e30)
    total = tl.where(mine, 1.0, 0.0)
    mean = tl.where(mine[:, None], v_new.to(tl.float32), 0.0)
    for block in range(start, end, BLOCK):
        scores = ()
        new_top = top
        for time in tl.static_range(TIMES):
            inside = block + time * LANES + lanes < end
            score = tl.sum(k_tiles[time].to(tl.float32) * q, 1) * scale_log2
            scores += (tl.where(inside, score, -1e30),)
            new_top = tl.maximum(new_top, scores[time])
        keep = tl.exp2(top - new_top)
        total *= keep
        mean *= keep[:, None]
        for time in tl.static_range(TIMES):
            inside = block + time * LANES + lanes < end
            weight = tl.where(inside, tl.exp2(scores[time] - new_top), 0.0)
            total += weight
            mean += weight[:, None] * v_tiles[time].to(tl.float32)
        top = new_top
        k_tiles = load_block(keys_ptr, block + BLOCK, end, dims, Dh, LANES, TIMES)
        v_tiles = load_block(values_ptr, block + BLOCK, end, dims, Dh, LANES, TIMES)

    best = tl.max(top, 0)
    merge = tl.exp2(top - best)
    all_total = tl.sum(total * merge, 0)
    all_mean = tl.sum(mean * merge[:, None], 0) / all_total
    tl.store(part_ptr + (split * H + head) * Dh + tl.arange(0, Dh), all_mean)
    tl.store(lse_ptr + split * H + head, best + tl.log2(all_total))


@triton.jit
def output_kernel(
    part_ptr, lse_ptr, state_ptr, weight_ptr, residual_ptr, token_ptr, x_ptr,
    D: tl.constexpr, H: tl.constexpr, Dh: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, HEADS: tl.constexpr, EMBED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Merge the splits, then rows of o_proj, plus the residual: `x[D]`.

    Tiles are `[HEADS, ROWS, Dh]`, so that a head's merging weight is one number.
    """
    if PDL:
        gdc_launch_dependents()
    first = tl.program_id(0) * ROWS
    rows = first + tl.arange(0, ROWS)
    dims = tl.arange(0, Dh)
    tiles = ()
    for chunk in tl.static_range((H + HEADS - 1) // HEADS):
        heads = chunk * HEADS + tl.arange(0, HEADS)
        columns = heads[:, None, None] * Dh + dims[None, None, :]
        at = weight_ptr + rows[None, :, None] * (H * Dh) + columns
        if H % HEADS == 0:
            tiles += (tl.load(at, eviction_policy="evict_first"),)
        else:
            inside = (heads < H)[:, None, None]
            tiles += (tl.load(at, mask=inside, other=0.0, eviction_policy="evict_first"),)
    length = tl.load(state_ptr).to(tl.int32)
    num_active = tl.maximum(tl.cdiv(length, span_of(length, SPLITS, BLOCK)), 1)
    if EMBED:
        residual_ptr += tl.load(token_ptr) * D
    if PDL:
        gdc_wait()
    residual = tl.load(residual_ptr + rows).to(tl.float32)
    products = tl.zeros([HEADS, ROWS, Dh], tl.float32)
    for chunk in tl.static_range((H + HEADS - 1) // HEADS):
        heads = chunk * HEADS + tl.arange(0, HEADS)
        best = tl.full([HEADS], -1e30, tl.float32)
        lses = ()
        parts = ()
        for split in tl.static_range(SPLITS):
            inside = (heads < H) & (split < num_active)
            lse = tl.load(lse_ptr + split * H + heads, mask=inside, other=-1e30)
            at = (split * H + heads)[:, None] * Dh + dims[None, :]
            parts += (tl.load(part_ptr + at, mask=inside[:, None], other=0.0),)
            lses += (lse,)
            best = tl.maximum(best, lse)
        total = tl.zeros([HEADS], tl.float32)
        attended = tl.zeros([HEADS, Dh], tl.float32)
        for split in tl.static_range(SPLITS):
            weight = tl.exp2(lses[split] - best)
            total += weight
            attended += weight[:, None] * parts[split]
        attended = (attended / total[:, None]).to(x_ptr.dtype.element_ty).to(tl.float32)
        products += tiles[chunk].to(tl.float32) * attended[:, None, :]
    out = tl.sum(tl.sum(products, 2), 0).to(x_ptr.dtype.element_ty).to(tl.float32)
    tl.store(x_ptr + rows, (residual + out).to(x_ptr.dtype.element_ty))


@triton.jit
def gate_up_kernel(
    x_ptr, norm_ptr, gate_ptr, up_ptr, hidden_ptr, eps,
    D: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Norm, then rows of gate_proj and up_proj, then SwiGLU: `hidden[F]`."""
    if PDL:
        gdc_launch_dependents()
    first = tl.program_id(0) * ROWS
    gate_tiles = load_rows(gate_ptr, first, 0, D, ROWS, CHUNK, False)
    up_tiles = load_rows(up_ptr, first, 0, D, ROWS, CHUNK, False)
    scales = load_vector(norm_ptr, D, CHUNK)
    if PDL:
        gdc_wait()
    x = rms_norm(load_vector(x_ptr, D, CHUNK), scales, eps, D, CHUNK)
    dtype = hidden_ptr.dtype.element_ty
    gate = dot_rows(gate_tiles, x, D, ROWS, CHUNK).to(dtype).to(tl.float32)
    up = dot_rows(up_tiles, x, D, ROWS, CHUNK).to(dtype).to(tl.float32)
    activated = (gate / (1.0 + tl.exp(-gate))).to(dtype).to(tl.float32)
    tl.store(hidden_ptr + first + tl.arange(0, ROWS), (activated * up).to(dtype))


@triton.jit
def down_kernel(
    hidden_ptr, weight_ptr, x_ptr,
    F: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Rows of down_proj, added to the residual `x[D]` in place."""
    if PDL:
        gdc_launch_dependents()
    first = tl.program_id(0) * ROWS
    tiles = load_rows(weight_ptr, first, 0, F, ROWS, CHUNK, False)
    if PDL:
        gdc_wait()
    at = x_ptr + first + tl.arange(0, ROWS)
    residual = tl.load(at).to(tl.float32)
    out = dot_rows(tiles, load_vector(hidden_ptr, F, CHUNK), F, ROWS, CHUNK)
    dtype = x_ptr.dtype.element_ty
    tl.store(at, (residual + out.to(dtype).to(tl.float32)).to(dtype))


@triton.jit
def head_kernel(
    x_ptr, norm_ptr, weight_ptr, logits_ptr, top_ptr, top_id_ptr, eps, num_valid,
    V: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Norm, then the head's rows, `logits[V]`, and each program's likeliest id below `num_valid`.

    Programs walk over the blocks of rows and ask for the next block before they use this one.
    """
    if PDL:
        gdc_launch_dependents()
    program = tl.program_id(0)
    stride = tl.num_programs(0)
    tiles = load_rows(weight_ptr, program * ROWS, V, D, ROWS, CHUNK, True)
    scales = load_vector(norm_ptr, D, CHUNK)
    if PDL:
        gdc_wait()
    x = rms_norm(load_vector(x_ptr, D, CHUNK), scales, eps, D, CHUNK)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    top_id = tl.full([ROWS], 2147483647, tl.int32)
    for block in range(program, tl.cdiv(V, ROWS), stride):
        ahead = load_rows(weight_ptr, (block + stride) * ROWS, V, D, ROWS, CHUNK, True)
        rows = block * ROWS + tl.arange(0, ROWS)
        logits = dot_rows(tiles, x, D, ROWS, CHUNK).to(logits_ptr.dtype.element_ty)
        tl.store(logits_ptr + rows, logits, mask=rows < V)
        logits = logits.to(tl.float32)
        better = (rows < num_valid) & (logits > top)
        top = tl.where(better, logits, top)
        top_id = tl.where(better, rows, top_id)
        tiles = ahead
    best = tl.max(top, 0)
    tl.store(top_ptr + program, best)
    tl.store(top_id_ptr + program, tl.min(tl.where(top == best, top_id, 2147483647), 0))


@triton.jit
def finish_kernel(
    top_ptr, top_id_ptr, num_programs, token_ptr, state_ptr, history_ptr,
    PROGRAMS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Make the likeliest id the next token, note it at its place, and count the step."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    programs = tl.arange(0, PROGRAMS)
    inside = programs < num_programs
    top = tl.load(top_ptr + programs, mask=inside, other=float("-inf"))
    ids = tl.load(top_id_ptr + programs, mask=inside, other=2147483647)
    token = tl.min(tl.where(top == tl.max(top, 0), ids, 2147483647), 0).to(tl.int64)
    found = token != 2147483647  # no logit is a number otherwise
    length = tl.load(state_ptr)
    tl.store(token_ptr, tl.where(found, token, 0))
    tl.store(history_ptr + length, tl.where(found, token, -1))
    tl.store(state_ptr, length + 1)
    tl.store(state_ptr + 1, tl.load(state_ptr + 1) + 1)
