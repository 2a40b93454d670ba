/* The products are cut as in Goto and van de Geijn (2008): a panel of b, KC deep and NC wide, is packed once for all
 * threads into strips of NR columns; each thread packs MB rows of a at a time into strips of MR rows and runs the
 * kernel, which holds MR x NR sums in registers, over all pairs of strips. KC and the cuts depend on the shape alone.
 *
 * With bfloat16 two, with int8 four consecutive values of the sum stand in one 32-bit word. A machine without
 * instructions for it rounds the operands and multiplies float32. */
#include "cpu/gemm.h"

#include "cpu/bfloat16.h"
#include "cpu/gelu_row.h"
#include "kept.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

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
enum { TOGETHER = 4 };   /* strips of b that are packed at a time */
enum { AHEAD = 16 };     /* values of the sum whose lines are asked for before their turn: they lie pages apart */
enum { LINE = KC + 16 }; /* words between the packed rows of a, off the powers of two that share cache sets */

/* How values are packed: as they are, rounded to bfloat16 in a float32 each, two bfloat16 in a word; rounded to the
 * line's grid in a float32 each, four int8 in a word. */
typedef enum packing { WHOLE, ROUNDED, PAIRS, GRID, QUADS } packing;

static inline int64_t per_word(packing how) { return how == QUADS ? 4 : how == PAIRS ? 2 : 1; }
static inline int64_t words(int64_t k, packing how) { return (k + per_word(how) - 1) / per_word(how); }

/* With QUADS, the sum is of (weight + 128) times activation, unsigned by signed. What the kernel needs besides stands
 * behind the words: of a line of a, STEP and OFFSET, 128 times its sum, at [KC + …]; of a strip of b, its NR steps. */
enum { STEP, OFFSET };
static int64_t strip_words(int64_t depth, packing how) { return NR * (depth + (how == QUADS)); }

/* c(MR,NR) = or += the product of two strips over k words; word l of row i of a at a[i * ai + l * al]. */
typedef void kernel(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add);

/* Asks for the lines of c that a kernel will write, before its sums. */
static inline __attribute__((always_inline)) void prefetch_sums(const float *c, int64_t ldc) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NR - 1, 1);
    }
}

/* -- turning words ---------------------------------------------------------------------------------------- */

typedef uint32_t vw __attribute__((vector_size(VL * sizeof(uint32_t))));

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vw){__VA_ARGS__})
#endif

/* The first and the second half of a0 b0 a1 b1 … */
#if defined(__AVX512F__)
#define INTERLEAVE_LOW(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_HIGH(a, b) SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX2__)
#define INTERLEAVE_LOW(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define INTERLEAVE_HIGH(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define INTERLEAVE_LOW(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define INTERLEAVE_HIGH(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#endif

static inline uint32_t word_of(float x, bool rounded) {
    return rounded ? round_upper(bits_of(x)) & 0xffff0000u : bits_of(x);
}

/* -- int8 ------------------------------------------------------------------------------------------------ */

/* 255 values around 0 at equal steps, to the largest of a line. A line that is not finite has no number for a step. */
typedef struct grid {
    float step, inverse;
} grid;

static grid grid_of(const float *line, int64_t k, packing how) {
    float top = 0, nothing = 0;
    if (how < GRID) return (grid){0};
#pragma omp simd reduction(max : top) reduction(+ : nothing)
    for (int64_t l = 0; l < k; l++) {
        float size = fabsf(line[l]);
        top = size > top ? size : top;
        nothing += 0 * line[l];
    }
    return (grid){top / 127 + nothing, top > 1e-30f ? 127 / top : 0};
}

/* -- pairs and quads, by AVX-512's instructions ---------------------------------------------------------- */

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
    prefetch_sums(c, ldc);
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

/* Does what pack_line says; gives the sum of the line's numbers. */
static int32_t quad_line(uint32_t *out, const float *inp, int64_t k, grid to) {
    __m512i sum = _mm512_setzero_si512();
    __m512 inverse = _mm512_set1_ps(to.inverse);
    out[(k - 1) / 4] = 0;
    for (int64_t l = 0; l < k; l += 16) {
        __mmask16 valid = lanes(k - l);
        __m512i numbers = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(valid, inp + l), inverse));
        sum = _mm512_add_epi32(sum, numbers);
        _mm512_mask_cvtsepi32_storeu_epi8(out + l / 4, valid, numbers);
    }
    return _mm512_reduce_add_epi32(sum);
}

/* _mm512_dpbusd_epi32, with which gcc 12 copies every sum to memory and back. */
static inline __attribute__((always_inline)) void add_products(__m512i *sum, __m512i b, __m512i a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(b), "v"(a));
}

static inline void store_quads(float *c, __m512i sum, __m512 step, bool add) {
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), step);
    _mm512_storeu_ps(c, add ? _mm512_add_ps(_mm512_loadu_ps(c), value) : value);
}

static void multiply_quads(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    __m512i sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    prefetch_sums(c, ldc);
    for (int64_t l = 0; l < k; l++) {
        __m512i left = _mm512_loadu_si512(b + l * NR), right = _mm512_loadu_si512(b + l * NR + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            __m512i x = _mm512_set1_epi32((int)a[l + i * LINE]);
            add_products(&sum[i][0], left, x);
            add_products(&sum[i][1], right, x);
        }
    }
    const float *steps = (const float *)b + k * NR;
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        const uint32_t *line = a + i * LINE + KC;
        __m512 step = _mm512_set1_ps(float_of(line[STEP]));
        __m512i offset = _mm512_set1_epi32((int)line[OFFSET]);
        store_quads(c + i * ldc, _mm512_sub_epi32(sum[i][0], offset), _mm512_mul_ps(step, _mm512_loadu_ps(steps)), add);
        store_quads(c + i * ldc + VL, _mm512_sub_epi32(sum[i][1], offset),
                    _mm512_mul_ps(step, _mm512_loadu_ps(steps + VL)), add);
    }
}
#else /* packing_of says neither PAIRS nor QUADS */
#define pair_line(...) ((void)0)
#define pair_columns(...) ((void)0)
#define quad_line(...) 0
#define multiply_pair_lines multiply_lines
#define multiply_pair_columns multiply_columns
#define multiply_quads multiply_lines
#endif

/* -- packing --------------------------------------------------------------------------------------------- */

/* `k` values one after another; with QUADS, the sum of their numbers. */
static int32_t pack_line(uint32_t *restrict out, const float *restrict inp, int64_t k, packing how, grid to) {
    if (how == QUADS) return quad_line(out, inp, k, to);
    if (how == PAIRS) {
        pair_line(out, inp, k);
    } else if (how == GRID) {
        for (int64_t l = 0; l < k; l++) out[l] = bits_of(to.step * rintf(inp[l] * to.inverse));
    } else {
        for (int64_t l = 0; l < k; l++) out[l] = word_of(inp[l], how == ROUNDED);
    }
    return 0;
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

/* The first `columns` columns of the VL rows at inp, `line` apart, to out, NR apart: by log2(VL) perfect shuffles. */
static inline __attribute__((always_inline)) void turn_block(uint32_t *out, const uint32_t *inp, int64_t line,
                                                             int64_t columns, uint32_t flip) {
    vw row[VL], next[VL];
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) memcpy(&row[i], inp + i * line, sizeof row[i]);
#pragma GCC unroll 4
    for (int round = 1; round < VL; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = INTERLEAVE_LOW(row[i], row[i + VL / 2]);
            next[2 * i + 1] = INTERLEAVE_HIGH(row[i], row[i + VL / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) row[i] = next[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) {
        vw turned = row[i] ^ flip;
        if (i < columns) memcpy(out + i * NR, &turned, sizeof turned);
    }
}

/* A strip from lines of consecutive values, `line` apart: through a tile that stays in cache. */
static void pack_turned(uint32_t *restrict out, const float *restrict inp, int64_t line, int64_t valid, int64_t k,
                        packing how) {
    enum { TILE = 64 };
    uint32_t tile[NR][TILE] = {{0}}, flip = how == QUADS ? 0x80808080u : 0; /* adds 128 to each of four int8 */
    grid to[NR] = {{0}};
    for (int64_t i = 0; i < valid; i++) to[i] = grid_of(inp + i * line, k, how);
    for (int64_t first = 0; first < k; first += TILE * per_word(how)) {
        int64_t part = at_most(TILE * per_word(how), k - first), depth = words(part, how);
        const float *next = first + part < k ? inp + first + part : inp + NR * line; /* of this strip, or the next */
        for (int64_t i = 0; i < valid; i++) {
            for (int64_t l = 0; l < part; l += 16) __builtin_prefetch(next + i * line + l);
            pack_line(tile[i], inp + i * line + first, part, how, to[i]);
        }
        for (int64_t l = 0; l < depth; l += VL, out += NR * VL)
            for (int i = 0; i < NR; i += VL) turn_block(out + i, &tile[i][l], TILE, depth - l, flip);
        out -= NR * (round_up(depth, VL) - depth);
    }
    for (int64_t i = 0; i < NR && how == QUADS; i++) out[i] = bits_of(to[i].step);
}

/* Columns column .. end of b, values first .. first + k of the sum, in strips `strip` words apart. */
static void pack_b(uint32_t *out, const rp_gemm *g, int64_t column, int64_t end, int64_t strip, int64_t first,
                   int64_t k, packing how) {
    const float *inp = g->b + first * g->bl + column * g->bj;
    if (g->bl != 1) {
        pack_columns(out, inp, g->bl, end - column, strip, k, how, NR);
        return;
    }
    for (; column < end; column += NR, out += strip, inp += NR * g->bj)
        pack_turned(out, inp, g->bj, at_most(NR, end - column), k, how);
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
        if (i >= rows) {
            memset(line, 0, LINE * sizeof *line);
            continue;
        }
        grid to = grid_of(inp + i * g->ai, k, how);
        int32_t sum = pack_line(line, inp + i * g->ai, k, how, to);
        line[KC + STEP] = bits_of(to.step);
        line[KC + OFFSET] = (uint32_t)(128 * sum);
    }
}

/* -- kernels --------------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void multiply(float *c, int64_t ldc, const float *a, const float *b,
                                                           int64_t k, bool add, const int64_t ai, const int64_t al) {
    vf sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = (vf){0};
    prefetch_sums(c, ldc);
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

/* -- which of them --------------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of the fastest of some runs of a kernel over KC values of the sum. */
static double seconds_of(kernel *run, packing how) {
    static const uint32_t zeros[NR * (KC + 1)];
    kernel *volatile unknown = run; /* or the compiler sees that nobody reads c */
    float c[MR * NR];
    double best = 1;
    for (int trial = 0; trial < 20; trial++) {
        double begin = now();
        for (int i = 0; i < 4; i++) unknown(c, NR, zeros, zeros, words(KC, how), false);
        double seconds = now() - begin;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static bool tried[RP_INT8 + 1];
static pthread_once_t tried_once = PTHREAD_ONCE_INIT;

static bool pays(rp_dtype products, kernel *run, packing how, double float32_seconds) {
    return rp_cpu_has_instructions(products) && (rp_cpu_is_forced() || seconds_of(run, how) <= float32_seconds);
}

static void try_kernels(void) {
    double seconds = seconds_of(multiply_lines, WHOLE);
    tried[RP_FLOAT32] = true;
    tried[RP_BFLOAT16] = VL == 16 && pays(RP_BFLOAT16, multiply_pair_lines, PAIRS, seconds);
    tried[RP_INT8] = VL == 16 && pays(RP_INT8, multiply_quads, QUADS, seconds);
}

bool RP_CPU(gemm_has)(rp_dtype products) {
    pthread_once(&tried_once, try_kernels);
    return tried[products];
}

static packing packing_of(const rp_dev *dev) {
    if (dev->products == RP_INT8) return RP_CPU(gemm_has)(RP_INT8) ? QUADS : GRID;
    if (dev->products == RP_BFLOAT16) return RP_CPU(gemm_has)(RP_BFLOAT16) ? PAIRS : ROUNDED;
    return WHOLE;
}

static kernel *kernel_of(const rp_gemm *g, packing how) {
    if (how == QUADS) return multiply_quads;
    if (how == PAIRS) return g->al == 1 ? multiply_pair_lines : multiply_pair_columns;
    return g->al == 1 ? multiply_lines : multiply_columns;
}

/* -- the product ----------------------------------------------------------------------------------------- */

/* A panel of b: columns column .. column + width, values first .. first + k of the sum. */
typedef struct panel {
    int64_t column, width, first, k, depth, strip; /* depth: words of k; strip: words of NR columns */
    packing how;
    kernel *run;
    bool ready;              /* whether the panel is there already */
    uint32_t *packed, *rows; /* the panel; MB * LINE words of each thread */
} panel;

/* The kernel at rows row …, columns column …; what lies outside c goes through a block of its own. */
static void block(const rp_gemm *g, const panel *p, const uint32_t *a, int64_t row, int64_t column) {
    const uint32_t *b = p->packed + (column - p->column) / NR * p->strip;
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

/* A thread's strips of the panel, TOGETHER at a time: columns side by side share lines and pages. */
static void own_strips(const rp_gemm *g, const panel *p, int64_t strips, int64_t thread, int64_t threads) {
    int64_t end = strips * (thread + 1) / threads;
    for (int64_t j = strips * thread / threads; j < end; j += TOGETHER) {
        int64_t last = at_most(at_most(j + TOGETHER, end) * NR, p->width);
        pack_b(p->packed + j * p->strip, g, p->column + j * NR, p->column + last, p->strip, p->first, p->k, p->how);
    }
}

static void multiply_panel(rp_dev *dev, const rp_gemm *g, const panel *p) {
    int64_t strips = (p->width + NR - 1) / NR, rows = rows_at_a_time(g->m, dev->num_threads);
#pragma omp parallel num_threads(team(dev, g->m * p->width))
    {
        uint32_t mode = rp_threads_flush_denormals();
        uint32_t *own = p->rows + omp_get_thread_num() * MB * LINE;
        if (!p->ready) own_strips(g, p, strips, omp_get_thread_num(), omp_get_num_threads());
#pragma omp barrier
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

static rp_status check_scratch(const rp_dev *dev, int64_t room) {
    int64_t needed = (room + dev->num_threads * MB * LINE) * (int64_t)sizeof(uint32_t);
    _Static_assert(MB * LINE <= RP_CPU_ROWS_WORDS, "rp_host_scratch says less");
    if ((int64_t)dev->scratch_bytes >= needed) return RP_OK;
    return rp_fail(RP_STATUS_STATE, "a matrix product has %zu bytes of scratch, %lld needed", dev->scratch_bytes,
                   (long long)needed);
}

/* Words of all panels of b, where each is cut `deep` values deep. */
static int64_t words_of(const rp_gemm *g, int64_t deep, packing how) {
    int64_t depths = g->k / deep * strip_words(words(deep, how), how);
    if (g->k % deep > 0) depths += strip_words(words(g->k % deep, how), how);
    return depths * ((g->n + NR - 1) / NR);
}

rp_status RP_CPU(gemm)(rp_dev *dev, const rp_gemm *g) {
    if (g->m == 0 || g->n == 0) return RP_OK;
    int64_t room = (KC + 1) * round_up(at_most(NC, g->n), NR);
    RP_TRY(check_scratch(dev, room));
    if (g->k == 0) return without_sum(g);
    panel p = {.how = packing_of(dev), .rows = (uint32_t *)dev->scratch + room};
    int64_t most = KC * per_word(p.how), parts = (g->k + most - 1) / most;
    int64_t deep = round_up((g->k + parts - 1) / parts, per_word(p.how));
    rp_kept_key key = {.operand = g->b, .n = g->n, .k = g->k, .step = g->bl, .how = (int32_t)p.how};
    uint32_t *kept;
    RP_TRY(rp_kept_find(&kept, &p.ready, dev, &key, words_of(g, deep, p.how)));
    p.packed = kept != NULL ? kept : dev->scratch;
    p.run = kernel_of(g, p.how);
    for (p.column = 0; p.column < g->n; p.column += NC) {
        p.width = at_most(NC, g->n - p.column);
        for (p.first = 0; p.first < g->k; p.first += deep) {
            p.k = at_most(deep, g->k - p.first);
            p.depth = words(p.k, p.how);
            p.strip = strip_words(p.depth, p.how);
            multiply_panel(dev, g, &p);
            if (kept != NULL) p.packed += (p.width + NR - 1) / NR * p.strip;
        }
    }
    if (kept != NULL) rp_kept_fill(dev, &key);
    return RP_OK;
}
