#include "cpu/level.h"

#include "host.h"
#include "kept.h"

const rp_ops *RP_CPU(table)(void) {
    static const rp_ops table = {
        .name = "cpu/" RP_CPU_TEXT(RP_LEVEL),
        .concurrent = 1,
        .chunk = 512,
        .open = rp_host_open,
        .close = rp_host_close,
        .scratch = rp_host_scratch,
        .alloc = rp_host_alloc,
        .release = rp_host_release,
        .reserve = rp_host_reserve,
        .upload = rp_host_upload,
        .download = rp_host_download,
        .zero = rp_host_zero,
        .keep_weights = rp_kept_weights,
#define OWN(slot) .slot = RP_CPU(slot)
        OWN(linear_forward),
        OWN(linear_backward),
        OWN(embed_forward),
        OWN(embed_backward),
        OWN(dropout_forward),
        OWN(add_forward),
        OWN(layernorm_forward),
        OWN(layernorm_backward),
        OWN(gelu_forward),
        OWN(gelu_backward),
        OWN(narrow),
        OWN(widen),
        OWN(attention_forward),
        OWN(attention_backward),
        OWN(rows_gather),
        OWN(rows_scatter_add),
        OWN(mean_forward),
        OWN(mean_backward),
        OWN(normalize_forward),
        OWN(normalize_backward),
        OWN(rows_dot_forward),
        OWN(rows_dot_backward),
        OWN(activation_forward),
        OWN(activation_backward),
        OWN(window_forward),
        OWN(window_backward),
        OWN(segment_max_forward),
        OWN(segment_max_backward),
        OWN(softmax_xent),
        OWN(sum_squares),
        OWN(adamw_update),
        OWN(sgd_update),
        OWN(linear_gelu_forward),
        OWN(residual_layernorm_forward),
        OWN(residual_layernorm_backward),
#undef OWN
    };
    return &table;
}
