#include "status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[2048];
static rp_relay *relay;

rp_status rp_fail(rp_status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return relay == NULL ? code : relay(code, "%s", message);
}

void rp_fail_relay(rp_relay *to) { relay = to; }

const char *rp_message(void) { return message; }
