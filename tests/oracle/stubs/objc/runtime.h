/* What metal-cpp asks of the Objective-C runtime, so that it compiles where there is none. */
#ifndef UMO_ORACLE_OBJC_RUNTIME_H
#define UMO_ORACLE_OBJC_RUNTIME_H

#include <Availability.h>

#ifdef __cplusplus
extern "C" {
#endif

struct objc_object {
    void *isa;
};
typedef struct objc_object *id;
typedef struct objc_selector *SEL;

void *objc_lookUpClass(const char *name);
void *objc_getProtocol(const char *name);
SEL sel_registerName(const char *name);

#ifdef __cplusplus
}
#endif

#endif
