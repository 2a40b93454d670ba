/* The products are cut as in Goto and van de Geijn (2008): a panel of b, KC deep and NC wide, is packed once for all
 * threads into strips of NR columns; each thread packs up to MB rows of a at a time into strips and runs the
 * kernel, which holds the sums of a strip's rows and NR columns in registers, over all pairs of strips. KC and the cuts
 * depend on the shape alone. */
#include "cpu/gemm.h"

#include "cpu/gelu_row.h"
#include "cpu/kernel.h"
#include "kept.h"

#include <pthread.h>
#include <time.h>

/* -- which of them --------------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of the fastest of some runs of a kernel over KC values of the sum, for a row of it. */
static double seconds_of(kernel *run, packing how) {
    static const uint32_t zeros[2 * TILE * LINE];
    kernel *volatile unknown = run; /* or the compiler sees that nobody reads c */
    float c[2 * TILE * NR];
    double best = 1;
    _Static_assert(NR <= 2 * TILE && MR <= 2 * TILE, "zeros hold a strip of either operand");
    if (for_tiles(how)) tiles_open();
    for (int trial = 0; trial < 20; trial++) {
        double begin = now();
        for (int i = 0; i < 4; i++) unknown(c, NR, zeros, zeros, words(KC, how), false);
        double seconds = now() - begin;
        best = seconds < best ? seconds : best;
    }
    if (for_tiles(how)) tiles_close();
    return best / (double)strip_rows(how);
}

static kernel *kernel_of(bool lines, packing how) {
    if (how == QUADS) return for_tiles(how) ? multiply_quad_tiles : multiply_quads;
    if (for_tiles(how)) return multiply_pair_tiles;
    if (how == PAIRS) return lines ? multiply_pair_lines : multiply_pair_columns;
    return lines ? multiply_lines : multiply_columns;
}

static bool tried[RP_TWO_BFLOAT16 + 1]; /* of the last two there is none */
static pthread_once_t tried_once = PTHREAD_ONCE_INIT;

static bool pays(rp_dtype products, kernel *run, packing how, double float32_seconds) {
    return rp_cpu_has_instructions(products) && (rp_cpu_is_forced() || seconds_of(run, how) <= float32_seconds);
}

static void try_kernels(void) {
    double seconds = seconds_of(multiply_lines, WHOLE);
    tried[RP_FLOAT32] = true;
    tried[RP_BFLOAT16] = VL == 16 && pays(RP_BFLOAT16, kernel_of(true, PAIRS), PAIRS, seconds);
    tried[RP_INT8] = VL == 16 && pays(RP_INT8, kernel_of(true, QUADS), QUADS, seconds);
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

/* -- the product ----------------------------------------------------------------------------------------- */

/* A panel of b: columns column .. column + width, values first .. first + k of the sum. */
typedef struct panel {
    int64_t column, width, first, k, depth, strip; /* depth: words of k; strip: words of NR columns */
    packing how;
    kernel *run;
    bool ready;              /* whether the panel is there already */
    uint32_t *packed, *rows; /* the panel; MB * LINE words of each thread */
} panel;

/* The kernel where only rows x columns of its sums are in c: through a block of its own. */
static void edge_block(float *c, int64_t ldc, const panel *p, const uint32_t *a, const uint32_t *b, int64_t rows,
                       int64_t columns, bool add) {
    size_t bytes = (size_t)columns * sizeof(float);
    float edge[2 * TILE * NR] = {0};
    for (int64_t i = 0; i < rows && add; i++) memcpy(edge + i * NR, c + i * ldc, bytes);
    p->run(edge, NR, a, b, p->depth, add);
    for (int64_t i = 0; i < rows; i++) memcpy(c + i * ldc, edge + i * NR, bytes);
}

/* The kernel at rows row …, columns column … */
static void block(const rp_gemm *g, const panel *p, const uint32_t *a, int64_t row, int64_t column) {
    const uint32_t *b = p->packed + (column - p->column) / NR * p->strip;
    int64_t height = strip_rows(p->how), rows = at_most(height, g->m - row), columns = at_most(NR, g->n - column);
    bool add = g->accumulate || p->first > 0;
    float *c = g->c + row * g->ldc + column;
    if (rows == height && columns == NR)
        p->run(c, g->ldc, a, b, p->depth, add);
    else
        edge_block(c, g->ldc, p, a, b, rows, columns, add);
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
    int64_t height = strip_rows(p->how), line = line_words(p->depth, p->how);
    int64_t strip = height * (g->al == 1 || for_tiles(p->how) ? line : p->depth);
    pack_a(packed, g, row, rows, strip, p->first, p->k, p->how);
    for (int64_t j = p->column; j < p->column + p->width; j += NR)
        for (int64_t i = 0; i < rows; i += height) block(g, p, packed + i / height * strip, row + i, j);
    if (p->first + p->k == g->k) epilogue(g, p, row, rows);
}

/* How rows are dealt out changes no result: as many at a time as leave the threads with equal shares, within 2 %. */
static int64_t rows_at_a_time(int64_t m, int64_t height, int64_t threads) {
    int64_t best = height, least = INT64_MAX;
    for (int64_t rows = MB / height * height; rows > 0; rows -= height) {
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
    int64_t strips = (p->width + NR - 1) / NR, rows = rows_at_a_time(g->m, strip_rows(p->how), dev->num_threads);
#pragma omp parallel num_threads(team(dev, g->m * p->width))
    {
        uint32_t mode = rp_threads_flush_denormals();
        uint32_t *own = p->rows + omp_get_thread_num() * MB * LINE;
        if (for_tiles(p->how)) tiles_open();
        if (!p->ready) own_strips(g, p, strips, omp_get_thread_num(), omp_get_num_threads());
#pragma omp barrier
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < g->m; i += rows) rows_of_panel(g, p, i, at_most(rows, g->m - i), own);
        if (for_tiles(p->how)) tiles_close();
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
    int64_t deep = round_up((g->k + parts - 1) / parts, per_word(p.how) * step_of_words(p.how));
    rp_kept_key key = {.operand = g->b, .n = g->n, .k = g->k, .step = g->bl, .how = (int32_t)p.how};
    uint32_t *kept;
    RP_TRY(rp_kept_find(&kept, &p.ready, dev, &key, words_of(g, deep, p.how)));
    p.packed = kept != NULL ? kept : dev->scratch;
    p.run = kernel_of(g->al == 1, p.how);
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
