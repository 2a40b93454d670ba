/* Knowledge graphs, the training of their embeddings, and link prediction in Python. */
#ifndef RELPT_GRAPHS_H
#define RELPT_GRAPHS_H

#include "module.h"

/* Adds the types and functions to the module; -1 with an exception. */
int relpt_add_graphs(PyObject *module);

#endif
