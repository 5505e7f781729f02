/*
 * For tests that link the layer itself: the system's answer to "which mapping is this" can be
 * switched off, as on older kernels and in sandboxes. Included once in a program.
 */
#ifndef UMO_OS_MAPPING_TEST_H
#define UMO_OS_MAPPING_TEST_H

#include <dlfcn.h>
#include <stdbool.h>

static bool mapping_test_silent;

#ifdef __APPLE__
#include <mach/mach.h>

kern_return_t mach_vm_region_recurse(vm_map_read_t task, mach_vm_address_t *address,
                                     mach_vm_size_t *size, natural_t *depth,
                                     vm_region_recurse_info_t info, mach_msg_type_number_t *count);

kern_return_t mach_vm_region_recurse(vm_map_read_t task, mach_vm_address_t *address,
                                     mach_vm_size_t *size, natural_t *depth,
                                     vm_region_recurse_info_t info, mach_msg_type_number_t *count)
{
    if (mapping_test_silent) {
        return KERN_NOT_SUPPORTED;
    }
    kern_return_t (*next)(vm_map_read_t, mach_vm_address_t *, mach_vm_size_t *, natural_t *,
                          vm_region_recurse_info_t, mach_msg_type_number_t *);
    *(void **)&next = dlsym(RTLD_NEXT, "mach_vm_region_recurse");
    return next(task, address, size, depth, info, count);
}
#else
#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>

int ioctl(int file, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (mapping_test_silent) {
        errno = ENOTTY;
        return -1;
    }
    int (*next)(int, unsigned long, ...);
    *(void **)&next = dlsym(RTLD_NEXT, "ioctl");
    return next(file, request, argument);
}
#endif

#endif
