/* Failures of the core as Python exceptions. */
#ifndef RELPT_ERRORS_H
#define RELPT_ERRORS_H

#include "module.h"

#include "relpt.h"

/* Raises the exception of `status` with the thread's message, and returns NULL. INTERRUPT: one is set already. */
PyObject *relpt_raise(const relpt_state *state, rp_status status);

/* Makes the module's exception classes and adds them to it; -1 with an exception. */
int relpt_add_exceptions(PyObject *module);

#endif
