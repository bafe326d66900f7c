/* What the files that call oneDNN share. Internal to runtime/. */
#ifndef GM_RUNTIME_ONEDNN_H
#define GM_RUNTIME_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>

/* Return the status of a failed call. */
#define DNNL_TRY(expr)                                                                                                 \
    do {                                                                                                               \
        dnnl_status_t dnnl_try_ = (expr);                                                                              \
        if (dnnl_try_ != dnnl_success) return dnnl_try_;                                                               \
    } while (0)

#endif
