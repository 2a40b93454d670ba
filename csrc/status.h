/* Status codes and the text that goes with a failure. Level 0. */
#ifndef RP_STATUS_H
#define RP_STATUS_H

typedef enum rp_status {
    RP_OK = 0,
    RP_STATUS_VALUE,     /* an argument is out of its range            -> ValueError         */
    RP_STATUS_STATE,     /* the handle cannot do this now              -> RuntimeError       */
    RP_STATUS_MEMORY,    /* memory could not be had                    -> MemoryError        */
    RP_STATUS_IO,        /* the system refused a file or a thread      -> OSError            */
    RP_STATUS_FORMAT,    /* data break their own format                -> relpt.FormatError  */
    RP_STATUS_NUMERIC,   /* a result is not finite                     -> FloatingPointError */
    RP_STATUS_CUDA,      /* the CUDA back end failed                   -> relpt.CudaError    */
    RP_STATUS_INTERRUPT, /* the caller's poll asked to stop            -> exception already set */
} rp_status;

/* Writes the thread's message (printf form; says what, got, expected, remedy) and returns `code`. */
rp_status rp_fail(rp_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The message of the calling thread's last failure; valid until its next one. */
const char *rp_message(void);

/* Makes rp_fail of this library pass its messages on to another's, for a library that serves the core from outside. */
typedef rp_status rp_relay(rp_status code, const char *format, ...);
void rp_fail_relay(rp_relay *to);

#define RP_TRY(expression)                                                                                             \
    do {                                                                                                               \
        rp_status rp_try_ = (expression);                                                                              \
        if (rp_try_ != RP_OK) return rp_try_;                                                                          \
    } while (0)

#endif
