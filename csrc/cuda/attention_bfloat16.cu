/* Attention with products on tensor cores: q, k, v and dout, the probabilities and the gradients of the scores are
 * rounded to bfloat16 where they are operands, unless they come so; sums, softmax and everything else are float32. See
 * ref/attention.c for the formulas, mma.cuh for how a warp has a matrix.
 *
 * A block has some heads of one sequence, and in shared memory a tile of TILE rows of each operand. A short sequence's
 * queries and keys fit there whole, and often those of several heads: as many go on at a time as fit. A longer sequence
 * has one head at a time, and goes on over its tiles: in the forward pass with a running maximum. A warp owns BLOCK
 * queries of a head, whose scores stay in its registers. The backward pass puts probabilities and gradients of scores
 * into shared memory, and each warp then sums those of BLOCK keys: no atomics, one order. */
#include "cuda/attention.cuh"
#include "cuda/mma.cuh"

static constexpr int BLOCK = 16, PARTS = 4, TILE = PARTS * BLOCK, BLOCKS = TILE / BLOCK;
static constexpr int ATTENTION_THREADS = PARTS * WARP;

/* COLUMNS: what a head's columns are padded to. The rows of a tile are 16 bytes apart more than a multiple of 64: eight
 * neighbouring ones, as they are read together, are in different banks. */
template <int COLUMNS> static constexpr int HEADS = RP_CUDA_WIDEST_BFLOAT16 / COLUMNS;
template <int COLUMNS> static constexpr int PITCH = COLUMNS + 8;
static constexpr int SCORES = TILE + 8;

/* Blocks that a multiprocessor is to have at a time, one loading while another multiplies. */
template <int COLUMNS> static constexpr int RESIDENT = COLUMNS > 64 ? 2 : 4;

/* What a block has, and its warp. */
typedef struct part {
    int64_t row, token;   /* the first query, the first key */
    int m, n, D;          /* queries, keys */
    int head, heads;      /* the first, and how many */
    int together, height; /* heads at a time; the rows that each has of a tile */
    int own_head, own;    /* the warp's head of these, the warp's first row of it */
    uint32_t sample;
    float scale; /* 1 / sqrt D */
} part;

template <typename number> static __device__ part part_of(const rp_cuda_attention<number> &c, int heads) {
    part x;
    int groups = ((int)c.A + heads - 1) / heads, s = (int)(blockIdx.x / (unsigned)groups);
    int warp = (int)threadIdx.x / WARP;
    x.row = c.cu_queries[s];
    x.token = c.cu_seqlens[s];
    x.m = (int)(c.cu_queries[s + 1] - x.row);
    x.n = (int)(c.cu_seqlens[s + 1] - x.token);
    x.D = (int)c.D;
    x.head = (int)(blockIdx.x % (unsigned)groups) * heads;
    x.heads = (int)c.A - x.head < heads ? (int)c.A - x.head : heads;
    x.height = x.n < TILE ? (x.n + BLOCK - 1) / BLOCK * BLOCK : (int)TILE; /* there are no more queries than keys */
    x.together = TILE / x.height;
    x.own_head = warp * BLOCK / x.height;
    x.own = warp * BLOCK % x.height;
    x.sample = c.d.threshold != 0 ? (uint32_t)c.d.sample[s] : 0;
    x.scale = rsqrtf((float)c.D);
    return x;
}

/* The heads from number `first` of the block's on that go together. */
static __device__ __forceinline__ int heads_from(const part &x, int first) {
    return x.heads - first < x.together ? x.heads - first : x.together;
}

static __device__ __forceinline__ int quad_row() { return lane_of() / 4; }
static __device__ __forceinline__ int quad_column() { return lane_of() % 4 * 2; }

/* -- memory ------------------------------------------------------------------------------------------ */

/* A tile, and the matrix whose first `rows` rows it takes, rows `stride` apart. */
template <typename number> struct source {
    uint16_t *tile; /* (count, height, PITCH) for each of `count` heads; 0 behind a head's rows and columns */
    const number *matrix;
    int64_t stride;
    int rows;
};

/* A thread's eight columns, and its first of a tile's rows, of which it has every STEP-th. */
template <int COLUMNS> static constexpr int GROUPS = COLUMNS / 8;
template <int COLUMNS> static constexpr int STEP = ATTENTION_THREADS / GROUPS<COLUMNS>;
template <int COLUMNS> static constexpr int PASSES = TILE / STEP<COLUMNS>;
template <int COLUMNS> static __device__ __forceinline__ int own_column() {
    return (int)threadIdx.x % GROUPS<COLUMNS> * 8;
}
template <int COLUMNS> static __device__ __forceinline__ int own_row() { return (int)threadIdx.x / GROUPS<COLUMNS>; }

static __device__ __forceinline__ bool of_wide_words(const uint16_t *matrix, int64_t stride, int D) {
    return ((uintptr_t)matrix % 16 | (uintptr_t)(stride % 8) | (uintptr_t)(D % 8)) == 0;
}
static __device__ __forceinline__ bool of_wide_words(const float *, int64_t, int) { return false; }

/* The thread's part of a tile of wide words. */
template <int COLUMNS, typename number>
static __device__ __forceinline__ void fetch(uint4 got[PASSES<COLUMNS>], const source<number> &from, int count,
                                             const part &x) {
    int column = own_column<COLUMNS>();
#pragma unroll
    for (int pass = 0; pass < PASSES<COLUMNS>; pass++) {
        int i = own_row<COLUMNS>() + pass * STEP<COLUMNS>, a = i / x.height, r = i - a * x.height;
        got[pass] = uint4{0, 0, 0, 0};
        if (a < count && r < from.rows && column < x.D)
            got[pass] = *(const uint4 *)(from.matrix + r * from.stride + a * x.D + column);
    }
}

template <int COLUMNS>
static __device__ __forceinline__ void put(uint16_t *tile, const uint4 got[PASSES<COLUMNS>], int count, const part &x) {
#pragma unroll
    for (int pass = 0; pass < PASSES<COLUMNS>; pass++) {
        int i = own_row<COLUMNS>() + pass * STEP<COLUMNS>;
        if (i < count * x.height) *(uint4 *)(tile + i * PITCH<COLUMNS> + own_column<COLUMNS>()) = got[pass];
    }
}

/* A tile of numbers, or of bits that are no wide words. */
template <int COLUMNS, typename number>
static __device__ __forceinline__ void load_any(const source<number> &from, int count, const part &x) {
    int column = own_column<COLUMNS>();
    for (int i = own_row<COLUMNS>(); i < count * x.height; i += STEP<COLUMNS>) {
        int a = i / x.height, r = i - a * x.height;
        const number *at = from.matrix + r * from.stride + a * x.D + column;
        *(uint4 *)(from.tile + i * PITCH<COLUMNS> + column) = bits_of_eight(at, r < from.rows ? x.D - column : 0);
    }
}

/* Both tiles: everything is asked for before anything is waited for. */
template <int COLUMNS, typename number>
static __device__ __forceinline__ void load_tiles(const source<number> &one, const source<number> &other, int count,
                                                  const part &x) {
    if (of_wide_words(one.matrix, one.stride, x.D) && of_wide_words(other.matrix, other.stride, x.D)) {
        uint4 first[PASSES<COLUMNS>], second[PASSES<COLUMNS>];
        fetch<COLUMNS>(first, one, count, x);
        fetch<COLUMNS>(second, other, count, x);
        put<COLUMNS>(one.tile, first, count, x);
        put<COLUMNS>(other.tile, second, count, x);
        return;
    }
    load_any<COLUMNS>(one, count, x);
    load_any<COLUMNS>(other, count, x);
}

static __device__ __forceinline__ float value_of(float x) { return x; }
static __device__ __forceinline__ float value_of(uint16_t bits) { return number_of(bits); }

/* Bits of two neighbours, 0 behind the first `left`. */
template <typename number> static __device__ __forceinline__ uint32_t pair_from(const number *from, int left) {
    if (sizeof(number) == sizeof(uint16_t) && left >= 2 && (uintptr_t)from % 4 == 0) return *(const uint32_t *)from;
    float first = left >= 1 ? value_of(from[0]) : 0.0f;
    return bfloat16_pair(first, left >= 2 ? value_of(from[1]) : 0.0f);
}

/* to[0], to[1] = x, y, or added to; so far as `left` columns are there. */
static __device__ __forceinline__ void store_pair(float *to, float x, float y, int left, bool add) {
    if (left >= 2 && (uintptr_t)to % 8 == 0) {
        float2 old = add ? *(float2 *)to : float2{0.0f, 0.0f};
        *(float2 *)to = float2{old.x + x, old.y + y};
        return;
    }
    if (left >= 1) to[0] = (add ? to[0] : 0.0f) + x;
    if (left >= 2) to[1] = (add ? to[1] : 0.0f) + y;
}

static __device__ __forceinline__ void store_pair(uint16_t *to, float x, float y, int left, bool add) {
    if (add && left >= 1) x += number_of(to[0]);
    if (add && left >= 2) y += number_of(to[1]);
    if (left >= 2 && (uintptr_t)to % 4 == 0) {
        *(uint32_t *)to = bfloat16_pair(x, y);
        return;
    }
    if (left >= 1) to[0] = bfloat16_of(x);
    if (left >= 2) to[1] = bfloat16_of(y);
}

/* Writes sums(BLOCK, D) into a matrix of which `rows` rows are left; or adds them. */
template <int COLUMNS, typename number>
static __device__ __forceinline__ void store_block(number *matrix, int64_t stride, int rows,
                                                   const float sums[COLUMNS / 8][4], int D, bool add) {
    matrix += quad_row() * stride + quad_column();
    rows -= quad_row(), D -= quad_column();
#pragma unroll
    for (int half = 0; half < 2; half++, matrix += 8 * stride)
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j++)
            if (8 * half < rows) store_pair(matrix + 8 * j, sums[j][2 * half], sums[j][2 * half + 1], D - 8 * j, add);
}

template <int N> static __device__ __forceinline__ void clear(float sums[N][4]) {
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[j][i] = 0.0f;
}

/* -- dropout ----------------------------------------------------------------------------------------- */

/* A lane draws the masks of eight keys each for one query of a block at a time: the query's number in its draws. */
template <typename number>
static __device__ __forceinline__ uint32_t mask_row(const rp_cuda_attention<number> &c, const part &x, int head,
                                                    int query) {
    int own = query + quad_row() + lane_of() % 4 / 2 * 8;
    if (c.d.threshold == 0) return 0;
    return (uint32_t)(x.head + head) * 65536u + (own < x.m ? (uint32_t)c.query_pos[x.row + own] : 0);
}

/* keep(BLOCK,BLOCK): what dropout multiplies the probabilities of the warp's queries and the keys from `key` on by.
 * The four lanes of a row and the one 8 below draw four times four words, of which each lane needs one of each draw. */
template <typename number>
static __device__ __forceinline__ void keep_block(float keep[2][4], const rp_cuda_attention<number> &c, const part &x,
                                                  uint32_t row, int key) {
    uint32_t word[4];
    int own = lane_of() % 4;
    float scale = kept_scale(c.d.threshold);
    if (c.d.threshold == 0) {
#pragma unroll
        for (int i = 0; i < 8; i++) keep[i / 4][i % 4] = 1.0f;
        return;
    }
    rp_philox(word, c.d.key, (uint32_t)(key / 8 + own % 2), row, x.sample, (uint32_t)*c.d.step);
#pragma unroll
    for (int bit = 2; bit > 0; bit /= 2) /* word[i] of lane j and word[j] of lane i change places */
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit) continue;
            uint32_t given = own & bit ? word[i] : word[i | bit];
            uint32_t got = __shfl_xor_sync(ALL_LANES, given, bit);
            word[i] = own & bit ? got : word[i];
            word[i | bit] = own & bit ? word[i | bit] : got;
        }
#pragma unroll
    for (int i = 0; i < 4; i++) { /* draw i: of the row 8 (i / 2) below, and the keys 8 (i % 2) on */
        keep[i % 2][i / 2 * 2] = (word[i] & 0xFFFFu) < c.d.threshold ? 0.0f : scale;
        keep[i % 2][i / 2 * 2 + 1] = word[i] >> 16 < c.d.threshold ? 0.0f : scale;
    }
}

/* -- forward ----------------------------------------------------------------------------------------- */

/* What a warp keeps of its queries while it goes over the keys; of the rows g and g + 8. */
template <int COLUMNS> struct running {
    uint32_t q[COLUMNS / 16][4];
    float largest[2], total[2], out[COLUMNS / 8][4]; /* total: the lane's own part */
};

template <int COLUMNS, typename number>
static __device__ void take_queries(running<COLUMNS> &o, const rp_cuda_attention<number> &c, const part &x, int head,
                                    int query) {
    clear<COLUMNS / 8>(o.out);
    for (int half = 0; half < 2; half++) o.largest[half] = -INFINITY, o.total[half] = 0.0f;
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = query + quad_row() + i % 2 * 8, column = 16 * k + quad_column() + i / 2 * 8;
            const number *from = c.q + (x.row + row) * c.q_stride + (x.head + head) * x.D + column;
            o.q[k][i] = pair_from(from, row < x.m ? x.D - column : 0);
        }
}

/* s(BLOCK,TILE) = the warp's queries' scores of `count` keys, -infinity behind them. */
template <int COLUMNS>
static __device__ void score(float s[TILE / 8][4], const running<COLUMNS> &o, const uint16_t *keys, int count,
                             float scale) {
    clear<TILE / 8>(s);
#pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        if (j * BLOCK >= count) continue;
#pragma unroll
        for (int k = 0; k < COLUMNS / 16; k++) {
            uint32_t b[4];
            load_b_transposed(b, keys + j * BLOCK * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            multiply_block(s + 2 * j, o.q[k], b);
        }
    }
#pragma unroll
    for (int j = 0; j < TILE / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[j][i] = 8 * j + quad_column() + i % 2 < count ? s[j][i] * scale : -INFINITY;
}

/* Takes in the keys of a tile, from `key` on: out and total become sums that are to be divided in the end. */
template <int COLUMNS, typename number>
static __device__ void take_keys(running<COLUMNS> &o, const uint16_t *keys, const uint16_t *values,
                                 const rp_cuda_attention<number> &c, const part &x, uint32_t row, int key) {
    float s[TILE / 8][4], largest[2] = {o.largest[0], o.largest[1]}, shrink[2];
    int count = x.n - key < TILE ? x.n - key : (int)TILE;
    score<COLUMNS>(s, o, keys, count, x.scale);
#pragma unroll
    for (int j = 0; j < TILE / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) largest[i / 2] = fmaxf(largest[i / 2], s[j][i]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        largest[half] = quad_max(largest[half]);
        shrink[half] = expf(o.largest[half] - largest[half]);
        o.largest[half] = largest[half];
        o.total[half] *= shrink[half];
    }
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) o.out[j][i] *= shrink[i / 2];
#pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        if (j * BLOCK >= count) continue;
        float keep[2][4];
        uint32_t p[4];
        keep_block(keep, c, x, row, key + j * BLOCK);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float &to = s[2 * j + i / 4][i % 4], weight = expf(to - largest[i % 4 / 2]);
            o.total[i % 4 / 2] += weight;
            to = dropped(weight, keep[i / 4][i % 4]);
        }
        round_block(p, s + 2 * j);
#pragma unroll
        for (int k = 0; k < COLUMNS / 16; k++) {
            uint32_t b[4];
            load_b(b, values + j * BLOCK * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            multiply_block(o.out + 2 * k, p, b);
        }
    }
}

template <int COLUMNS, typename number>
static __device__ void write_queries(running<COLUMNS> &o, number *out, float *lse, const rp_cuda_attention<number> &c,
                                     const part &x, int head, int query) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = query + quad_row() + 8 * half;
        float total = quad_sum(o.total[half]), share = 1.0f / total;
        if (row < x.m && lane_of() % 4 == 0) lse[(x.head + head) * c.R + x.row + row] = o.largest[half] + logf(total);
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j++) o.out[j][2 * half] *= share, o.out[j][2 * half + 1] *= share;
    }
    int64_t H = c.A * c.D;
    store_block<COLUMNS>(out + (x.row + query) * H + (x.head + head) * x.D, H, x.m - query, o.out, x.D, false);
}

template <int COLUMNS, typename number>
static __global__ void __launch_bounds__(ATTENTION_THREADS, RESIDENT<COLUMNS>)
    forward_kernel(number *out, float *lse, rp_cuda_attention<number> c) {
    RP_CUDA_SHARED(uint16_t, keys);
    uint16_t *values = keys + TILE * PITCH<COLUMNS>;
    part x = part_of(c, HEADS<COLUMNS>);
    int own = x.own_head * x.height * PITCH<COLUMNS>;
    for (int first = 0; first < x.heads; first += x.together) {
        int count = heads_from(x, first), head = first + x.own_head;
        const number *k = c.k + x.token * c.kv_stride + (x.head + first) * x.D;
        const number *v = c.v + x.token * c.kv_stride + (x.head + first) * x.D;
        for (int query = 0; query < x.m; query += TILE) {
            bool active = x.own_head < count && query + x.own < x.m;
            running<COLUMNS> o;
            uint32_t row = active ? mask_row(c, x, head, query + x.own) : 0;
            if (active) take_queries<COLUMNS>(o, c, x, head, query + x.own);
            for (int key = 0; key < x.n; key += TILE) {
                __syncthreads(); /* the tiles before are read */
                load_tiles<COLUMNS>(source<number>{keys, k + key * c.kv_stride, c.kv_stride, x.n - key},
                                    source<number>{values, v + key * c.kv_stride, c.kv_stride, x.n - key}, count, x);
                __syncthreads();
                if (active) take_keys<COLUMNS>(o, keys + own, values + own, c, x, row, key);
            }
            if (active) write_queries<COLUMNS>(o, out, lse, c, x, head, query + x.own);
        }
    }
}

/* -- backward ---------------------------------------------------------------------------------------- */

/* A block's shared memory; in the kernel's functions those of the warp's head. */
typedef struct tiles {
    uint16_t *queries, *douts, *keys, *values; /* (TILE,PITCH) */
    uint16_t *kept, *ds;                       /* (TILE,SCORES): k_ij P_ij, and d loss / d s_ij / sqrt D */
} tiles;

template <int COLUMNS> static __device__ tiles cut_tiles(uint16_t *shared) {
    tiles t;
    constexpr int size = TILE * PITCH<COLUMNS>;
    t.queries = shared, t.douts = t.queries + size, t.keys = t.douts + size, t.values = t.keys + size;
    t.kept = t.values + size, t.ds = t.kept + TILE * SCORES;
    return t;
}

template <int COLUMNS> static __device__ tiles own_tiles(tiles t, const part &x) {
    int row = x.own_head * x.height;
    t.queries += row * PITCH<COLUMNS>, t.douts += row * PITCH<COLUMNS>;
    t.keys += row * PITCH<COLUMNS>, t.values += row * PITCH<COLUMNS>;
    t.kept += row * SCORES, t.ds += row * SCORES;
    return t;
}

/* Of the warp's queries, rows g and g + 8: lse, and delta_i = <dout_i, out_i>. */
typedef struct statistics {
    float lse[2], delta[2];
} statistics;

template <typename number>
static __device__ statistics statistics_of(const rp_cuda_attention_gradients<number> &g,
                                           const rp_cuda_attention<number> &c, const part &x, int head, int query) {
    statistics s;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int own = query + quad_row() + 8 * half;
        int64_t row = x.row + own, at = (row * c.A + x.head + head) * c.D;
        float delta = 0.0f;
        for (int i = lane_of() % 4 * 8; own < x.m && i < x.D; i += 32) {
            float dout[8], out[8];
            load_eight(dout, g.dout + at + i, x.D - i);
            load_eight(out, g.out + at + i, x.D - i);
#pragma unroll
            for (int j = 0; j < 8; j++) delta += dout[j] * out[j];
        }
        s.delta[half] = quad_sum(delta);
        s.lse[half] = own < x.m ? g.lse[(x.head + head) * c.R + row] : INFINITY; /* probabilities of 0 */
    }
    return s;
}

/* The warp's rows of kept and ds, from its queries and the keys of a tile; and their part of dq. */
template <int COLUMNS, typename number>
static __device__ void differentiate(const tiles &t, float dq[COLUMNS / 8][4], const statistics &saved,
                                     const rp_cuda_attention<number> &c, const part &x, uint32_t row, int key) {
    uint32_t a[4], b[4], kept[4], ds[4];
    int left = x.n - key;
    for (int j = 0; j < TILE && j < left; j += BLOCK) {
        float s[2][4], dp[2][4], keep[2][4];
        clear<2>(s);
        clear<2>(dp);
#pragma unroll
        for (int k = 0; k < COLUMNS / 16; k++) {
            load_b_transposed(b, t.keys + j * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            load_a(a, t.queries + x.own * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            multiply_block(s, a, b);
            load_b_transposed(b, t.values + j * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            load_a(a, t.douts + x.own * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            multiply_block(dp, a, b);
        }
        keep_block(keep, c, x, row, key + j);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int half = i % 4 / 2, column = i / 4 * 8 + quad_column() + i % 2;
            float &p = s[i / 4][i % 4], &d = dp[i / 4][i % 4], k = keep[i / 4][i % 4];
            bool there = j + column < left;
            p = there ? expf(p * x.scale - saved.lse[half]) : 0.0f;
            d = there ? p * (dropped(d, k) - saved.delta[half]) * x.scale : 0.0f;
            p = dropped(p, k);
        }
        round_block(kept, s);
        round_block(ds, dp);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = (x.own + quad_row() + i % 2 * 8) * SCORES + j + quad_column() + i / 2 * 8;
            *(uint32_t *)(t.kept + at) = kept[i];
            *(uint32_t *)(t.ds + at) = ds[i];
        }
        __syncwarp(); /* lanes part where keys end */
#pragma unroll
        for (int k = 0; k < COLUMNS / 16; k++) {
            load_b(b, t.keys + j * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            multiply_block(dq + 2 * k, ds, b);
        }
    }
}

/* The warp's keys' gradients, into a matrix of which `rows` rows are left: the sum over `left` queries of a tile of the
 * keys' columns of weights(TILE,SCORES) times the rows of `vectors`. */
template <int COLUMNS, typename number>
static __device__ void sum_queries(number *matrix, int64_t stride, int rows, const uint16_t *weights,
                                   const uint16_t *vectors, int left, const part &x, bool add) {
    float sums[COLUMNS / 8][4];
    clear<COLUMNS / 8>(sums);
    for (int i = 0; i < TILE && i < left; i += BLOCK) {
        uint32_t a[4], b[4];
        load_a_transposed(a, weights + i * SCORES + x.own, SCORES);
#pragma unroll
        for (int k = 0; k < COLUMNS / 16; k++) {
            load_b(b, vectors + i * PITCH<COLUMNS> + 16 * k, PITCH<COLUMNS>);
            multiply_block(sums + 2 * k, a, b);
        }
    }
    store_block<COLUMNS>(matrix, stride, rows, sums, x.D, add);
}

/* The tile of queries from `query` on and the tile of keys from `key` on, both in shared memory, for the warp's head.
 * The first tile's gradients set those in memory, the others' add to them. */
template <int COLUMNS, typename number>
static __device__ void take_tiles(const tiles &t, const rp_cuda_attention_gradients<number> &g,
                                  const rp_cuda_attention<number> &c, const part &x, const statistics &saved,
                                  uint32_t row, int head, bool active, int query, int key) {
    int column = (x.head + head) * x.D;
    bool asks = active && query + x.own < x.m;
    if (asks) {
        float dq[COLUMNS / 8][4];
        clear<COLUMNS / 8>(dq);
        differentiate<COLUMNS>(t, dq, saved, c, x, row, key);
        store_block<COLUMNS>(g.dq + (x.row + query + x.own) * c.q_stride + column, c.q_stride, x.m - query - x.own, dq,
                             x.D, key > 0);
    }
    __syncthreads();
    if (active && key + x.own < x.n) {
        int64_t at = (x.token + key + x.own) * c.kv_stride + column;
        int rows = x.n - key - x.own, left = x.m - query;
        sum_queries<COLUMNS>(g.dk + at, c.kv_stride, rows, t.ds, t.queries, left, x, query > 0);
        sum_queries<COLUMNS>(g.dv + at, c.kv_stride, rows, t.kept, t.douts, left, x, query > 0);
    }
}

template <int COLUMNS, typename number>
static __global__ void __launch_bounds__(ATTENTION_THREADS, RESIDENT<COLUMNS>)
    backward_kernel(rp_cuda_attention_gradients<number> g, rp_cuda_attention<number> c) {
    RP_CUDA_SHARED(uint16_t, shared);
    part x = part_of(c, HEADS<COLUMNS>);
    tiles all = cut_tiles<COLUMNS>(shared), own = own_tiles<COLUMNS>(all, x);
    int64_t H = c.A * c.D;
    for (int first = 0; first < x.heads; first += x.together) {
        int count = heads_from(x, first), head = first + x.own_head, column = (x.head + first) * x.D;
        bool active = x.own_head < count;
        for (int key = 0; key < x.n; key += TILE)
            for (int query = 0; query == 0 || query < x.m; query += TILE) { /* once at least: dk and dv are set */
                int64_t token = (x.token + key) * c.kv_stride + column, row = x.row + query;
                __syncthreads(); /* the tiles before are read */
                if (query == 0)
                    load_tiles<COLUMNS>(source<number>{all.keys, c.k + token, c.kv_stride, x.n - key},
                                        source<number>{all.values, c.v + token, c.kv_stride, x.n - key}, count, x);
                load_tiles<COLUMNS>(
                    source<number>{all.queries, c.q + row * c.q_stride + column, c.q_stride, x.m - query},
                    source<number>{all.douts, g.dout + row * H + column, H, x.m - query}, count, x);
                statistics saved = statistics();
                if (active) saved = statistics_of(g, c, x, head, query + x.own);
                uint32_t mask = active ? mask_row(c, x, head, query + x.own) : 0;
                __syncthreads();
                take_tiles<COLUMNS>(own, g, c, x, saved, mask, head, active, query, key);
            }
    }
}

/* -- launches ---------------------------------------------------------------------------------------- */

template <int COLUMNS, typename number> static unsigned blocks_of(const rp_cuda_attention<number> *c, int64_t S) {
    return (unsigned)(S * rp_cuda_ceil(c->A, HEADS<COLUMNS>));
}

template <int COLUMNS, typename number>
static rp_status forward(number *out, float *lse, const rp_cuda_attention<number> *c, int64_t S) {
    size_t bytes = sizeof(uint16_t) * 2 * TILE * PITCH<COLUMNS>;
    auto forward = forward_kernel<COLUMNS, number>;
    RP_CUDA_LAUNCH(forward, blocks_of<COLUMNS>(c, S), ATTENTION_THREADS, bytes, out, lse, *c);
    return RP_OK;
}

template <int COLUMNS, typename number>
static rp_status backward(const rp_cuda_attention_gradients<number> *g, const rp_cuda_attention<number> *c, int64_t S) {
    size_t bytes = sizeof(uint16_t) * (4 * TILE * PITCH<COLUMNS> + 2 * TILE * SCORES);
    auto backward = backward_kernel<COLUMNS, number>;
    RP_CUDA_LAUNCH(backward, blocks_of<COLUMNS>(c, S), ATTENTION_THREADS, bytes, *g, *c);
    return RP_OK;
}

template <typename number>
rp_status rp_cuda_attention_forward_bfloat16(number *out, float *lse, const rp_cuda_attention<number> *c, int64_t S) {
    if (c->D <= 32) return forward<32>(out, lse, c, S);
    if (c->D <= 64) return forward<64>(out, lse, c, S);
    return forward<RP_CUDA_WIDEST_BFLOAT16>(out, lse, c, S);
}

template <typename number>
rp_status rp_cuda_attention_backward_bfloat16(const rp_cuda_attention_gradients<number> *g,
                                              const rp_cuda_attention<number> *c, int64_t S) {
    if (c->D <= 32) return backward<32>(g, c, S);
    if (c->D <= 64) return backward<64>(g, c, S);
    return backward<RP_CUDA_WIDEST_BFLOAT16>(g, c, S);
}

#define INSTANCE(number)                                                                                               \
    template rp_status rp_cuda_attention_forward_bfloat16(number *, float *, const rp_cuda_attention<number> *,        \
                                                          int64_t);                                                    \
    template rp_status rp_cuda_attention_backward_bfloat16(const rp_cuda_attention_gradients<number> *,                \
                                                           const rp_cuda_attention<number> *, int64_t);
INSTANCE(float)
INSTANCE(uint16_t)
