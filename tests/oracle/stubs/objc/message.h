/* The entries that metal-cpp sends through; it casts each to the type of the message. */
#ifndef UMO_ORACLE_OBJC_MESSAGE_H
#define UMO_ORACLE_OBJC_MESSAGE_H

#include <objc/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

void objc_msgSend(void);
void objc_msgSend_stret(void);
void objc_msgSend_fpret(void);

#ifdef __cplusplus
}
#endif

#endif
