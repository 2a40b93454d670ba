/* A model: the weights on a device, shared by the runs that read them. Level 2. */
#ifndef RP_MODEL_H
#define RP_MODEL_H

#include "cnn.h"
#include "ops.h"
#include "params.h"

typedef struct rp_model {
    rp_params *params;
    rp_dev *dev; /* owns the memory; runs open devices of their own */
    char backend[32];
    float *values;      /* (params->total) on the device */
    int64_t version;    /* another one when values have changed */
    float *graph;       /* (graph_rows,graph_size) likewise, of an encoder that a graph is injected into; stays */
    int64_t graph_rows; /* its entities */
} rp_model;

/* An encoder, or a CNN, on `backend` ("cpu", "ref", …) with every value 0. */
rp_status rp_model_new(rp_model **out, const rp_config *config, const char *backend);
rp_status rp_model_new_cnn(rp_model **out, const rp_cnn_config *config, const char *backend);
void rp_model_free(rp_model *model);

/* The graph's embeddings from host memory (rows, config.graph_size), which no run changes; once, before the runs. */
rp_status rp_model_set_graph(rp_model *model, const float *host, int64_t rows);

/* Parameter `index` from and to host memory (its count of floats); and its initial value by the seed. */
rp_status rp_model_set(rp_model *model, int64_t index, const float *host);
rp_status rp_model_get(const rp_model *model, int64_t index, float *host);
rp_status rp_model_init(rp_model *model, int64_t index, uint64_t seed);

#endif
