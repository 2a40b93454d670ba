/* Corpus, batches and projections in Python; and their C sides for the other types. */
#ifndef RELPT_DATA_H
#define RELPT_DATA_H

#include "module.h"

#include "relpt.h"

/* True when `object` is of `type`; otherwise TypeError, which names the argument. */
bool relpt_is_of_type(PyObject *object, PyObject *type, const char *name);

/* The core's object inside a Corpus; NULL with TypeError. The caller keeps a reference to `object` as long as it uses
 * what is inside. */
const rp_corpus *relpt_corpus_of(const relpt_state *state, PyObject *object, const char *name);

/* Token ids from a dict with the names of rp_tokens: `special` is a uint8 array, and there may be the flags `bare` and
 * `text_order` and the int32 arrays `prompt`, `marker_ids` and `marker_offsets`. `out` borrows of the arrays: *keep
 * becomes a list of references to them. -1 with an exception. */
int relpt_tokens_parse(PyObject *dict, rp_tokens *out, PyObject **keep);

/* The batch's arrays and counts as a dict of fresh arrays. */
PyObject *relpt_batch_dict(const rp_batch *batch);

/* Adds the types and functions to the module; -1 with an exception. */
int relpt_add_data(PyObject *module);

#endif
