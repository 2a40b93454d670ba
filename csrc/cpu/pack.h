/* How the operands of a matrix product are packed, for gemm.c and kernel.h alone.
 *
 * With bfloat16 two, with int8 four consecutive values of the sum stand in one 32-bit word. A machine without
 * instructions for it rounds the operands and multiplies float32. For tiles, a strip of a has two tiles' rows, which
 * always lie as lines, and words come in whole tiles, zeros behind the last value. */
#ifndef RP_CPU_PACK_H
#define RP_CPU_PACK_H

#include "cpu/bfloat16.h"
#include "cpu/gemm.h"

#include <math.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum {
    MR = VL == 16 ? 14
    : VL == 8     ? 6
                  : 4,
    NR = 2 * VL,
    TILE = 16, /* rows and words of a tile, and its columns */
    MB = 112,  /* rows of a that are packed at a time, at most */
    KC = RP_CPU_PANEL_DEPTH,
    NC = RP_CPU_PANEL_WIDTH
};
enum { TOGETHER = 4 };       /* strips of b that are packed at a time */
enum { AHEAD = 16 };         /* values of the sum whose lines are asked for before their turn: they lie pages apart */
enum { BEHIND = 16 };        /* words behind the packed rows of a, which keep them off the powers of two that share */
enum { LINE = KC + BEHIND }; /* cache sets; from one row to the next, but for tiles */

/* How values are packed: as they are, rounded to bfloat16 in a float32 each, two bfloat16 in a word; rounded to the
 * line's grid in a float32 each, four int8 in a word. */
typedef enum packing { WHOLE, ROUNDED, PAIRS, GRID, QUADS } packing;

#if defined(__AMX_TILE__)
static inline bool for_tiles(packing how) { return how == PAIRS || how == QUADS; }
#else
static inline bool for_tiles(packing how) { return (void)how, false; }
#endif

static inline int64_t per_word(packing how) { return how == QUADS ? 4 : how == PAIRS ? 2 : 1; }
static inline int64_t step_of_words(packing how) { return for_tiles(how) ? TILE : 1; }
static inline int64_t words(int64_t k, packing how) {
    return round_up((k + per_word(how) - 1) / per_word(how), step_of_words(how));
}
static inline int64_t strip_rows(packing how) { return for_tiles(how) ? 2 * TILE : MR; }
static inline int64_t line_words(int64_t depth, packing how) { return for_tiles(how) ? depth + BEHIND : LINE; }

/* With QUADS, the sum is of (weight + 128) times activation, unsigned by signed. What the kernel needs besides stands
 * behind the words: of a line of a, STEP and OFFSET, 128 times its sum, BEHIND from its end; of a strip of b, its NR
 * steps. */
enum { STEP, OFFSET };
static int64_t strip_words(int64_t depth, packing how) { return NR * (depth + (how == QUADS)); }

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

/* The first `columns` columns of the VL rows at inp, `line` apart, to out, `apart`: by log2(VL) perfect shuffles. */
static inline __attribute__((always_inline)) void turn_block(uint32_t *out, int64_t apart, const uint32_t *inp,
                                                             int64_t line, int64_t columns, uint32_t flip) {
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
        if (i < columns) memcpy(out + i * apart, &turned, sizeof turned);
    }
}

static inline uint32_t word_of(float x, bool rounded) {
    return rounded ? round_upper(bits_of(x)) & 0xffff0000u : bits_of(x);
}

/* -- int8 ------------------------------------------------------------------------------------------------ */

/* 255 values around 0 at equal steps, to the largest of a line, of which a panel may have a part. A line that is not
 * finite has no number for a step. */
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

/* Does what pack_line says, and writes zeros to the end of the sixteenth word. */
BFLOAT16 static void pair_line(uint32_t *out, const float *inp, int64_t k) {
    for (int64_t l = 0; l < k; l += 32) {
        __m512 low = _mm512_maskz_loadu_ps(lanes(k - l), inp + l);
        __m512 high = _mm512_maskz_loadu_ps(lanes(k - l - 16), inp + l + 16);
        _mm512_storeu_si512(out + l / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* Does what pack_columns says. */
BFLOAT16 static inline void pair_columns(uint32_t *out, const float *inp, int64_t step, int64_t lines, int64_t strip,
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
    for (int64_t l = words(k, PAIRS) - (k + 1) / 2; l > 0; l--, out += width)
        for (int64_t s = 0; s * width < lines; s++) memset(out + s * strip, 0, (size_t)width * sizeof *out);
}

/* Lines of pairs, `line` words apart, whose values stand one below the other: word l of line i from values 2l and 2l +
 * 1 at inp[… * step + i]. */
static void pair_turned(uint32_t *out, int64_t line, const float *inp, int64_t step, int64_t lines, int64_t k) {
    uint32_t block[MB / TILE][TILE][TILE];
    for (int64_t first = 0; first < k; first += 2 * TILE, out += TILE) {
        pair_columns(**block, inp + first * step, step, lines, TILE * TILE, at_most(2 * TILE, k - first), TILE);
        for (int64_t i = 0; i < lines; i += TILE) turn_block(out + i * line, line, *block[i / TILE], TILE, TILE, 0);
    }
}

/* Does what pack_line says, and writes zeros to the end of the sixteenth word; gives the sum of the line's numbers. */
static int32_t quad_line(uint32_t *out, const float *inp, int64_t k, grid to) {
    __m512i sum = _mm512_setzero_si512();
    __m512 inverse = _mm512_set1_ps(to.inverse);
    for (int64_t l = 0; l < round_up(k, 64); l += 16) {
        __m512i numbers = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(k - l), inp + l), inverse));
        sum = _mm512_add_epi32(sum, numbers);
        _mm_storeu_si128((__m128i *)(out + l / 4), _mm512_cvtsepi32_epi8(numbers));
    }
    return _mm512_reduce_add_epi32(sum);
}
#else /* packing_of says neither PAIRS nor QUADS */
#define pair_line(...) ((void)0)
#define pair_columns(...) ((void)0)
#define pair_turned(...) ((void)0)
#define quad_line(...) 0
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

/* A strip of `valid` columns, from `column` on, whose values stand one after another: through a tile that stays in
 * cache. */
static void pack_turned(uint32_t *restrict out, const rp_gemm *g, int64_t column, int64_t valid, int64_t from,
                        int64_t k, packing how) {
    enum { DEPTH = 64 };
    uint32_t tile[NR][DEPTH] = {{0}}, flip = how == QUADS ? 0x80808080u : 0; /* adds 128 to each of four int8 */
    grid to[NR] = {{0}};
    int64_t line = g->bj;
    const float *whole = g->b + column * line, *inp = whole + from;
    for (int64_t i = 0; i < valid; i++) to[i] = grid_of(whole + i * line, g->k, how);
    for (int64_t first = 0; first < k; first += DEPTH * per_word(how)) {
        int64_t part = at_most(DEPTH * per_word(how), k - first), depth = words(part, how);
        const float *next = first + part < k ? inp + first + part : inp + NR * line; /* of this strip, or the next */
        for (int64_t i = 0; i < valid; i++) {
            for (int64_t l = 0; l < part; l += 16) __builtin_prefetch(next + i * line + l);
            pack_line(tile[i], inp + i * line + first, part, how, to[i]);
        }
        for (int64_t l = 0; l < depth; l += VL, out += NR * VL)
            for (int i = 0; i < NR; i += VL) turn_block(out + i, NR, &tile[i][l], DEPTH, depth - l, flip);
        out -= NR * (round_up(depth, VL) - depth);
    }
    for (int64_t i = 0; i < NR && how == QUADS; i++) out[i] = bits_of(to[i].step);
}

/* Columns column .. end of b, values first .. first + k of the sum, in strips `strip` words apart. */
static void pack_b(uint32_t *out, const rp_gemm *g, int64_t column, int64_t end, int64_t strip, int64_t first,
                   int64_t k, packing how) {
    if (g->bl != 1) {
        pack_columns(out, g->b + first * g->bl + column * g->bj, g->bl, end - column, strip, k, how, NR);
        return;
    }
    for (; column < end; column += NR, out += strip)
        pack_turned(out, g, column, at_most(NR, end - column), first, k, how);
}

/* Rows row … row + rows of a, in strips `strip` words apart; as lines where the sum runs along a's rows and for tiles,
 * else as columns. */
static void pack_a(uint32_t *out, const rp_gemm *g, int64_t row, int64_t rows, int64_t strip, int64_t first, int64_t k,
                   packing how) {
    const float *inp = g->a + row * g->ai + first * g->al;
    int64_t height = strip_rows(how), length = line_words(words(k, how), how), filled = rows;
    if (g->al != 1 && !for_tiles(how)) {
        pack_columns(out, inp, g->al, rows, strip, k, how, MR);
        return;
    }
    if (g->al != 1) {
        pair_turned(out, length, inp, g->al, rows, k);
        filled = round_up(rows, TILE);
    }
    for (int64_t i = 0; i < rows && g->al == 1; i++) {
        uint32_t *line = out + i / height * strip + i % height * length;
        grid to = grid_of(g->a + (row + i) * g->ai, g->k, how);
        int32_t sum = pack_line(line, inp + i * g->ai, k, how, to);
        line[length - BEHIND + STEP] = bits_of(to.step);
        line[length - BEHIND + OFFSET] = (uint32_t)(128 * sum);
    }
    for (int64_t i = filled; i < round_up(rows, height); i++)
        memset(out + i / height * strip + i % height * length, 0, (size_t)length * sizeof *out);
}

#endif
