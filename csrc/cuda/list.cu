/* Work that comes again and again as one graph.
 *
 * Between list_begin and list_end launches, products and clearings are noted with all their arguments instead of being
 * issued. A list whose notes are, byte for byte, those of an earlier one can be carried out by that one's graph: for
 * the host one call in place of hundreds, and shorter gaps between kernels. Whether that is faster depends on how long
 * the kernels take, and is measured: a list that is new is issued note by note, so are the next times, then as many
 * times its graph is launched, and from there on it goes the faster way. RELPT_CUDA_GRAPHS=0 never makes graphs, 1
 * makes one when a list comes the second time. Either way the same kernels run with the same arguments. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cublaslt.h"
#include "cuda/device.cuh"

extern "C" {
#include "cuda/cuda.h"
}

/* -- notes ------------------------------------------------------------------------------------------- */

enum kind { LAUNCH, PRODUCT, ZERO };

/* No structure here has gaps: what is compared is what was written. */
struct note {
    int64_t kind, bytes; /* to the next note */
};

struct launch_note {
    note head;
    rp_cuda_launch launch; /* then the bytes of each argument, then the arguments */
};

struct product_note {
    note head;
    rp_lt *lt;
    void *workspace;
    rp_lt_product product;
};

struct zero_note {
    note head;
    void *out;
    int64_t bytes;
};

static constexpr size_t ALIGN = 16, MOST_ARGUMENTS = 32;
static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

/* -- lists ------------------------------------------------------------------------------------------- */

enum way { DIRECT, GRAPH, WAYS };

/* Each way is timed so often, after a first time that also loads kernels and chooses algorithms. */
enum { TRIALS = 3, LISTS = 128 };

struct list {
    char *notes; /* NULL: none */
    size_t bytes;
    int64_t last;        /* when it came last */
    int64_t times[WAYS]; /* carried out, */
    float least[WAYS];   /* and the milliseconds of the shortest time */
    cudaGraphExec_t graph;
    bool refused; /* a graph of it could not be made */
};

enum mode { AUTO, NEVER, ALWAYS };

struct rp_cuda_lists {
    mode graphs;
    char *notes; /* of the list that is being noted */
    size_t used, room;
    int64_t clock;
    list known[LISTS];
    cudaStream_t side; /* on which graphs are put together */
    cudaEvent_t begin, end;
    list *timed; /* what runs between these two; NULL: nothing */
    way timed_way;
};

static rp_cuda_list_counts counts; /* of the process */

static void count(int64_t *which) { __atomic_fetch_add(which, 1, __ATOMIC_RELAXED); }

rp_cuda_list_counts rp_cuda_count_lists(void) {
    rp_cuda_list_counts now;
    now.direct = __atomic_load_n(&counts.direct, __ATOMIC_RELAXED);
    now.graphs = __atomic_load_n(&counts.graphs, __ATOMIC_RELAXED);
    now.refused = __atomic_load_n(&counts.refused, __ATOMIC_RELAXED);
    return now;
}

/* The thread's list that is being noted. */
static thread_local rp_cuda_lists *noting;

rp_status rp_cuda_outside_list(const char *what) {
    if (noting == nullptr) return RP_OK;
    return rp_fail(RP_STATUS_STATE, "%s between list_begin and list_end", what);
}

static rp_status read_mode(mode *out) {
    const char *said = getenv("RELPT_CUDA_GRAPHS");
    *out = AUTO;
    if (said == nullptr || said[0] == '\0' || strcmp(said, "auto") == 0) return RP_OK;
    *out = said[0] == '0' ? NEVER : ALWAYS;
    if (strcmp(said, "0") == 0 || strcmp(said, "1") == 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "RELPT_CUDA_GRAPHS is \"%s\", expected auto, 0 or 1", said);
}

rp_status rp_cuda_lists_open(rp_cuda_lists **out) {
    mode graphs;
    RP_TRY(read_mode(&graphs));
    rp_cuda_lists *l = (rp_cuda_lists *)calloc(1, sizeof *l);
    if (l == nullptr) return rp_fail(RP_STATUS_MEMORY, "no memory for lists of operations");
    l->graphs = graphs;
    *out = l;
    RP_TRY(rp_cuda_check(cudaStreamCreateWithFlags(&l->side, cudaStreamNonBlocking), "opening a stream"));
    RP_TRY(rp_cuda_check(cudaEventCreateWithFlags(&l->begin, cudaEventDefault), "making an event"));
    return rp_cuda_check(cudaEventCreateWithFlags(&l->end, cudaEventDefault), "making an event");
}

static void drop_graph(list *x) {
    if (x->graph != nullptr) cudaGraphExecDestroy(x->graph);
    x->graph = nullptr;
}

static void forget(list *x) {
    drop_graph(x);
    free(x->notes);
    *x = list();
}

void rp_cuda_lists_close(rp_cuda_lists *l) {
    if (l == nullptr) return;
    for (list &x : l->known) forget(&x);
    if (l->begin != nullptr) cudaEventDestroy(l->begin);
    if (l->end != nullptr) cudaEventDestroy(l->end);
    if (l->side != nullptr) cudaStreamDestroy(l->side);
    free(l->notes);
    free(l);
}

/* -- carrying out ------------------------------------------------------------------------------------ */

static rp_status issue(const rp_cuda_launch *x, void **arguments, cudaStream_t stream) {
    return rp_cuda_check(x->invoke(x->kernel, x->blocks, x->threads, arguments, x->shared, stream), x->name);
}

/* More shared memory than a kernel has by itself is asked for in the kernel's name, and so for all threads: another one
 * must not ask for less of the same kernel in between. */
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static constexpr size_t SHARED_WITHOUT_ASKING = 48 << 10;

static rp_status issue_large(const rp_cuda_launch *x, void **arguments, cudaStream_t stream) {
    pthread_mutex_lock(&shared_lock);
    rp_status status =
        rp_cuda_check(cudaFuncSetAttribute(x->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)x->shared),
                      "asking for a block's shared memory");
    if (status == RP_OK) status = issue(x, arguments, stream);
    pthread_mutex_unlock(&shared_lock);
    return status;
}

static rp_status launch(const rp_cuda_launch *x, void **arguments, cudaStream_t stream) {
    RP_TRY(x->shared > SHARED_WITHOUT_ASKING ? issue_large(x, arguments, stream) : issue(x, arguments, stream));
    return rp_cuda_did(stream, x->name);
}

static rp_status clear(void *out, size_t bytes, cudaStream_t stream) {
    RP_TRY(rp_cuda_check(cudaMemsetAsync(out, 0, bytes, stream), "clearing memory"));
    return rp_cuda_did(stream, "clearing");
}

static rp_status multiply(rp_lt *lt, const rp_lt_product *product, void *workspace, cudaStream_t stream) {
    RP_TRY(rp_lt_multiply(lt, product, workspace, stream));
    return rp_cuda_did_product(stream, product);
}

static rp_status issue_noted(launch_note *x, cudaStream_t stream) {
    void *arguments[MOST_ARGUMENTS];
    int64_t *bytes = (int64_t *)(x + 1);
    char *at = (char *)x + aligned(sizeof *x + (size_t)x->launch.count * sizeof *bytes);
    for (int64_t i = 0; i < x->launch.count; i++) {
        arguments[i] = at;
        at += aligned((size_t)bytes[i]);
    }
    return launch(&x->launch, arguments, stream);
}

static rp_status carry_out(char *notes, size_t bytes, cudaStream_t stream) {
    for (char *at = notes; at < notes + bytes; at += ((note *)at)->bytes) {
        if (((note *)at)->kind == LAUNCH) {
            RP_TRY(issue_noted((launch_note *)at, stream));
        } else if (((note *)at)->kind == PRODUCT) {
            product_note *x = (product_note *)at;
            RP_TRY(multiply(x->lt, &x->product, x->workspace, stream));
        } else {
            zero_note *x = (zero_note *)at;
            RP_TRY(clear(x->out, (size_t)x->bytes, stream));
        }
    }
    return RP_OK;
}

/* -- issuing, or noting ------------------------------------------------------------------------------ */

/* A note of so many bytes, all 0 behind its head. */
static rp_status append(rp_cuda_lists *l, void **out, kind kind, size_t bytes) {
    size_t whole = aligned(bytes);
    if (l->used + whole > l->room) {
        size_t room = 2 * l->room + whole + (64 << 10);
        char *notes = (char *)realloc(l->notes, room);
        if (notes == nullptr) return rp_fail(RP_STATUS_MEMORY, "no memory for a list of operations of %zu bytes", room);
        l->notes = notes;
        l->room = room;
    }
    char *at = l->notes + l->used;
    memset(at, 0, whole);
    ((note *)at)->kind = kind;
    ((note *)at)->bytes = (int64_t)whole;
    l->used += whole;
    *out = at;
    return RP_OK;
}

rp_status rp_cuda_issue_launch(const rp_cuda_launch *wanted, void **arguments, const int64_t *bytes) {
    void *room = nullptr;
    if (noting == nullptr) return launch(wanted, arguments, rp_cuda_stream());
    size_t before = aligned(sizeof(launch_note) + (size_t)wanted->count * sizeof *bytes), whole = before;
    for (int64_t i = 0; i < wanted->count; i++) whole += aligned((size_t)bytes[i]);
    RP_TRY(append(noting, &room, LAUNCH, whole));
    launch_note *x = (launch_note *)room;
    x->launch = *wanted;
    memcpy((char *)room + sizeof *x, bytes, (size_t)wanted->count * sizeof *bytes);
    char *at = (char *)room + before;
    for (int64_t i = 0; i < wanted->count; i++) {
        memcpy(at, arguments[i], (size_t)bytes[i]);
        at += aligned((size_t)bytes[i]);
    }
    return RP_OK;
}

rp_status rp_cuda_issue_product(rp_lt *lt, const rp_lt_product *product, void *workspace) {
    void *room = nullptr;
    if (noting == nullptr) return multiply(lt, product, workspace, rp_cuda_stream());
    RP_TRY(append(noting, &room, PRODUCT, sizeof(product_note)));
    product_note *x = (product_note *)room;
    x->lt = lt;
    x->workspace = workspace;
    memcpy(&x->product, product, sizeof *product);
    return RP_OK;
}

rp_status rp_cuda_issue_zero(void *out, size_t bytes) {
    void *room = nullptr;
    if (noting == nullptr) return clear(out, bytes, rp_cuda_stream());
    RP_TRY(append(noting, &room, ZERO, sizeof(zero_note)));
    zero_note *x = (zero_note *)room;
    x->out = out;
    x->bytes = (int64_t)bytes;
    return RP_OK;
}

/* -- known lists ------------------------------------------------------------------------------------- */

static list *find(rp_cuda_lists *l) {
    for (list &x : l->known)
        if (x.notes != nullptr && x.bytes == l->used && memcmp(x.notes, l->notes, l->used) == 0) return &x;
    return nullptr;
}

/* Takes the place of the one that has not come for longest. */
static rp_status remember(rp_cuda_lists *l, list **out) {
    list *oldest = l->known;
    for (list &x : l->known)
        if (x.last < oldest->last) oldest = &x;
    forget(oldest);
    oldest->notes = (char *)malloc(l->used);
    if (oldest->notes == nullptr) return rp_fail(RP_STATUS_MEMORY, "no memory for a list of %zu bytes", l->used);
    memcpy(oldest->notes, l->notes, l->used);
    oldest->bytes = l->used;
    *out = oldest;
    return RP_OK;
}

/* Reads how long what was timed last took. */
static rp_status read_time(rp_cuda_lists *l) {
    float milliseconds;
    list *x = l->timed;
    if (x == nullptr) return RP_OK;
    l->timed = nullptr;
    RP_TRY(rp_cuda_check(cudaEventSynchronize(l->end), "computing"));
    RP_TRY(rp_cuda_check(cudaEventElapsedTime(&milliseconds, l->begin, l->end), "timing a list of operations"));
    float *least = &x->least[l->timed_way];
    if (*least == 0 || milliseconds < *least) *least = milliseconds;
    return RP_OK;
}

static way way_of(const rp_cuda_lists *l, const list *x) {
    if (x->refused) return DIRECT;
    if (l->graphs == ALWAYS) return x->times[DIRECT] > 0 ? GRAPH : DIRECT;
    if (x->times[DIRECT] <= TRIALS) return DIRECT;
    if (x->times[GRAPH] <= TRIALS) return GRAPH;
    return x->least[GRAPH] < x->least[DIRECT] ? GRAPH : DIRECT;
}

static bool on_trial(const rp_cuda_lists *l, const list *x, way w) {
    return l->graphs == AUTO && x->times[w] > 0 && x->times[w] <= TRIALS;
}

static rp_status make_graph(rp_cuda_lists *l, list *x) {
    cudaGraph_t graph = nullptr;
    RP_TRY(rp_cuda_check(cudaStreamBeginCapture(l->side, cudaStreamCaptureModeThreadLocal), "beginning a graph"));
    rp_status status = carry_out(x->notes, x->bytes, l->side);
    cudaError_t ended = cudaStreamEndCapture(l->side, &graph);
    if (status == RP_OK) status = rp_cuda_check(ended, "ending a graph");
    if (status == RP_OK) status = rp_cuda_check(cudaGraphInstantiate(&x->graph, graph, 0), "making a graph");
    if (graph != nullptr) cudaGraphDestroy(graph);
    return status;
}

static rp_status go(rp_cuda_lists *l, list *x, way w) {
    cudaStream_t stream = rp_cuda_stream();
    if (w == GRAPH && x->graph == nullptr) {
        rp_status status = make_graph(l, x);
        if (status != RP_OK && l->graphs == ALWAYS) return status;
        x->refused = status != RP_OK; /* as where memory is short: counted, and it goes the other way */
        if (x->refused) count(&counts.refused);
        if (x->refused) w = DIRECT;
    }
    bool timed = on_trial(l, x, w);
    if (timed) RP_TRY(rp_cuda_check(cudaEventRecord(l->begin, stream), "recording an event"));
    if (w == GRAPH)
        RP_TRY(rp_cuda_check(cudaGraphLaunch(x->graph, stream), "launching a graph"));
    else
        RP_TRY(carry_out(x->notes, x->bytes, stream));
    if (timed) RP_TRY(rp_cuda_check(cudaEventRecord(l->end, stream), "recording an event"));
    if (timed) l->timed = x, l->timed_way = w;
    if (w == DIRECT && x->times[GRAPH] > 0) drop_graph(x); /* it was the slower way */
    x->times[w]++;
    count(w == GRAPH ? &counts.graphs : &counts.direct);
    return RP_OK;
}

rp_status rp_cuda_list_begin(rp_dev *dev) {
    rp_cuda_lists *l = rp_cuda_lists_of(dev);
    RP_TRY(rp_cuda_outside_list("a list"));
    l->used = 0;
    if (l->graphs != NEVER) noting = l;
    return RP_OK;
}

rp_status rp_cuda_list_end(rp_dev *dev, int64_t status) {
    rp_cuda_lists *l = rp_cuda_lists_of(dev);
    noting = nullptr;
    if (status != RP_OK) return (rp_status)status;
    if (l->graphs == NEVER) count(&counts.direct);
    if (l->used == 0) return RP_OK;
    if (rp_cuda_profiled()) { /* each thing by itself; and what that takes is no part of a trial */
        count(&counts.direct);
        return carry_out(l->notes, l->used, rp_cuda_stream());
    }
    RP_TRY(read_time(l));
    list *x = find(l);
    if (x == nullptr) RP_TRY(remember(l, &x));
    x->last = ++l->clock;
    return go(l, x, way_of(l, x));
}
