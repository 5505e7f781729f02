/* Metal through the names that a Mac has: the fake answers, called by Apple's ABI. */
#include "probe.h"

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

typedef void *id;

int main(void)
{
    void *metal = dlopen("/System/Library/Frameworks/Metal.framework/Metal", RTLD_NOW);
    void *objc = dlopen("/usr/lib/libobjc.A.dylib", RTLD_NOW);
    if (metal == NULL || objc == NULL) {
        printf("%s\n", dlerror());
        return 1;
    }
    id (*devices)(void) = (id(*)(void))dlsym(metal, "MTLCopyAllDevices");
    id (*named)(const char *) = (id(*)(const char *))dlsym(objc, "sel_registerName");
    id (*class_of)(const char *) = (id(*)(const char *))dlsym(objc, "objc_getClass");
    void (*send)(void) = (void (*)(void))dlsym(objc, "objc_msgSend");
    CHECK(devices != NULL && named != NULL && send != NULL && class_of != NULL);
    void *(*pool_push)(void) = (void *(*)(void))dlsym(objc, "objc_autoreleasePoolPush");
    void (*pool_pop)(void *) = (void (*)(void *))dlsym(objc, "objc_autoreleasePoolPop");
    CHECK(pool_push != NULL && pool_pop != NULL);
    void *pool = pool_push();
    id list = devices();
    CHECK(list != NULL);
#define SEND(type, object, selector) ((type(*)(id, id))send)(object, named(selector))
    CHECK(SEND(unsigned long, list, "count") == 1);
    id device = ((id(*)(id, id, unsigned long))send)(list, named("objectAtIndex:"), 0);
    CHECK(device != NULL);
    CHECK(SEND(_Bool, device, "hasUnifiedMemory") == 1);
    CHECK(SEND(uint64_t, device, "recommendedMaxWorkingSetSize") == (uint64_t)16 << 30);
    id name = SEND(id, device, "name");
    CHECK(name != NULL && strlen(SEND(const char *, name, "UTF8String")) > 0);
    id buffer = ((id(*)(id, id, unsigned long, unsigned long))send)(
        device, named("newBufferWithLength:options:"), 65536, 0);
    CHECK(buffer != NULL && SEND(unsigned long, buffer, "length") == 65536);
    char *bytes = SEND(char *, buffer, "contents");
    CHECK(bytes != NULL && (uintptr_t)bytes % 16384 == 0);
    bytes[65535] = 1;
    id text = ((id(*)(id, id, const char *))send)(class_of("NSString"),
                                                  named("stringWithUTF8String:"), "words");
    CHECK(text != NULL && strcmp(SEND(const char *, text, "UTF8String"), "words") == 0);
    (void)SEND(id, buffer, "release");
    (void)SEND(id, list, "release");
    pool_pop(pool);
    return probe_verdict();
}
