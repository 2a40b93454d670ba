/* Models and encoding runs in Python; and their C sides for the trainer. */
#ifndef RELPT_HANDLES_H
#define RELPT_HANDLES_H

#include "module.h"

#include <pythread.h>
#include <stdbool.h>

#include "relpt.h"

typedef struct relpt_model {
    PyObject_HEAD rp_model *model;
    PyThread_type_lock lock; /* held by the call that reads or writes the values */
    bool taken, writing;     /* and by whom; read and written with the GIL */
    unsigned long owner;
} relpt_model;

/* The Model that `object` is; NULL with TypeError. */
relpt_model *relpt_model_of(const relpt_state *state, PyObject *object);

/* Takes the model, and gives it back. It waits for who has it, but for two: -1 with RuntimeError "busy" where both
 * write, and where this thread has it itself, in whose midst a signal's handler runs. */
int relpt_model_take(relpt_model *model, bool writes);
void relpt_model_release(relpt_model *model);

/* The number of dimensions of a parameter, and their sizes. */
int relpt_param_shape(const rp_param *param, int64_t shape[2]);

/* [(name, shape), …] of a table. */
PyObject *relpt_params_list(const rp_params *params);

/* A representation from a sequence of part numbers; -1 with an exception. */
int relpt_parse_represent(PyObject *object, rp_represent *out);

/* -1 with TypeError where there are positional arguments. */
int relpt_no_positionals(PyObject *args, const char *name);

/* The core's poll: runs Python's signal handlers (Ctrl-C). Not 0 when one raised. */
int relpt_check_signals(void *context);

/* Adds the model types to the module; -1 with an exception. */
int relpt_add_model_types(PyObject *module);

#endif
