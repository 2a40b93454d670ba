/* Sampler in Python; and its C side for the trainer. */
#ifndef RELPT_SAMPLING_H
#define RELPT_SAMPLING_H

#include "module.h"

#include "relpt.h"

/* The core's object inside a Sampler; NULL with TypeError, which names the argument. */
rp_sampler *relpt_sampler_of(const relpt_state *state, PyObject *object, const char *name);

/* A Sampler serves one call at a time: lock it (with the GIL held) before rp_sampler_batch, and unlock it (with the GIL
 * held) when the batch is no longer read. -1 with RuntimeError "busy". `sampler` is a Sampler. */
int relpt_sampler_lock(PyObject *sampler);
void relpt_sampler_unlock(PyObject *sampler);

/* Adds the type to the module; -1 with an exception. */
int relpt_add_sampler(PyObject *module);

#endif
