#include "ops.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "composed.h"
#include "cpu/cpu.h"
#include "ref/ref.h"

/* -- coarse operations ------------------------------------------------------------------------------------ */

rp_status rp_ops_complete(rp_ops *ops) {
#define CHECK(slot, arguments)                                                                                         \
    if (ops->slot == NULL) return rp_fail(RP_STATUS_STATE, "back end %s lacks the operation " #slot, ops->name);
    RP_OPS_BASIC(CHECK)
#undef CHECK
#define FILL(slot, arguments)                                                                                          \
    if (ops->slot == NULL) ops->slot = rp_composed_##slot;
    RP_OPS_COARSE(FILL)
#undef FILL
    return RP_OK;
}

/* -- registry -------------------------------------------------------------------------------------------- */

static rp_ops tables[RP_CPU_LEVELS + 1]; /* the last one is ref's */
static rp_status table_status[RP_CPU_LEVELS + 1];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

enum { REGISTERED = 4 }; /* back ends of libraries of their own, at most */
static rp_ops registered[REGISTERED];
static int registered_count;

static void fill_tables(void) {
    for (int i = 0; i <= RP_CPU_LEVELS; i++) {
        tables[i] = i == RP_CPU_LEVELS ? *rp_ref_table() : *rp_cpu_table(i);
        table_status[i] = rp_ops_complete(&tables[i]);
    }
}

static rp_status check_contract(const rp_backend *backend) {
    static const char *const contract[] = {RP_OPS_CONTRACT NULL};
    static const int64_t sizes[] = {RP_OPS_SIZES, 0};
    for (int i = 0; contract[i] != NULL || backend->contract[i] != NULL; i++) {
        const char *ours = contract[i], *theirs = backend->contract[i];
        if (ours == NULL || theirs == NULL || strcmp(ours, theirs) != 0)
            return rp_fail(RP_STATUS_STATE,
                           "the back end was compiled for another version of relpt (its operation \"%.80s\" is "
                           "\"%.80s\" here); build both again",
                           theirs == NULL ? "-" : theirs, ours == NULL ? "-" : ours);
    }
    if (memcmp(sizes, backend->sizes, sizeof sizes) == 0) return RP_OK;
    return rp_fail(RP_STATUS_STATE,
                   "the back end was compiled for another version of relpt (its structures have other sizes); build "
                   "both again");
}

static const rp_ops *find_registered(const char *name) {
    for (int i = 0; i < registered_count; i++)
        if (strcmp(registered[i].name, name) == 0) return &registered[i];
    return NULL;
}

rp_status rp_ops_register(const rp_backend *backend) {
    RP_TRY(check_contract(backend));
    if (find_registered(backend->table->name) != NULL) return RP_OK;
    if (registered_count == REGISTERED)
        return rp_fail(RP_STATUS_STATE, "there are %d back ends registered, and no room for another", REGISTERED);
    rp_ops table = *backend->table;
    RP_TRY(rp_ops_complete(&table));
    backend->relay(rp_fail);
    registered[registered_count++] = table;
    return RP_OK;
}

const rp_ops *rp_ops_find(const char *name) {
    int i = RP_CPU_LEVELS;
    const rp_ops *found = find_registered(name);
    if (found != NULL) return found;
    if (strcmp(name, "cuda") == 0) {
        rp_fail(RP_STATUS_STATE, "the back end cuda is not registered: relpt._cuda was not imported");
        return NULL;
    }
    if (strcmp(name, "ref") != 0 && rp_cpu_level(&i, name) != RP_OK) return NULL;
    pthread_once(&tables_once, fill_tables);
    if (table_status[i] == RP_OK) return &tables[i];
    rp_ops_complete(&tables[i]); /* once more, for the message in this thread */
    return NULL;
}

int rp_ops_has(const rp_ops *ops, rp_dtype products) {
    if (ops >= registered && ops < registered + REGISTERED) return products != RP_INT8;
    return ops >= tables && ops < tables + RP_CPU_LEVELS && rp_cpu_has((int)(ops - tables), products);
}

rp_status rp_dev_check_gradients(const rp_dev *dev) {
    if (dev->products != RP_INT8) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "int8 products are for encoding: expected float32 or bfloat16 to train");
}

void (*rp_ops_slot(const rp_ops *ops, const char *slot))(void) {
#define MATCH(name, arguments)                                                                                         \
    if (strcmp(slot, #name) == 0) return (void (*)(void))ops->name;
    RP_OPS_BASIC(MATCH)
    RP_OPS_COARSE(MATCH)
#undef MATCH
    return NULL;
}

/* -- devices --------------------------------------------------------------------------------------------- */

rp_status rp_dev_open(rp_dev **out, const char *backend, int64_t num_threads) {
    if (num_threads < 1 || num_threads > 4096)
        return rp_fail(RP_STATUS_VALUE, "num_threads is %lld, expected 1 to 4096", (long long)num_threads);
    const rp_ops *ops = rp_ops_find(backend);
    if (ops == NULL) return RP_STATUS_STATE; /* rp_ops_find has written the message */
    rp_dev *dev = calloc(1, sizeof *dev);
    if (dev == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a device handle");
    dev->ops = ops;
    dev->num_threads = num_threads;
    rp_status status = ops->open(dev);
    if (status == RP_OK)
        *out = dev;
    else
        free(dev);
    return status;
}

void rp_dev_close(rp_dev *dev) {
    if (dev == NULL) return;
    dev->ops->keep_weights(dev, NULL, 0, 0);
    if (dev->scratch != NULL) dev->ops->release(dev, dev->scratch);
    dev->ops->close(dev);
    free(dev);
}

rp_status rp_dev_reserve(rp_dev *dev, const rp_extent *most) {
    int64_t bytes;
    RP_TRY(dev->ops->scratch(dev, &bytes, most));
    return dev->ops->reserve(dev, bytes);
}

rp_status rp_dev_poll(rp_dev *dev) {
    if (dev->poll != NULL && dev->poll(dev->poll_context) != 0) return rp_fail(RP_STATUS_INTERRUPT, "interrupted");
    return RP_OK;
}

uint32_t rp_dropout_threshold(double p) {
    long threshold = lround(p * 65536.0);
    return threshold < 65536 ? (uint32_t)threshold : 65535u;
}
