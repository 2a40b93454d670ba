/* See cuda_runtime.h. */
#include "cuda_runtime.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include <vector>

/* -- fibers ---------------------------------------------------------------------------------------------------------
 */

enum { WARP = 32, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / WARP, STACK = 128 << 10, SHARED = 232 << 10 };

struct fiber {
    emulated_place place;
    jmp_buf saved;
    bool begun, done;
};

struct warp {
    unsigned lanes, left, arrived, turn;
    uint64_t given[2][WARP];
    unsigned exchanges[WARP];
};

emulated_place *emulated_here;
static fiber fibers[MOST_THREADS];
static warp warps[MOST_WARPS];
static unsigned running, alive, arrived, turn;
static jmp_buf scheduler;
static ucontext_t origin;
static char *stacks;
alignas(256) static char shared_memory[SHARED];
static void (*kernel)(void *);
static void *kernel_context;
static bool moved; /* whether a lane has since the scheduler last looked */

void emulated_give_up(const char *why) {
    fprintf(stderr, "emulated CUDA kernel: %s (block %u, thread %u)\n", why, emulated_here->block.x,
            emulated_here->thread.x);
    abort();
}

static void yield() {
    if (_setjmp(fibers[running].saved) == 0) _longjmp(scheduler, 1);
}

void emulated_block_barrier() {
    unsigned mine = turn;
    moved = true;
    if (++arrived == alive) {
        arrived = 0;
        turn++;
        return;
    }
    while (turn == mine) yield();
}

static warp *own_warp() { return &warps[running / WARP]; }

void emulated_warp_barrier() {
    warp *w = own_warp();
    unsigned mine = w->turn;
    moved = true;
    if (w->left > 0) emulated_give_up("a lane has left its warp before a shuffle or warp barrier");
    if (++w->arrived == w->lanes) {
        w->arrived = 0;
        w->turn++;
        return;
    }
    while (w->turn == mine) {
        yield();
        if (w->turn == mine && w->left > 0) emulated_give_up("a lane leaves its warp at a shuffle or warp barrier");
    }
}

const uint64_t *emulated_exchange(uint64_t mine) {
    warp *w = own_warp();
    unsigned own = running % WARP, side = w->exchanges[own]++ % 2;
    if (w->lanes != WARP) emulated_give_up("a shuffle in a warp that is not full");
    w->given[side][own] = mine;
    emulated_warp_barrier();
    return w->given[side];
}

void *emulated_shared() { return shared_memory; }

static void begin() {
    kernel(kernel_context);
    fibers[running].done = true;
    moved = true;
    own_warp()->left++;
    alive--;
    if (alive > 0 && arrived == alive) {
        arrived = 0;
        turn++;
    }
    _longjmp(scheduler, 1);
}

static void resume(unsigned i) {
    running = i;
    emulated_here = &fibers[i].place;
    if (_setjmp(scheduler) != 0) return;
    if (fibers[i].begun) _longjmp(fibers[i].saved, 1);
    fibers[i].begun = true;
    ucontext_t fresh;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stacks + (size_t)i * STACK;
    fresh.uc_stack.ss_size = STACK;
    fresh.uc_link = nullptr;
    makecontext(&fresh, begin, 0);
    swapcontext(&origin, &fresh);
}

static void run_block(uint3 block, dim3 blocks, dim3 threads, bool reverse) {
    unsigned count = threads.x;
    memset(shared_memory, 0xFF, sizeof shared_memory);
    memset(warps, 0, sizeof warps);
    alive = count, arrived = 0, turn = 0;
    for (unsigned i = 0; i < count; i++) {
        fibers[i].begun = fibers[i].done = false;
        fibers[i].place = emulated_place{{i, 0, 0}, block, threads, blocks};
        warps[i / WARP].lanes++;
    }
    while (alive > 0) {
        bool any = false;
        for (unsigned i = 0; i < count; i += WARP) {
            unsigned first = reverse ? (count - 1) / WARP * WARP - i : i;
            unsigned lanes = count - first < WARP ? count - first : WARP;
            do { /* a warp goes on as far as it gets: the others' work is there for it only behind a barrier */
                moved = false;
                for (unsigned j = 0; j < lanes; j++) {
                    unsigned at = first + (reverse ? lanes - 1 - j : j);
                    if (!fibers[at].done) resume(at);
                }
                any = any || moved;
            } while (moved);
        }
        if (!any) emulated_give_up("some threads wait at a barrier that the others never reach");
    }
}

void emulated_launch(dim3 blocks, dim3 threads, size_t shared, void (*run)(void *), void *context) {
    const char *order = getenv("RELPT_EMULATE");
    bool reverse = order != nullptr && strcmp(order, "reverse") == 0;
    if (stacks == nullptr)
        stacks = (char *)mmap(nullptr, (size_t)MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    kernel = run;
    kernel_context = context;
    emulated_place outside = {};
    emulated_here = &outside;
    if (threads.x > MOST_THREADS || threads.y != 1 || threads.z != 1 || shared > SHARED || blocks.y > 65535 ||
        blocks.x == 0 || blocks.y == 0 || blocks.z != 1)
        emulated_give_up("a launch that no GPU takes");
    emulated_enter();
    for (unsigned y = 0; y < blocks.y; y++)
        for (unsigned x = 0; x < blocks.x; x++)
            run_block(uint3{reverse ? blocks.x - 1 - x : x, y, 0}, blocks, threads, reverse);
    emulated_leave();
}

/* -- streams, graphs and events --------------------------------------------------------------------------------------
 */

[[noreturn]] static void give_up(const char *why) {
    fprintf(stderr, "emulated CUDA: %s\n", why);
    abort();
}

struct stream {
    bool captures;
};
typedef std::vector<std::function<void()>> graph;
static graph captured; /* by the one stream that captures */

static bool captures(cudaStream_t s) { return ((stream *)s)->captures; }

void emulated_submit(void *s, std::function<void()> work) {
    if (captures(s))
        captured.push_back(std::move(work));
    else
        work();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
    *out = new stream{false};
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    delete (stream *)s;
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, int) {
    if (captures(s)) give_up("a graph in a graph");
    ((stream *)s)->captures = true;
    captured.clear();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out) {
    if (!captures(s)) give_up("the end of a graph that was not begun");
    ((stream *)s)->captures = false;
    *out = new graph(std::move(captured));
    return cudaSuccess;
}
int emulated_refuse_graphs; /* not 0: as where memory is short */

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long) {
    if (emulated_refuse_graphs != 0) return cudaErrorMemoryAllocation;
    *out = new graph(*(graph *)g);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
    if (captures(s)) give_up("a graph in a graph");
    for (const auto &work : *(graph *)g) work();
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete (graph *)g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return cudaGraphDestroy(g); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
    *out = new timespec{};
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete (timespec *)event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    clock_gettime(CLOCK_MONOTONIC, (timespec *)event);
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    const timespec *a = (timespec *)begin, *b = (timespec *)end;
    *milliseconds = (float)((double)(b->tv_sec - a->tv_sec) * 1e3 + (double)(b->tv_nsec - a->tv_nsec) / 1e6);
    return cudaSuccess;
}

/* -- memory ---------------------------------------------------------------------------------------------------------
 */

enum { MOST_BLOCKS = 256, PAGE = 4096 };
static struct {
    char *base;
    size_t bytes;
} memory[MOST_BLOCKS];

static void protect(int how) {
    for (auto &block : memory)
        if (block.base != nullptr) mprotect(block.base, block.bytes, how);
}

void emulated_enter() { protect(PROT_READ | PROT_WRITE); }
void emulated_leave() { protect(PROT_NONE); }

cudaError_t cudaMalloc(void **out, size_t bytes) {
    size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    if (bytes > (size_t)1 << 40) return cudaErrorMemoryAllocation;
    for (auto &block : memory) {
        if (block.base != nullptr) continue;
        void *base = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) return cudaErrorMemoryAllocation;
        block = {(char *)base, whole};
        *out = base;
        return cudaSuccess;
    }
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *old) {
    for (auto &block : memory)
        if (block.base == old) {
            munmap(block.base, block.bytes);
            block = {};
        }
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes) {
    *out = malloc(bytes);
    return *out == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void *old) {
    free(old);
    return cudaSuccess;
}

static void check_inside(const void *pointer, size_t bytes) {
    const char *at = (const char *)pointer;
    for (auto &block : memory)
        if (block.base != nullptr && at >= block.base && at + bytes <= block.base + block.bytes) return;
    give_up("a copy to or from what is no device memory");
}

cudaError_t cudaMemsetAsync(void *out, int value, size_t bytes, cudaStream_t stream) {
    if (bytes == 0) return cudaSuccess;
    check_inside(out, bytes);
    emulated_submit(stream, [=] {
        emulated_enter();
        memset(out, value, bytes);
        emulated_leave();
    });
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *out, const void *inp, size_t bytes, int kind, cudaStream_t stream) {
    if (bytes == 0) return cudaSuccess;
    if (captures(stream)) give_up("a copy in a graph");
    check_inside(kind == cudaMemcpyHostToDevice ? out : inp, bytes);
    emulated_enter();
    memcpy(out, inp, bytes);
    emulated_leave();
    return cudaSuccess;
}

int emulated_most_shared = 227 << 10;

cudaError_t cudaDeviceGetAttribute(int *out, int attribute, int) {
    if (attribute != cudaDevAttrMaxSharedMemoryPerBlockOptin) give_up("an attribute that is not emulated");
    *out = emulated_most_shared;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *free = *total = (size_t)8 << 30;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int) {
    *out = cudaDeviceProp{"emulated on the CPU", 9, 0};
    return cudaSuccess;
}
