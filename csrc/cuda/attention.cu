/* Self-attention inside each sequence (Vaswani et al. 2017), with dropout on the probabilities. See ref/attention.c for
 * the formulas. Here its products are float32; attention_bfloat16.cu has those of bfloat16.
 *
 * A block has one head of one sequence. It takes TILE queries and TILE keys at a time, so that of a short sentence the
 * whole block of scores is on the chip at once and nothing of it is written to memory; a longer one goes on over its
 * tiles with a running maximum. Each of the block's warps has TILE / PARTS queries, its lanes are the keys, and then
 * the columns of a head. Gradients of queries are added up by the warp that owns them, those of keys and values by the
 * warp that owns the keys: no atomics, one order. */
#include "cuda/attention.cuh"

static constexpr int TILE = 32, PARTS = 4, OWN = TILE / PARTS, ATTENTION_THREADS = PARTS * WARP, SCORES = TILE + 4;

/* One head of one sequence: the block's. */
typedef struct head {
    const float *q, *k, *v; /* (m,D), (n,D), (n,D) */
    const int32_t *pos;     /* (m) the queries' places */
    int64_t row, token;     /* the first query, the first key */
    int m, n, D, width;     /* width: of a tile's row in shared memory */
    int64_t number;
    uint32_t sample;
    float scale; /* 1 / sqrt D */
} head;

/* Tiles' rows are 16 bytes apart more than a multiple of 128, so that lanes that read a column each meet other banks.
 */
static __host__ __device__ __forceinline__ int width_of(int64_t D) { return (int)((D + 31) / 32 * 32 + 4); }

static __device__ head head_of(const rp_cuda_attention<float> &c) {
    head x;
    int64_t s = blockIdx.x / c.A;
    x.number = blockIdx.x % c.A;
    x.row = c.cu_queries[s];
    x.token = c.cu_seqlens[s];
    x.m = (int)(c.cu_queries[s + 1] - x.row);
    x.n = (int)(c.cu_seqlens[s + 1] - x.token);
    x.D = (int)c.D;
    x.width = width_of(c.D);
    x.q = c.q + x.row * c.q_stride + x.number * c.D;
    x.k = c.k + x.token * c.kv_stride + x.number * c.D;
    x.v = c.v + x.token * c.kv_stride + x.number * c.D;
    x.pos = c.query_pos + x.row;
    x.sample = c.d.threshold != 0 ? (uint32_t)c.d.sample[s] : 0;
    x.scale = rsqrtf((float)c.D);
    return x;
}

/* tile(TILE,width) = rows first .. of matrix(rows,D), 0 behind them. */
static __device__ void load_tile(float *tile, const float *matrix, int first, int rows, int64_t stride, const head &x) {
    int wide = x.width - 4;
    for (int i = (int)threadIdx.x; i < TILE * wide; i += ATTENTION_THREADS) {
        int r = i / wide, c = i % wide;
        tile[r * x.width + c] = first + r < rows && c < x.D ? matrix[(first + r) * stride + c] : 0.0f;
    }
}

/* products[r] = <row r of the warp's queries' tile, the lane's row of the keys' tile>. */
static __device__ __forceinline__ void multiply(float products[OWN], const float *queries, const float *keys,
                                                const head &x) {
#pragma unroll
    for (int r = 0; r < OWN; r++) products[r] = 0.0f;
    for (int c = 0; c < x.D; c += 4) { /* zeros behind D */
        float4 k = *(const float4 *)(keys + lane_of() * x.width + c);
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            float4 q = *(const float4 *)(queries + r * x.width + c);
            products[r] += q.x * k.x + q.y * k.y + q.z * k.z + q.w * k.w;
        }
    }
}

/* keep[r]: what dropout multiplies the probability of the warp's query r and the lane's key by. The mask of eight
 * neighbouring keys is one draw: each lane makes one, of OWN queries and TILE / 8 groups, and gets its own from there.
 */
static __device__ __forceinline__ void keep_own(float keep[OWN], const rp_cuda_attention<float> &c, const head &x,
                                                int first_query, int first_key) {
    if (c.d.threshold == 0) {
#pragma unroll
        for (int r = 0; r < OWN; r++) keep[r] = 1.0f;
        return;
    }
    constexpr int groups = TILE / 8;
    int lane = lane_of(), query = first_query + lane / groups;
    uint32_t word[4], place = query < x.m ? (uint32_t)x.pos[query] : 0;
    rp_philox(word, c.d.key, (uint32_t)(first_key / 8 + lane % groups), (uint32_t)(x.number * 65536) + place, x.sample,
              (uint32_t)*c.d.step);
    float scale = kept_scale(c.d.threshold);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        uint32_t mine = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t there = __shfl_sync(ALL_LANES, word[i], r * groups + lane / 8);
            if (lane % 8 / 2 == i) mine = there;
        }
        keep[r] = (mine >> (16 * (lane % 2)) & 0xFFFFu) < c.d.threshold ? 0.0f : scale;
    }
}

/* sums[r][j] += rows of weights(OWN, SCORES; columns 0 .. count) times tile(count,width); j: columns lane + 32 j. */
template <int COLUMNS>
static __device__ __forceinline__ void add_weighted(float sums[OWN][COLUMNS], const float *weights, const float *tile,
                                                    int count, const head &x) {
    for (int i = 0; i < count; i++) {
        float value[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            int c = lane_of() + WARP * j;
            value[j] = c < x.D ? tile[i * x.width + c] : 0.0f;
        }
#pragma unroll
        for (int r = 0; r < OWN; r++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) sums[r][j] += weights[r * SCORES + i] * value[j];
    }
}

template <int COLUMNS> static __device__ __forceinline__ void clear(float sums[OWN][COLUMNS]) {
#pragma unroll
    for (int r = 0; r < OWN; r++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) sums[r][j] = 0.0f;
}

/* -- forward ----------------------------------------------------------------------------------------- */

/* What a warp keeps of its queries while it goes over the keys. */
template <int COLUMNS> struct running {
    float largest[OWN], total[OWN], out[OWN][COLUMNS]; /* total: the lane's own part */
};

/* Takes in the keys of a tile: weights become their probabilities, to be divided by the total in the end. */
template <int COLUMNS>
static __device__ void take_keys(running<COLUMNS> &o, float *weights, const float *queries, const float *keys,
                                 const float *values, const rp_cuda_attention<float> &c, const head &x, int first_query,
                                 int first_key) {
    float s[OWN], keep[OWN];
    int count = x.n - first_key < TILE ? x.n - first_key : (int)TILE;
    multiply(s, queries, keys, x);
    keep_own(keep, c, x, first_query, first_key);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        float score = lane_of() < count ? s[r] * x.scale : -INFINITY;
        float largest = fmaxf(o.largest[r], warp_max(score)), shrink = expf(o.largest[r] - largest);
        float p = lane_of() < count ? expf(score - largest) : 0.0f;
        o.largest[r] = largest;
        o.total[r] = o.total[r] * shrink + p;
        weights[r * SCORES + lane_of()] = dropped(p, keep[r]);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) o.out[r][j] *= shrink;
    }
    __syncwarp();
    add_weighted<COLUMNS>(o.out, weights, values, count, x);
    __syncwarp(); /* the weights are read before the next tile's are written */
}

template <int COLUMNS>
static __device__ void write_queries(running<COLUMNS> &o, float *out, float *lse, const rp_cuda_attention<float> &c,
                                     const head &x, int first_query) {
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        float total = warp_sum(o.total[r]);
        int query = first_query + r;
        if (query >= x.m) continue;
        if (lane_of() == 0) lse[x.number * c.R + x.row + query] = o.largest[r] + logf(total);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            int column = lane_of() + WARP * j;
            if (column < x.D) out[(x.row + query) * c.A * c.D + x.number * c.D + column] = o.out[r][j] / total;
        }
    }
}

template <int COLUMNS>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    forward_kernel(float *out, float *lse, rp_cuda_attention<float> c) {
    RP_CUDA_SHARED(float, shared);
    head x = head_of(c);
    int warp = (int)threadIdx.x / WARP;
    float *queries = shared, *keys = queries + TILE * x.width, *values = keys + TILE * x.width;
    float *weights = values + TILE * x.width + warp * OWN * SCORES;
    for (int first = 0; first < x.m; first += TILE) {
        int own = first + warp * OWN;
        running<COLUMNS> o;
        for (int r = 0; r < OWN; r++) o.largest[r] = -INFINITY, o.total[r] = 0.0f;
        clear<COLUMNS>(o.out);
        for (int key = 0; key < x.n; key += TILE) {
            __syncthreads(); /* the tiles before are read */
            if (key == 0) load_tile(queries, x.q, first, x.m, c.q_stride, x);
            load_tile(keys, x.k, key, x.n, c.kv_stride, x);
            load_tile(values, x.v, key, x.n, c.kv_stride, x);
            __syncthreads();
            if (own < x.m) take_keys<COLUMNS>(o, weights, queries + warp * OWN * x.width, keys, values, c, x, own, key);
        }
        if (own < x.m) write_queries<COLUMNS>(o, out, lse, c, x, own);
    }
}

/* -- backward ---------------------------------------------------------------------------------------- */

/* A block's shared memory. */
typedef struct tiles {
    float *queries, *douts, *keys, *values; /* (TILE,width) */
    float *kept, *ds;                       /* (TILE,SCORES): k_ij P_ij, and d loss / d s_ij / sqrt D */
    float *lse, *delta;                     /* (TILE): delta_i = <dout_i, out_i> */
} tiles;

static __device__ tiles cut_tiles(float *shared, const head &x) {
    tiles t;
    int size = TILE * x.width;
    t.queries = shared, t.douts = t.queries + size, t.keys = t.douts + size, t.values = t.keys + size;
    t.kept = t.values + size, t.ds = t.kept + TILE * SCORES;
    t.lse = t.ds + TILE * SCORES, t.delta = t.lse + TILE;
    return t;
}

/* delta and lse of a tile of queries, from their rows in memory. */
static __device__ void load_statistics(const tiles &t, const rp_cuda_attention_gradients<float> &g,
                                       const rp_cuda_attention<float> &c, const head &x, int first) {
    for (int r = (int)threadIdx.x / WARP; r < TILE; r += PARTS) {
        int64_t row = x.row + first + r, at = row * c.A * c.D + x.number * c.D;
        float delta = 0.0f;
        if (first + r < x.m)
            for (int i = lane_of(); i < x.D; i += WARP) delta += g.dout[at + i] * g.out[at + i];
        delta = warp_sum(delta);
        if (lane_of() != 0) continue;
        t.delta[r] = delta;
        t.lse[r] = first + r < x.m ? g.lse[x.number * c.R + row] : 0.0f;
    }
}

/* The warp's rows of kept and ds; 0 where there is no query or key. */
static __device__ __forceinline__ void differentiate(const tiles &t, const rp_cuda_attention<float> &c, const head &x,
                                                     int first_query, int first_key) {
    float s[OWN], dp[OWN], keep[OWN];
    int own = (int)threadIdx.x / WARP * OWN;
    multiply(s, t.queries + own * x.width, t.keys, x);
    multiply(dp, t.douts + own * x.width, t.values, x);
    keep_own(keep, c, x, first_query + own, first_key);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        bool there = first_query + own + r < x.m && first_key + lane_of() < x.n;
        float p = there ? expf(s[r] * x.scale - t.lse[own + r]) : 0.0f;
        float ds = there ? p * (dropped(dp[r], keep[r]) - t.delta[own + r]) * x.scale : 0.0f;
        t.kept[(own + r) * SCORES + lane_of()] = dropped(p, keep[r]);
        t.ds[(own + r) * SCORES + lane_of()] = ds;
    }
}

/* dq of the warp's queries from a tile of keys: the first one's sets it, the others' add. */
template <int COLUMNS>
static __device__ void add_queries(const tiles &t, const rp_cuda_attention_gradients<float> &g,
                                   const rp_cuda_attention<float> &c, const head &x, int first_query, int first_key) {
    float dq[OWN][COLUMNS];
    int own = (int)threadIdx.x / WARP * OWN, count = x.n - first_key < TILE ? x.n - first_key : (int)TILE;
    clear<COLUMNS>(dq);
    add_weighted<COLUMNS>(dq, t.ds + own * SCORES, t.keys, count, x);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int query = first_query + own + r;
        if (query >= x.m) continue;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            int column = lane_of() + WARP * j;
            float *to = g.dq + (x.row + query) * c.q_stride + x.number * c.D + column;
            if (column < x.D) *to = (first_key == 0 ? 0.0f : *to) + dq[r][j];
        }
    }
}

/* The warp's keys: dk and dv += a tile of queries. */
template <int COLUMNS>
static __device__ void add_keys(float dk[OWN][COLUMNS], float dv[OWN][COLUMNS], const tiles &t, int count,
                                const head &x) {
    int own = (int)threadIdx.x / WARP * OWN;
    for (int i = 0; i < count; i++) {
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            int column = lane_of() + WARP * j;
            float q = column < x.D ? t.queries[i * x.width + column] : 0.0f;
            float dout = column < x.D ? t.douts[i * x.width + column] : 0.0f;
#pragma unroll
            for (int r = 0; r < OWN; r++) {
                dk[r][j] += t.ds[i * SCORES + own + r] * q;
                dv[r][j] += t.kept[i * SCORES + own + r] * dout;
            }
        }
    }
}

template <int COLUMNS>
static __device__ void write_keys(float dk[OWN][COLUMNS], float dv[OWN][COLUMNS],
                                  const rp_cuda_attention_gradients<float> &g, const rp_cuda_attention<float> &c,
                                  const head &x, int first_key) {
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int key = first_key + (int)threadIdx.x / WARP * OWN + r;
        if (key >= x.n) continue;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            int column = lane_of() + WARP * j;
            int64_t at = (x.token + key) * c.kv_stride + x.number * c.D + column;
            if (column >= x.D) continue;
            g.dk[at] = dk[r][j];
            g.dv[at] = dv[r][j];
        }
    }
}

template <int COLUMNS>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    backward_kernel(rp_cuda_attention_gradients<float> g, rp_cuda_attention<float> c) {
    RP_CUDA_SHARED(float, shared);
    head x = head_of(c);
    tiles t = cut_tiles(shared, x);
    const float *dout = g.dout + x.row * c.A * c.D + x.number * c.D;
    for (int key = 0; key < x.n; key += TILE) {
        float dk[OWN][COLUMNS], dv[OWN][COLUMNS];
        clear<COLUMNS>(dk);
        clear<COLUMNS>(dv);
        for (int first = 0; first < x.m; first += TILE) {
            __syncthreads(); /* the tiles before are read */
            if (first == 0) load_tile(t.keys, x.k, key, x.n, c.kv_stride, x);
            if (first == 0) load_tile(t.values, x.v, key, x.n, c.kv_stride, x);
            load_tile(t.queries, x.q, first, x.m, c.q_stride, x);
            load_tile(t.douts, dout, first, x.m, c.A * c.D, x);
            load_statistics(t, g, c, x, first);
            __syncthreads();
            differentiate(t, c, x, first, key);
            __syncthreads();
            add_queries<COLUMNS>(t, g, c, x, first, key);
            add_keys<COLUMNS>(dk, dv, t, x.m - first < TILE ? x.m - first : (int)TILE, x);
        }
        write_keys<COLUMNS>(dk, dv, g, c, x, key);
    }
}

/* -- launches ---------------------------------------------------------------------------------------- */

static constexpr int WIDEST = 256;

static rp_status check_head(int64_t D) {
    if (D <= WIDEST) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "attention heads have a size of %lld, the CUDA back end takes 1 to %d",
                   (long long)D, WIDEST);
}

static rp_status check_shared(size_t bytes, int64_t D) {
    int most = 0;
    RP_TRY(rp_cuda_check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0),
                         "asking for a block's most shared memory"));
    if (bytes <= (size_t)most) return RP_OK;
    return rp_fail(
        RP_STATUS_VALUE,
        "attention heads have a size of %lld, for which %zu bytes of a block's shared memory are needed; this "
        "GPU has %d: use the CPU",
        (long long)D, bytes, most);
}

/* Wider heads than any common model's are not worth kernels of their own. */
static bool on_tensor_cores(const rp_dev *dev, int64_t D) {
    return dev->products == RP_BFLOAT16 && D <= RP_CUDA_WIDEST_BFLOAT16;
}

template <int COLUMNS> static rp_status forward(float *out, float *lse, const rp_cuda_attention<float> &c, int64_t S) {
    size_t bytes = sizeof(float) * (size_t)(3 * TILE * width_of(c.D) + TILE * SCORES);
    RP_TRY(check_shared(bytes, c.D));
    RP_CUDA_LAUNCH(forward_kernel<COLUMNS>, (unsigned)(S * c.A), ATTENTION_THREADS, bytes, out, lse, c);
    return RP_OK;
}

template <int COLUMNS>
static rp_status backward(const rp_cuda_attention_gradients<float> &g, const rp_cuda_attention<float> &c, int64_t S) {
    size_t bytes = sizeof(float) * (size_t)(4 * TILE * width_of(c.D) + 2 * TILE * SCORES + 2 * TILE);
    RP_TRY(check_shared(bytes, c.D));
    RP_CUDA_LAUNCH(backward_kernel<COLUMNS>, (unsigned)(S * c.A), ATTENTION_THREADS, bytes, g, c);
    return RP_OK;
}

rp_status rp_cuda_attention_forward(rp_dev *dev, float *out, float *lse, const float *q, const float *k, const float *v,
                                    const int32_t *cu_seqlens, const int32_t *cu_queries, const int32_t *query_pos,
                                    const rp_dropout *d, int64_t S, int64_t R, int64_t A, int64_t D, int64_t q_stride,
                                    int64_t kv_stride) {
    rp_cuda_attention<float> c = {q, k, v, cu_seqlens, cu_queries, query_pos, *d, R, A, D, q_stride, kv_stride};
    RP_TRY(check_head(D));
    if (S == 0) return RP_OK;
    if (on_tensor_cores(dev, D)) return rp_cuda_attention_forward_bfloat16(out, lse, &c, S);
    if (D <= 32) return forward<1>(out, lse, c, S);
    if (D <= 64) return forward<2>(out, lse, c, S);
    return forward<WIDEST / 32>(out, lse, c, S);
}

rp_status rp_cuda_attention_backward(rp_dev *dev, float *dq, float *dk, float *dv, const float *dout, const float *out,
                                     const float *lse, const float *q, const float *k, const float *v,
                                     const int32_t *cu_seqlens, const int32_t *cu_queries, const int32_t *query_pos,
                                     const rp_dropout *d, int64_t S, int64_t R, int64_t A, int64_t D, int64_t q_stride,
                                     int64_t kv_stride) {
    rp_cuda_attention<float> c = {q, k, v, cu_seqlens, cu_queries, query_pos, *d, R, A, D, q_stride, kv_stride};
    rp_cuda_attention_gradients<float> g = {dq, dk, dv, dout, out, lse};
    RP_TRY(check_head(D));
    if (S == 0) return RP_OK;
    if (on_tensor_cores(dev, D)) return rp_cuda_attention_backward_bfloat16(&g, &c, S);
    if (D <= 32) return backward<1>(g, c, S);
    if (D <= 64) return backward<2>(g, c, S);
    return backward<WIDEST / 32>(g, c, S);
}
