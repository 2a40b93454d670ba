/* The memory slots of the table for back ends whose device memory is the host's (ref, cpu). Level 1: it needs
 * ops.h for rp_dev. */
#ifndef RP_HOST_H
#define RP_HOST_H

#include "ops.h"

/* There is nothing to open or close. */
rp_status rp_host_open(rp_dev *dev);
rp_status rp_host_close(rp_dev *dev);

/* Of cpu; ref takes less. */
rp_status rp_host_scratch(rp_dev *dev, int64_t *bytes, const rp_extent *most);

/* *out = `bytes` zeroed bytes, RP_ALIGN-aligned; never NULL on success, also for 0 bytes. */
rp_status rp_host_alloc(rp_dev *dev, void **out, int64_t bytes);

/* Frees what rp_host_alloc gave; takes NULL. */
rp_status rp_host_release(rp_dev *dev, void *memory);

/* Grows dev->scratch to at least `bytes`; its content is lost. On failure the old scratch stays. */
rp_status rp_host_reserve(rp_dev *dev, int64_t bytes);

rp_status rp_host_upload(rp_dev *dev, void *out, const void *host, int64_t bytes);
rp_status rp_host_download(rp_dev *dev, void *host, const void *inp, int64_t bytes);
rp_status rp_host_zero(rp_dev *dev, void *out, int64_t bytes);

#endif
