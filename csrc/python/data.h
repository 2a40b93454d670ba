/* Corpus, Sampler, batches and projections in Python; and their C sides for the model types. */
#ifndef RELPT_DATA_H
#define RELPT_DATA_H

#include "module.h"

#include "relpt.h"

/* The core's object inside a Corpus or Sampler; NULL with TypeError, which names the argument. The caller keeps a
 * reference to `object` as long as it uses what is inside. */
const rp_corpus *relpt_corpus_of(const relpt_state *state, PyObject *object, const char *name);
rp_sampler *relpt_sampler_of(const relpt_state *state, PyObject *object, const char *name);

/* A Sampler serves one call at a time: lock it (with the GIL held) before rp_sampler_batch, and unlock it (with the GIL
 * held) when the batch is no longer read. -1 with RuntimeError "busy". `sampler` is a Sampler. */
int relpt_sampler_lock(PyObject *sampler);
void relpt_sampler_unlock(PyObject *sampler);

/* Token ids from a dict with the names of rp_tokens: `special` is a uint8 array, and there may be the flag `text_order`
 * and the int32 arrays `prompt`, `marker_ids` and `marker_offsets`. `out` borrows of the arrays: *keep becomes a list
 * of references to them. -1 with an exception. */
int relpt_tokens_parse(PyObject *dict, rp_tokens *out, PyObject **keep);

/* The batch's arrays and counts as a dict of fresh arrays. */
PyObject *relpt_batch_dict(const rp_batch *batch);

/* Adds the types and functions to the module; -1 with an exception. */
int relpt_add_data(PyObject *module);

#endif
