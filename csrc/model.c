#include "model.h"

#include <stdio.h>
#include <stdlib.h>

#include "arena.h"

/* Takes over the parameters, also when it fails. */
static rp_status model_of(rp_model **out, rp_params *params, const char *backend) {
    rp_status status;
    rp_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        rp_params_free(params);
        return rp_fail(RP_STATUS_MEMORY, "no memory for a model handle");
    }
    snprintf(model->backend, sizeof model->backend, "%s", backend);
    model->params = params;
    if ((status = rp_dev_open(&model->dev, backend, 1)) != RP_OK) goto done;
    void *values = NULL;
    status = model->dev->ops->alloc(model->dev, &values, model->params->total * (int64_t)sizeof(float));
    model->values = values;
done:
    if (status != RP_OK)
        rp_model_free(model);
    else
        *out = model;
    return status;
}

rp_status rp_model_new(rp_model **out, const rp_config *config, const char *backend) {
    rp_params *params;
    RP_TRY(rp_params_new(&params, config));
    return model_of(out, params, backend);
}

rp_status rp_model_new_cnn(rp_model **out, const rp_cnn_config *config, const char *backend) {
    rp_params *params;
    RP_TRY(rp_cnn_params_new(&params, config));
    return model_of(out, params, backend);
}

void rp_model_free(rp_model *model) {
    if (model == NULL) return;
    if (model->graph != NULL) model->dev->ops->release(model->dev, model->graph);
    if (model->values != NULL) model->dev->ops->release(model->dev, model->values);
    rp_dev_close(model->dev);
    rp_params_free(model->params);
    free(model);
}

rp_status rp_model_set_graph(rp_model *model, const float *host, int64_t rows) {
    const rp_ops *ops = model->dev->ops;
    int64_t bytes = rows * model->params->config.graph_size * (int64_t)sizeof(float);
    void *graph = NULL;
    if (bytes == 0 || rows > INT32_MAX || model->graph != NULL)
        return rp_fail(RP_STATUS_VALUE, "a graph of %lld entities of size %lld, expected 1 to %d of 1 or more, once",
                       (long long)rows, (long long)model->params->config.graph_size, INT32_MAX);
    RP_TRY(ops->alloc(model->dev, &graph, bytes));
    model->graph = graph;
    model->graph_rows = rows;
    return ops->upload(model->dev, model->graph, host, bytes);
}

rp_status rp_model_set(rp_model *model, int64_t index, const float *host) {
    const rp_param *param = &model->params->table[index];
    model->version++;
    return model->dev->ops->upload(model->dev, model->values + param->offset, host,
                                   param->count * (int64_t)sizeof(float));
}

rp_status rp_model_get(const rp_model *model, int64_t index, float *host) {
    const rp_param *param = &model->params->table[index];
    return model->dev->ops->download(model->dev, host, model->values + param->offset,
                                     param->count * (int64_t)sizeof(float));
}

rp_status rp_model_init(rp_model *model, int64_t index, uint64_t seed) {
    const rp_param *param = &model->params->table[index];
    float *host = rp_aligned_alloc((size_t)param->count * sizeof(float));
    if (host == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory to initialise %s", param->name);
    rp_params_init(model->params, index, seed, host);
    rp_status status = rp_model_set(model, index, host);
    rp_aligned_free(host);
    return status;
}
