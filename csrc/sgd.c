#include "sgd.h"

rp_status rp_sgd_check(const rp_sgd_options *o) {
    if (!(o->momentum >= 0 && o->momentum < 1))
        return rp_fail(RP_STATUS_VALUE, "momentum is %g, expected 0 <= momentum < 1", o->momentum);
    if (!(o->weight_decay >= 0 && o->weight_decay <= RP_RATE_MOST))
        return rp_fail(RP_STATUS_VALUE, "weight_decay is %g, expected 0 or more, at most %g", o->weight_decay,
                       RP_RATE_MOST);
    if (!(o->max_grad_norm >= 0))
        return rp_fail(RP_STATUS_VALUE, "max_grad_norm is %g, expected 0 (no clipping) or more", o->max_grad_norm);
    return RP_OK;
}

rp_status rp_sgd_apply(rp_dev *dev, const rp_tensors *t, const rp_sgd_options *o, double lr, double norm,
                       bool mlm_head) {
    double clip = o->max_grad_norm > 0 && norm > o->max_grad_norm ? o->max_grad_norm / norm : 1.0;
    rp_sgd_step h = {.lr = (float)lr, .momentum = (float)o->momentum, .grad_scale = (float)clip};
    for (int64_t i = 0; i < t->params->count; i++) {
        const rp_param *p = &t->params->table[i];
        if (p->mlm_head && !mlm_head) continue;
        h.weight_decay = p->decay ? (float)o->weight_decay : 0.0f;
        float *momentum = o->momentum > 0 ? t->moment1 + p->offset : NULL;
        RP_TRY(dev->ops->sgd_update(dev, t->values + p->offset, momentum, t->grads + p->offset, &h, p->count));
    }
    return RP_OK;
}
