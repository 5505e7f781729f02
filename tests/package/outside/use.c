/*
 * A program outside of the tree that uses the installed library. It prints the library's version,
 * and fails where memory does not hold what was written to it.
 */
#include <umo/umo.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    umo_error error = {0};
    umo_context *context = NULL;
    umo_device *host = NULL;
    umo_buffer *buffer = NULL;
    int result = 1;
    if (umo_context_create(NULL, &context, &error) != UMO_OK ||
        umo_context_device(context, "host", 0, &host, &error) != UMO_OK) {
        goto out;
    }
    if (umo_buffer_alloc(host, umo_context_scope(context), 4096, UMO_UNIFIED, &buffer, &error) !=
        UMO_OK) {
        goto out;
    }
    memset(umo_buffer_host(buffer), 42, 4096);
    if (((unsigned char *)umo_buffer_host(buffer))[4095] == 42) {
        (void)puts(umo_version());
        result = 0;
    }

out:
    if (result != 0) {
        (void)fprintf(stderr, "%s\n", error.text);
    }
    umo_buffer_release(buffer);
    umo_device_release(host);
    umo_context_destroy(context);
    return result;
}
