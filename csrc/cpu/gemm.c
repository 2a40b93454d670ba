/* The products are cut as in Goto and van de Geijn (2008): a panel of b, KC deep and NC wide, is packed once for all
 * threads into strips of NR columns; each thread packs MB rows of a at a time into strips of MR rows and runs the
 * kernel, which holds MR x NR sums in registers, over all pairs of strips. KC and the cuts depend on the shape alone.
 *
 * With bfloat16, two consecutive values of the sum stand in one 32-bit word. A machine without instructions for it
 * rounds the operands and multiplies float32. */
#include "cpu/gemm.h"

#include "cpu/gelu_row.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum {
    MR = VL == 16 ? 14
    : VL == 8     ? 6
                  : 4,
    NR = 2 * VL,
    MB = 4 * MR,
    KC = RP_CPU_PANEL_DEPTH,
    NC = RP_CPU_PANEL_WIDTH
};
enum { AHEAD = 16 };     /* values of the sum whose lines are asked for before their turn: they lie pages apart */
enum { LINE = KC + 16 }; /* words between the packed rows of a, off the powers of two that share cache sets */

/* How values are packed: as they are, rounded to bfloat16 in a float32 each, two bfloat16 in a word. */
typedef enum packing { WHOLE, ROUNDED, PAIRS } packing;

static int64_t words(int64_t k, packing how) { return how == PAIRS ? (k + 1) / 2 : k; }

/* c(MR,NR) = or += the product of two strips over k words; word l of row i of a at a[i * ai + l * al]. */
typedef void kernel(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add);

/* -- bfloat16 -------------------------------------------------------------------------------------------- */

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Rounded, in the upper half; the lower one is garbage. NaN stays NaN. */
static inline uint32_t round_upper(uint32_t bits) {
    uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
    return (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded;
}

static inline uint32_t word_of(float x, bool rounded) {
    return rounded ? round_upper(bits_of(x)) & 0xffff0000u : bits_of(x);
}

/* -- bfloat16 in pairs, by instructions ------------------------------------------------------------------ */

/* Asks for the lines that pack_columns and pair_columns read AHEAD values later. */
static inline void prefetch_columns(const float *inp, int64_t step, int64_t lines, int64_t l, int64_t k) {
    for (int64_t i = 0; i < lines && l + AHEAD < k; i += 16) __builtin_prefetch(inp + (l + AHEAD) * step + i);
}

#if defined(__AVX512F__)
#define BFLOAT16 __attribute__((target("avx512bf16")))

static inline __mmask16 lanes(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

/* Does what pack_line says. */
BFLOAT16 static void pair_line(uint32_t *out, const float *inp, int64_t k) {
    for (int64_t l = 0; l < k; l += 32) {
        __m512 low = _mm512_maskz_loadu_ps(lanes(k - l), inp + l);
        __m512 high = _mm512_maskz_loadu_ps(lanes(k - l - 16), inp + l + 16);
        _mm512_mask_storeu_epi32(out + l / 2, lanes((k - l + 1) / 2), (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* Does what pack_columns says. */
BFLOAT16 static void pair_columns(uint32_t *out, const float *inp, int64_t step, int64_t lines, int64_t strip,
                                  int64_t k, int64_t width) {
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i alternating = _mm512_loadu_si512(order);
    for (int64_t l = 0; l < k; l += 2, out += width) {
        prefetch_columns(inp, step, lines, l, k);
        prefetch_columns(inp, step, lines, l + 1, k);
        const float *line = inp + l * step;
        for (int64_t first = 0, s = 0; first < lines; first += width, s++) {
            for (int64_t i = 0; i < width; i += 16) {
                __mmask16 valid = lanes(at_most(width, lines - first) - i), second = l + 1 < k ? valid : 0;
                __m512 low = _mm512_maskz_loadu_ps(valid, line + first + i);
                __m512 high = _mm512_maskz_loadu_ps(second, line + step + first + i);
                __m512i pairs = _mm512_permutexvar_epi16(alternating, (__m512i)_mm512_cvtne2ps_pbh(high, low));
                _mm512_mask_storeu_epi32(out + s * strip + i, lanes(width - i), pairs);
            }
        }
    }
}

BFLOAT16 static inline __attribute__((always_inline)) void multiply_pairs(float *c, int64_t ldc, const uint32_t *a,
                                                                          const uint32_t *b, int64_t k, bool add,
                                                                          const int64_t ai, const int64_t al) {
    __m512 sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t l = 0; l < k; l++) {
        __m512bh left = (__m512bh)_mm512_loadu_si512(b + l * NR);
        __m512bh right = (__m512bh)_mm512_loadu_si512(b + l * NR + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[l * al + i * ai]);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], left, x);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], right, x);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        float *row = c + i * ldc;
        _mm512_storeu_ps(row, add ? _mm512_add_ps(_mm512_loadu_ps(row), sum[i][0]) : sum[i][0]);
        _mm512_storeu_ps(row + VL, add ? _mm512_add_ps(_mm512_loadu_ps(row + VL), sum[i][1]) : sum[i][1]);
    }
}

BFLOAT16 static void multiply_pair_lines(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k,
                                         bool add) {
    multiply_pairs(c, ldc, a, b, k, add, LINE, 1);
}

BFLOAT16 static void multiply_pair_columns(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k,
                                           bool add) {
    multiply_pairs(c, ldc, a, b, k, add, 1, MR);
}
#else /* packing_of never says PAIRS */
#define pair_line(...) ((void)0)
#define pair_columns(...) ((void)0)
#define multiply_pair_lines multiply_lines
#define multiply_pair_columns multiply_columns
#endif

/* -- packing --------------------------------------------------------------------------------------------- */

/* One row of a: `k` values one after another. */
static void pack_line(uint32_t *restrict out, const float *restrict inp, int64_t k, packing how) {
    if (how == PAIRS) {
        pair_line(out, inp, k);
        return;
    }
    for (int64_t l = 0; l < k; l++) out[l] = word_of(inp[l], how == ROUNDED);
}

/* Strips of `width` lines each, `strip` words apart, word l of line i of a strip at [l * width + i], zeros behind the
 * last line; the lines stand side by side: value l of line i at inp[l * step + i]. */
static inline __attribute__((always_inline)) void pack_columns(uint32_t *out, const float *inp, int64_t step,
                                                               int64_t lines, int64_t strip, int64_t k, packing how,
                                                               const int width) {
    if (how == PAIRS) {
        pair_columns(out, inp, step, lines, strip, k, width);
        return;
    }
    for (int64_t l = 0; l < k; l++, out += width) {
        prefetch_columns(inp, step, lines, l, k);
        for (int64_t first = 0, s = 0; first < lines; first += width, s++) {
            const float *from = inp + l * step + first;
            uint32_t *to = out + s * strip;
            int64_t valid = at_most(width, lines - first);
            if (valid == width) {
                for (int i = 0; i < width; i++) to[i] = word_of(from[i], how == ROUNDED);
            } else {
                for (int i = 0; i < width; i++) to[i] = i < valid ? word_of(from[i], how == ROUNDED) : 0;
            }
        }
    }
}

/* The same from lines of consecutive values, `line` apart: through a tile that stays in cache. */
static void pack_turned(uint32_t *restrict out, const float *restrict inp, int64_t line, int64_t valid, int64_t k,
                        packing how) {
    enum { TILE = 64 };
    uint32_t tile[NR][TILE];
    for (int64_t first = 0; first < k; first += TILE) {
        int64_t part = at_most(TILE, k - first), depth = words(part, how);
        for (int64_t i = 0; i < valid; i++) pack_line(tile[i], inp + i * line + first, part, how);
        for (int64_t i = valid; i < NR; i++) memset(tile[i], 0, sizeof tile[i]);
        for (int64_t l = 0; l < depth; l++, out += NR)
            for (int i = 0; i < NR; i++) out[i] = tile[i][l];
    }
}

/* Strip j of b: its columns NR j …, values first .. first + k of the sum. */
static void pack_b(uint32_t *out, const rp_gemm *g, int64_t column, int64_t first, int64_t k, packing how) {
    const float *inp = g->b + first * g->bl + column * g->bj;
    int64_t valid = at_most(NR, g->n - column);
    if (g->bj == 1)
        pack_columns(out, inp, g->bl, valid, 0, k, how, NR);
    else
        pack_turned(out, inp, g->bj, valid, k, how);
}

/* Rows row … row + rows of a, in strips `strip` words apart; as lines LINE apart where the sum runs along a's rows,
 * else as columns. */
static void pack_a(uint32_t *out, const rp_gemm *g, int64_t row, int64_t rows, int64_t strip, int64_t first, int64_t k,
                   packing how) {
    const float *inp = g->a + row * g->ai + first * g->al;
    if (g->al != 1) {
        pack_columns(out, inp, g->al, rows, strip, k, how, MR);
        return;
    }
    for (int64_t i = 0; i < round_up(rows, MR); i++) {
        uint32_t *line = out + i / MR * strip + i % MR * LINE;
        if (i < rows)
            pack_line(line, inp + i * g->ai, k, how);
        else
            memset(line, 0, (size_t)words(k, how) * sizeof *line);
    }
}

/* -- kernels --------------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void multiply(float *c, int64_t ldc, const float *a, const float *b,
                                                           int64_t k, bool add, const int64_t ai, const int64_t al) {
    vf sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = (vf){0};
    for (int64_t l = 0; l < k; l++) {
        vf left = vf_load(b + l * NR), right = vf_load(b + l * NR + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            float x = a[l * al + i * ai];
            sum[i][0] += x * left;
            sum[i][1] += x * right;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        float *row = c + i * ldc;
        vf_store(row, add ? vf_load(row) + sum[i][0] : sum[i][0]);
        vf_store(row + VL, add ? vf_load(row + VL) + sum[i][1] : sum[i][1]);
    }
}

static void multiply_lines(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    multiply(c, ldc, (const float *)a, (const float *)b, k, add, LINE, 1);
}

static void multiply_columns(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    multiply(c, ldc, (const float *)a, (const float *)b, k, add, 1, MR);
}

static packing packing_of(const rp_dev *dev) {
    if (dev->products == RP_FLOAT32) return WHOLE;
    return VL == 16 && rp_cpu_has_bfloat16(RP_CPU_AVX512) ? PAIRS : ROUNDED;
}

static kernel *kernel_of(const rp_gemm *g, packing how) {
    if (how == PAIRS) return g->al == 1 ? multiply_pair_lines : multiply_pair_columns;
    return g->al == 1 ? multiply_lines : multiply_columns;
}

/* -- the product ----------------------------------------------------------------------------------------- */

/* A panel of b: columns column .. column + width, values first .. first + k of the sum. */
typedef struct panel {
    int64_t column, width, first, k, depth; /* depth: words of k */
    packing how;
    kernel *run;
    uint32_t *packed, *rows; /* the panel; MB * LINE words of each thread */
} panel;

/* The kernel at rows row …, columns column …; what lies outside c goes through a block of its own. */
static void block(const rp_gemm *g, const panel *p, const uint32_t *a, int64_t row, int64_t column) {
    const uint32_t *b = p->packed + (column - p->column) * p->depth;
    int64_t rows = at_most(MR, g->m - row), columns = at_most(NR, g->n - column);
    bool add = g->accumulate || p->first > 0;
    float *c = g->c + row * g->ldc + column, edge[MR * NR];
    if (rows == MR && columns == NR) {
        p->run(c, g->ldc, a, b, p->depth, add);
        return;
    }
    p->run(edge, NR, a, b, p->depth, false);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            c[i * g->ldc + j] = add ? c[i * g->ldc + j] + edge[i * NR + j] : edge[i * NR + j];
}

/* What follows the sums of a row while they are in cache. */
static void epilogue(const rp_gemm *g, const panel *p, int64_t row, int64_t rows) {
    for (int64_t i = row; i < row + rows; i++) {
        float *line = g->c + i * g->ldc + p->column;
        if (g->bias != NULL) {
            const float *bias = g->bias + p->column;
#pragma omp simd
            for (int64_t j = 0; j < p->width; j++) line[j] += bias[j];
        }
        if (g->act != NULL) gelu_row(g->act + i * g->ldc + p->column, line, p->width);
    }
}

/* Rows row … row + rows of c, MB at most, in the columns of the panel. */
static void rows_of_panel(const rp_gemm *g, const panel *p, int64_t row, int64_t rows, uint32_t *packed) {
    int64_t strip = g->al == 1 ? MR * LINE : MR * p->depth;
    pack_a(packed, g, row, rows, strip, p->first, p->k, p->how);
    for (int64_t j = p->column; j < p->column + p->width; j += NR)
        for (int64_t i = 0; i < rows; i += MR) block(g, p, packed + i / MR * strip, row + i, j);
    if (p->first + p->k == g->k) epilogue(g, p, row, rows);
}

/* How rows are dealt out changes no result: as many at a time as leave the threads with equal shares, within 2 %. */
static int64_t rows_at_a_time(int64_t m, int64_t threads) {
    int64_t best = MR, least = INT64_MAX;
    for (int64_t rows = MB; rows >= MR; rows -= MR) {
        int64_t turns = ((m + rows - 1) / rows + threads - 1) / threads, longest = turns * rows;
        if (longest * 51 / 50 < least) {
            best = rows;
            least = longest;
        }
    }
    return best;
}

static void multiply_panel(rp_dev *dev, const rp_gemm *g, const panel *p) {
    int64_t strips = (p->width + NR - 1) / NR, rows = rows_at_a_time(g->m, dev->num_threads);
#pragma omp parallel num_threads(team(dev, g->m * p->width))
    {
        uint32_t mode = rp_threads_flush_denormals();
        uint32_t *own = p->rows + omp_get_thread_num() * MB * LINE;
#pragma omp for schedule(static)
        for (int64_t j = 0; j < strips; j++)
            pack_b(p->packed + j * NR * p->depth, g, p->column + j * NR, p->first, p->k, p->how);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < g->m; i += rows) rows_of_panel(g, p, i, at_most(rows, g->m - i), own);
        rp_threads_restore(mode);
    }
}

/* A sum of nothing. */
static rp_status without_sum(const rp_gemm *g) {
    panel whole = {.width = g->n};
    for (int64_t i = 0; i < g->m && !g->accumulate; i++) memset(g->c + i * g->ldc, 0, (size_t)g->n * sizeof *g->c);
    epilogue(g, &whole, 0, g->m);
    return RP_OK;
}

rp_status RP_CPU(gemm)(rp_dev *dev, const rp_gemm *g) {
    if (g->m == 0 || g->n == 0) return RP_OK;
    int64_t room = KC * round_up(at_most(NC, g->n), NR);
    int64_t needed = (room + dev->num_threads * MB * LINE) * (int64_t)sizeof(uint32_t);
    _Static_assert(MB * LINE <= RP_CPU_ROWS_WORDS, "rp_ops_scratch reserves less");
    if ((int64_t)dev->scratch_bytes < needed)
        return rp_fail(RP_STATUS_STATE, "a matrix product has %zu bytes of scratch, %lld needed", dev->scratch_bytes,
                       (long long)needed);
    if (g->k == 0) return without_sum(g);
    int64_t parts = (g->k + KC - 1) / KC, deep = round_up((g->k + parts - 1) / parts, 2);
    panel p = {.how = packing_of(dev), .packed = dev->scratch, .rows = (uint32_t *)dev->scratch + room};
    p.run = kernel_of(g, p.how);
    for (p.column = 0; p.column < g->n; p.column += NC) {
        p.width = at_most(NC, g->n - p.column);
        for (p.first = 0; p.first < g->k; p.first += deep) {
            p.k = at_most(deep, g->k - p.first);
            p.depth = words(p.k, p.how);
            multiply_panel(dev, g, &p);
        }
    }
    return RP_OK;
}
