/* Linear maps. Their products are cuBLASLt's; the operands of those in bfloat16 are rounded into scratch first, and of
 * those in two bfloat16 also what rounding left, rounded: then there are three products, on tensor cores still several
 * times as fast as one of float32. */
#include <stdlib.h>

#include "cuda/bits.cuh"
#include "cuda/cublaslt.h"
#include "cuda/kernel.cuh"

rp_lt *rp_cuda_lt(const rp_dev *dev);

/* -- operands ---------------------------------------------------------------------------------------- */

static constexpr int64_t LANE = 8;   /* columns that a rounded row is padded to: 16 bytes */
static constexpr int64_t ROWS = 128; /* at a time, at least */
#ifndef RP_CUDA_ROUNDED_BYTES
#define RP_CUDA_ROUNDED_BYTES ((int64_t)1 << 30) /* of rounded rows that scratch is made for */
#endif

/* out(T,ld) = inp(T,n) rounded, 0 behind a row's n. A thread: eight neighbours. */
static __global__ void round_kernel(uint4 *out, const float *inp, int64_t T, int64_t n, int64_t groups) {
    uint32_t i = blockIdx.x * THREADS + threadIdx.x; /* a GPU's memory holds fewer than 2^32 groups */
    int64_t t = i / (uint32_t)groups, first = i % (uint32_t)groups * 8;
    if (t >= T) return;
    float x[8];
    load_eight(x, inp + t * n + first, n - first);
    out[i] = round_eight(x);
}

/* out and low(T,ld): inp rounded, and what that left of it, rounded. */
static __global__ void split_kernel(uint4 *out, uint4 *low, const float *inp, int64_t T, int64_t n, int64_t groups) {
    uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    int64_t t = i / (uint32_t)groups, first = i % (uint32_t)groups * 8;
    if (t >= T) return;
    float x[8], rounded[8];
    load_eight(x, inp + t * n + first, n - first);
    uint4 bits = round_eight(x);
    load_eight(rounded, (const uint16_t *)&bits, 8);
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] -= rounded[j];
    out[i] = bits;
    low[i] = round_eight(x);
}

/* The same as round_kernel's, and partials(y,n): the sums of columns over block y of rows, as sums.cu has them. A lane:
 * eight columns. Of `number` uint16_t inp is bits already, and out NULL. */
template <typename number>
static __global__ void round_and_sum_kernel(uint4 *out, float *partials, const number *inp, int64_t T, int64_t n,
                                            int64_t groups, int64_t rows) {
    __shared__ float line[WARPS][WARP * 8];
    int64_t group = (int64_t)blockIdx.x * WARP + lane_of(), first = blockIdx.y * rows;
    int64_t last = first + rows < T ? first + rows : T, block = (int64_t)blockIdx.x * (WARP * 8);
    float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (group < groups)
#pragma unroll 2
        for (int64_t t = first + threadIdx.x / WARP; t < last; t += WARPS) {
            float x[8];
            load_eight(x, inp + t * n + group * 8, n - group * 8);
            if (out != nullptr) out[t * groups + group] = round_eight(x);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += x[j];
        }
    add_warps<WARPS>(partials + blockIdx.y * n + block, sum, line, n - block);
}

static int64_t padded(int64_t n) { return rp_cuda_ceil(n, LANE) * LANE; }

/* A matrix (rows,n) as a product takes it. */
typedef struct operand {
    const void *data, *low; /* low: what rounding left of data, rounded; or NULL */
    int64_t ld;
} operand;

static uint16_t *take_rounded(rp_arena *arena, int64_t rows, int64_t n) {
    return (uint16_t *)rp_arena_take(arena, (size_t)rows, (size_t)padded(n) * sizeof(uint16_t));
}

/* `room` NULL: float32, as it is. `low` is room as well, or NULL. */
static rp_status make_operand(operand *out, uint16_t *room, uint16_t *low, const float *matrix, int64_t rows,
                              int64_t n) {
    *out = operand{matrix, nullptr, n};
    if (room == nullptr || rows * n == 0) return RP_OK;
    *out = operand{room, low, padded(n)};
    int64_t groups = padded(n) / LANE;
    if (low != nullptr) {
        RP_CUDA_LAUNCH(split_kernel, rp_cuda_blocks(rows * groups, THREADS), THREADS, 0, (uint4 *)room, (uint4 *)low,
                       matrix, rows, n, groups);
        return RP_OK;
    }
    RP_CUDA_LAUNCH(round_kernel, rp_cuda_blocks(rows * groups, THREADS), THREADS, 0, (uint4 *)room, matrix, rows, n,
                   groups);
    return RP_OK;
}

/* -- weights that stay as they are ------------------------------------------------------------------- */

/* All values that keep_weights told of, rounded, each where it stands there: that takes half of their own memory. */
struct rp_kept {
    const float *values;
    int64_t count, version;
    uint16_t *rounded; /* (count) */
};

static rp_status drop_kept(rp_dev *dev) {
    rp_kept *kept = dev->kept;
    dev->kept = nullptr;
    if (kept == nullptr) return RP_OK;
    rp_status status = rp_cuda_release(dev, kept->rounded);
    free(kept);
    return status;
}

static rp_status make_kept(rp_dev *dev, const float *values, int64_t count) {
    void *rounded;
    RP_TRY(rp_cuda_alloc(dev, &rounded, padded(count) * (int64_t)sizeof(uint16_t)));
    rp_kept *kept = (rp_kept *)malloc(sizeof *kept);
    if (kept == nullptr) {
        rp_cuda_release(dev, rounded);
        return rp_fail(RP_STATUS_MEMORY, "no memory for a description of rounded weights");
    }
    *kept = rp_kept{values, count, 0, (uint16_t *)rounded};
    dev->kept = kept;
    return RP_OK;
}

rp_status rp_cuda_keep_weights(rp_dev *dev, const float *values, int64_t count, int64_t version) {
    operand whole;
    rp_kept *kept = dev->kept;
    RP_TRY(rp_cuda_outside_list("weights are kept"));
    if (values == nullptr || count == 0 || dev->products != RP_BFLOAT16) return drop_kept(dev);
    bool same = kept != nullptr && kept->values == values && kept->count == count;
    if (same && kept->version == version) return RP_OK;
    if (!same) RP_TRY(drop_kept(dev));
    if (!same) RP_TRY(make_kept(dev, values, count));
    dev->kept->version = version;
    rp_status status = make_operand(&whole, dev->kept->rounded, nullptr, values, 1, count);
    if (status != RP_OK) drop_kept(dev);
    return status;
}

/* *out: weight(O,I) from among the kept values, if it is there and aligned to so many bytes. */
static bool find_kept(operand *out, const rp_dev *dev, const float *weight, int64_t O, int64_t I, int64_t alignment) {
    const rp_kept *kept = dev->kept;
    if (kept == nullptr || dev->products != RP_BFLOAT16 || I != padded(I)) return false;
    if (weight < kept->values || weight + O * I > kept->values + kept->count) return false;
    const uint16_t *rounded = kept->rounded + (weight - kept->values);
    *out = operand{rounded, nullptr, I};
    return (int64_t)((uintptr_t)rounded % (uintptr_t)alignment) == 0;
}

/* -- scratch ----------------------------------------------------------------------------------------- */

static rp_status check_products(const rp_dev *dev) {
    if (dev->products != RP_INT8) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "int8 products are for encoding on the CPU: the CUDA back end has float32, "
                                    "tf32 and bfloat16");
}

/* Below so many multiplications a product in two bfloat16 is one of float32: launches would take longer. */
#ifndef RP_CUDA_TWO_FROM
#define RP_CUDA_TWO_FROM ((int64_t)1 << 30)
#endif

/* Scratch of one call: partial sums of the bias' gradient, the bias and the weight in bits, and `rows` rows of each of
 * the two others that are numbers; in two bfloat16 also of what is left. */
typedef struct room {
    void *workspace;
    float *partials;
    uint16_t *bias, *weight, *inp, *dout; /* NULL where they are taken as they are */
    uint16_t *weight_low, *inp_low, *dout_low;
    int64_t rows;
    bool narrow; /* the operands are bfloat16 */
} room;

/* Room for rows of n; `low`, unless NULL, for as many. */
static void take_both(uint16_t **out, uint16_t **low, bool two, rp_arena *arena, int64_t rows, int64_t n) {
    *out = take_rounded(arena, rows, n);
    *low = two ? take_rounded(arena, rows, n) : nullptr;
}

/* dout, or what comes out forward, is `outer`. */
static rp_status take_room(room *r, const rp_dev *dev, rp_cuda_matrix inp, rp_cuda_matrix outer, int64_t T, int64_t I,
                           int64_t O, bool backward) {
    rp_arena arena = rp_cuda_scratch_arena(dev);
    bool two = dev->products == RP_TWO_BFLOAT16 && T * I * O >= RP_CUDA_TWO_FROM;
    bool narrow = dev->products == RP_BFLOAT16 || two, rounds_inp = narrow && !inp.bits;
    bool rounds_dout = narrow && backward && !outer.bits;
    *r = room{};
    r->rows = T;
    r->narrow = narrow;
    r->workspace = rp_arena_take(&arena, RP_LT_WORKSPACE, 1);
    if (backward) r->partials = rp_cuda_take_partials(&arena, 1, T, O);
    if (!backward && outer.bits) r->bias = take_rounded(&arena, 1, O);
    if (narrow) take_both(&r->weight, &r->weight_low, two, &arena, O, I);
    if (rounds_inp || rounds_dout) {
        int64_t row = (int64_t)sizeof(uint16_t) * ((rounds_inp ? padded(I) : 0) + (rounds_dout ? padded(O) : 0));
        if (two) row *= 2;
        int64_t left = (int64_t)arena.capacity - (int64_t)arena.used - 4 * RP_ALIGN, fit = left / row;
        if (fit < T) r->rows = fit > ROWS ? fit / ROWS * ROWS : T < ROWS ? T : ROWS;
    }
    if (rounds_inp) take_both(&r->inp, &r->inp_low, two, &arena, r->rows, I);
    if (rounds_dout) take_both(&r->dout, &r->dout_low, two, &arena, r->rows, O);
    return rp_cuda_fits(&arena, "a matrix product");
}

static rp_status make_weight(operand *out, const rp_dev *dev, const room *r, const float *weight, int64_t O,
                             int64_t I) {
    /* One that is rounded for the call is aligned so, and the choice among a product's algorithms depends on it: what
     * is kept is to change no result. */
    if (find_kept(out, dev, weight, O, I, RP_ALIGN)) return RP_OK;
    return make_operand(out, r->weight, r->weight_low, weight, O, I);
}

static constexpr int64_t BIAS_ALIGN = 16; /* for the library to add it */
static rp_status make_bias(operand *out, const rp_dev *dev, const room *r, const float *bias, int64_t O) {
    *out = operand{bias, nullptr, O};
    if (bias == nullptr || r->bias == nullptr || find_kept(out, dev, bias, 1, O, BIAS_ALIGN)) return RP_OK;
    return make_operand(out, r->bias, nullptr, bias, 1, O);
}

/* A matrix of n columns from row t on. */
static rp_cuda_matrix from_row(rp_cuda_matrix matrix, int64_t t, int64_t n) {
    size_t each = matrix.bits ? sizeof(uint16_t) : sizeof(float);
    if (matrix.data != nullptr) matrix.data = (char *)matrix.data + each * (size_t)(t * n);
    return matrix;
}

/* `rows` rows as an operand; `room` and `low` as in make_operand. */
static rp_status take_operand(operand *out, uint16_t *room, uint16_t *low, rp_cuda_matrix matrix, int64_t rows,
                              int64_t n) {
    if (!matrix.bits) return make_operand(out, room, low, (const float *)matrix.data, rows, n);
    *out = operand{matrix.data, nullptr, n};
    return RP_OK;
}

int64_t rp_cuda_linear_scratch(const rp_dev *dev, const rp_extent *most) {
    rp_arena arena = rp_arena();
    if (most->weight == 0) return 0;
    rp_arena_take(&arena, RP_LT_WORKSPACE, 1);
    rp_cuda_take_partials(&arena, 1, most->rows, most->widest);
    if (dev->products != RP_BFLOAT16 && dev->products != RP_TWO_BFLOAT16) return (int64_t)arena.used;
    take_rounded(&arena, 1, most->widest); /* a bias */
    /* a weight's rows are padded too; there are at most as many as it has numbers, and as columns are wide */
    int64_t rows = most->widest < most->weight ? most->widest : most->weight;
    for (int i = 0; i < 2; i++) take_rounded(&arena, 1, most->weight + LANE * rows); /* two: in two bfloat16 */
    int64_t row = 2 * (int64_t)sizeof(uint16_t) * padded(most->widest), fit = RP_CUDA_ROUNDED_BYTES / row;
    int64_t fewest = 2 * (most->rows < ROWS ? most->rows : ROWS);
    if (fit > most->rows) fit = most->rows;
    return (int64_t)arena.used + row * (fit > fewest ? fit : fewest) + 5 * RP_ALIGN;
}

template <typename number>
static rp_status round_and_sum(uint16_t *out, float *dbias, float *partials, const number *dout, int64_t T, int64_t O) {
    int64_t groups = padded(O) / LANE, blocks = rp_cuda_row_blocks(T);
    dim3 grid(rp_cuda_blocks(groups, WARP), (unsigned)blocks);
    RP_CUDA_LAUNCH(round_and_sum_kernel<number>, grid, THREADS, 0, (uint4 *)out, partials, dout, T, O, groups,
                   rp_cuda_ceil(T, blocks));
    return rp_cuda_finish_sums(dbias, partials, T, O);
}

/* The gradient dout(T,O) as an operand; dbias, unless NULL, += its column sums, from the same pass over it. */
static rp_status make_dout(operand *out, const room *r, float *dbias, rp_cuda_matrix dout, int64_t T, int64_t O) {
    bool apart = dbias == nullptr || r->dout_low != nullptr;
    RP_TRY(take_operand(out, apart ? r->dout : nullptr, r->dout_low, dout, T, O));
    if (dbias == nullptr) return RP_OK;
    if (apart) return rp_cuda_column_sums(r->partials, dbias, (const float *)dout.data, T, O);
    if (dout.bits) return round_and_sum(nullptr, dbias, r->partials, (const uint16_t *)dout.data, T, O);
    if (r->dout == nullptr) return rp_cuda_column_sums(r->partials, dbias, (const float *)dout.data, T, O);
    *out = operand{r->dout, nullptr, padded(O)};
    return round_and_sum(r->dout, dbias, r->partials, (const float *)dout.data, T, O);
}

rp_status rp_cuda_round_gradient(rp_dev *dev, rp_cuda_matrix *out, float *dbias, uint16_t *room, rp_cuda_matrix inp,
                                 int64_t T, int64_t n) {
    rp_arena arena = rp_cuda_scratch_arena(dev);
    float *partials = rp_cuda_take_partials(&arena, 1, T, n);
    *out = inp;
    if (T * n == 0) return RP_OK;
    RP_TRY(rp_cuda_fits(&arena, "a bias' gradient"));
    if (inp.bits) return round_and_sum(nullptr, dbias, partials, (const uint16_t *)inp.data, T, n);
    const float *numbers = (const float *)inp.data;
    if (room == nullptr || n != padded(n) || (uintptr_t)room % 16 != 0)
        return rp_cuda_column_sums(partials, dbias, numbers, T, n);
    *out = rp_cuda_bits(room);
    return round_and_sum(room, dbias, partials, numbers, T, n);
}

/* The product of a and b, whose sizes and place p has. */
static rp_status multiply(const rp_dev *dev, const room *r, rp_lt_product *p, operand a, operand b) {
    p->bfloat16 = r->narrow;
    p->tf32 = dev->products == RP_TF32;
    p->a = a.data, p->lda = a.ld;
    p->b = b.data, p->ldb = b.ld;
    RP_TRY(rp_cuda_issue_product(rp_cuda_lt(dev), p, r->workspace));
    if (a.low == nullptr) return RP_OK;
    p->bias = nullptr, p->beta = 1.0f;
    p->b = b.low;
    RP_TRY(rp_cuda_issue_product(rp_cuda_lt(dev), p, r->workspace));
    p->a = a.low, p->b = b.data;
    return rp_cuda_issue_product(rp_cuda_lt(dev), p, r->workspace);
}

/* -- forward ----------------------------------------------------------------------------------------- */

static __global__ void bias_kernel(float *out, const float *bias, int64_t T, int64_t O, float keep) {
    FOR_EACH(i, T * O) out[i] = (keep != 0 ? keep * out[i] : 0.0f) + (bias != nullptr ? bias[i % O] : 0.0f);
}

static __global__ void bias_bits_kernel(uint16_t *out, const float *bias, int64_t T, int64_t O, float keep) {
    FOR_EACH(i, T * O)
    out[i] = bfloat16_of((keep != 0 ? keep * number_of(out[i]) : 0.0f) + (bias != nullptr ? bias[i % O] : 0.0f));
}

/* out(T,O) = keep out + bias */
static rp_status add_bias(rp_cuda_matrix out, const float *bias, int64_t T, int64_t O, float keep) {
    if (out.bits)
        LAUNCH_EACH(bias_bits_kernel, T * O, (uint16_t *)out.data, bias, T, O, keep);
    else
        LAUNCH_EACH(bias_kernel, T * O, (float *)out.data, bias, T, O, keep);
    return RP_OK;
}

/* A row-major (T,I) is the library's column-major (I,T): out^T(O,T) = weight(O,I) inp^T(I,T). `epilogue`: the bias as
 * the library takes it. */
static rp_status forward_rows(const rp_dev *dev, const room *r, rp_cuda_matrix out, operand inp, operand weight,
                              const float *bias, const void *epilogue, int64_t T, int64_t I, int64_t O) {
    /* The library adds the bias where it takes wide words of it and of bits, and the product is one of matrices. */
    bool narrow_words = (uintptr_t)epilogue % BIAS_ALIGN != 0 || (out.bits && O % LANE != 0);
    if (narrow_words || T == 1 || I == 1 || O == 1) epilogue = nullptr;
    rp_lt_product p = rp_lt_product();
    p.m = O, p.n = T, p.k = I, p.ldc = O, p.c = out.data, p.bfloat16_c = out.bits;
    p.transpose_a = 1;
    p.bias = epilogue;
    RP_TRY(multiply(dev, r, &p, weight, inp));
    return bias == nullptr || epilogue != nullptr ? RP_OK : add_bias(out, bias, T, O, 1.0f);
}

rp_status rp_cuda_multiply_forward(rp_dev *dev, rp_cuda_matrix out, rp_cuda_matrix inp, const float *weight,
                                   const float *bias, int64_t T, int64_t I, int64_t O) {
    room r;
    operand w, x, b;
    RP_TRY(check_products(dev));
    if (T * O == 0) return RP_OK;
    if (I == 0) return add_bias(out, bias, T, O, 0.0f);
    RP_TRY(take_room(&r, dev, inp, out, T, I, O, false));
    RP_TRY(make_weight(&w, dev, &r, weight, O, I));
    RP_TRY(make_bias(&b, dev, &r, bias, O));
    for (int64_t t = 0; t < T; t += r.rows) {
        int64_t rows = T - t < r.rows ? T - t : r.rows;
        RP_TRY(take_operand(&x, r.inp, r.inp_low, from_row(inp, t, I), rows, I));
        RP_TRY(forward_rows(dev, &r, from_row(out, t, O), x, w, bias, b.data, rows, I, O));
    }
    return RP_OK;
}

rp_status rp_cuda_linear_forward(rp_dev *dev, float *out, const float *inp, const float *weight, const float *bias,
                                 int64_t T, int64_t I, int64_t O) {
    return rp_cuda_multiply_forward(dev, rp_cuda_numbers(out), rp_cuda_numbers(inp), weight, bias, T, I, O);
}

/* -- backward ---------------------------------------------------------------------------------------- */

/* dinp^T(I,T) = weight^T(I,O) dout^T(O,T) */
static rp_status backward_inp(const rp_dev *dev, const room *r, rp_cuda_matrix dinp, operand dout, operand weight,
                              int64_t T, int64_t I, int64_t O, bool accumulate) {
    rp_lt_product p = rp_lt_product();
    p.m = I, p.n = T, p.k = O, p.ldc = I, p.c = dinp.data, p.beta = accumulate ? 1.0f : 0.0f;
    p.bfloat16_c = dinp.bits;
    return multiply(dev, r, &p, weight, dout);
}

/* dweight^T(I,O) += inp^T(I,T) dout(T,O) */
static rp_status backward_weight(const rp_dev *dev, const room *r, float *dweight, operand dout, operand inp, int64_t T,
                                 int64_t I, int64_t O) {
    rp_lt_product p = rp_lt_product();
    p.m = I, p.n = O, p.k = T, p.ldc = I, p.c = dweight, p.beta = 1.0f;
    p.transpose_b = 1;
    return multiply(dev, r, &p, inp, dout);
}

static rp_status clear(rp_dev *dev, rp_cuda_matrix matrix, int64_t n) {
    return rp_cuda_zero(dev, matrix.data, n * (int64_t)(matrix.bits ? sizeof(uint16_t) : sizeof(float)));
}

rp_status rp_cuda_multiply_backward(rp_dev *dev, rp_cuda_matrix dinp, float *dweight, float *dbias, rp_cuda_matrix dout,
                                    rp_cuda_matrix inp, const float *weight, int64_t T, int64_t I, int64_t O,
                                    bool accumulate) {
    room r;
    operand w, x, dy;
    RP_TRY(check_products(dev));
    if (T == 0) return RP_OK;
    if (O == 0) return dinp.data == nullptr || accumulate ? RP_OK : clear(dev, dinp, T * I);
    RP_TRY(take_room(&r, dev, inp, dout, T, I, O, true));
    bool products = I > 0 && (dinp.data != nullptr || dweight != nullptr);
    if (products && dinp.data != nullptr) RP_TRY(make_weight(&w, dev, &r, weight, O, I));
    for (int64_t t = 0; t < T; t += r.rows) {
        int64_t rows = T - t < r.rows ? T - t : r.rows;
        RP_TRY(make_dout(&dy, &r, dbias, from_row(dout, t, O), rows, O));
        if (!products) continue;
        if (dinp.data != nullptr) RP_TRY(backward_inp(dev, &r, from_row(dinp, t, I), dy, w, rows, I, O, accumulate));
        if (dweight == nullptr) continue;
        RP_TRY(take_operand(&x, r.inp, r.inp_low, from_row(inp, t, I), rows, I));
        RP_TRY(backward_weight(dev, &r, dweight, dy, x, rows, I, O));
    }
    return RP_OK;
}

rp_status rp_cuda_linear_backward(rp_dev *dev, float *dinp, float *dweight, float *dbias, const float *dout,
                                  const float *inp, const float *weight, int64_t T, int64_t I, int64_t O,
                                  int64_t accumulate) {
    return rp_cuda_multiply_backward(dev, rp_cuda_numbers(dinp), dweight, dbias, rp_cuda_numbers(dout),
                                     rp_cuda_numbers(inp), weight, T, I, O, accumulate != 0);
}
