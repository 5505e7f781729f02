/*
 * The other end of metal-cpp's messages: keeps the selector and answers nothing. Also what Metal
 * and the runtime of blocks are asked for at the link.
 */
#include <stdio.h>
#include <string.h>

const char *oracle_received = "";

/* A selector is its name, and a question whether somebody responds to one is answered yes. */
void *objc_msgSend(void *self, const char *selector)
{
    (void)self;
    if (strcmp(selector, "respondsToSelector:") == 0) {
        return (void *)1;
    }
    oracle_received = selector;
    return NULL;
}

double objc_msgSend_fpret(void *self, const char *selector)
{
    (void)objc_msgSend(self, selector);
    return 0;
}

void objc_msgSend_stret(void *result, void *self, const char *selector)
{
    (void)result;
    (void)objc_msgSend(self, selector);
}

const char *sel_registerName(const char *name)
{
    printf("selector\t%s\n", name);
    return name;
}

void *objc_lookUpClass(const char *name)
{
    printf("class\t%s\n", name);
    return NULL;
}

void *objc_getProtocol(const char *name)
{
    printf("protocol\t%s\n", name);
    return NULL;
}

void *_NSConcreteStackBlock[32];
void *_NSConcreteGlobalBlock[32];

void _Block_object_assign(void *to, const void *from, int flags)
{
    (void)to;
    (void)from;
    (void)flags;
}

void _Block_object_dispose(const void *from, int flags)
{
    (void)from;
    (void)flags;
}

void *MTLCreateSystemDefaultDevice(void)
{
    return NULL;
}

void *MTLCopyAllDevices(void)
{
    return NULL;
}

void *MTLCopyAllDevicesWithObserver(void *observer, void *handler)
{
    (void)observer;
    (void)handler;
    return NULL;
}

void MTLRemoveDeviceObserver(const void *observer)
{
    (void)observer;
}
