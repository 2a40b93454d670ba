#include "status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[512];

rp_status rp_fail(rp_status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return code;
}

const char *rp_message(void) { return message; }
