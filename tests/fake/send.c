/*
 * The way of a message, in assembly because it must hand on every argument register: count it, find
 * the function in the receiver's class by the selector's slot, and jump there. A message to nil
 * gives zero.
 */
#include "fake.h"

#include <assert.h>

_Static_assert(offsetof(fake_class, table) == FAKE_TABLE_OFFSET,
               "assembly knows the table's place");
_Static_assert(offsetof(fake_object, isa) == 0, "and the class's");

atomic_uint_least64_t fake_message_counts[FAKE_SLOTS];

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

#if defined(__x86_64__)

/* objc_msgSend_stret is for results larger than two registers: their address comes first. */
__asm__(".pushsection .text\n" /* what the compiler puts behind it belongs elsewhere */
        ".p2align 4\n"
        ".globl objc_msgSend\n"
        ".type objc_msgSend, @function\n"
        "objc_msgSend:\n"
        "    endbr64\n"
        "    testq %rdi, %rdi\n"
        "    je 1f\n"
        "    movl -4(%rsi), %r11d\n"
        "    leaq fake_message_counts(%rip), %r10\n"
        "    lock incq (%r10,%r11,8)\n"
        "    movq (%rdi), %r10\n"
        "    jmpq *" TEXT(FAKE_TABLE_OFFSET) "(%r10,%r11,8)\n"
                                             "1:  xorl %eax, %eax\n"
                                             "    xorl %edx, %edx\n"
                                             "    pxor %xmm0, %xmm0\n"
                                             "    pxor %xmm1, %xmm1\n"
                                             "    ret\n"
                                             ".size objc_msgSend, .-objc_msgSend\n"
                                             ".globl objc_msgSend_fpret\n"
                                             ".set objc_msgSend_fpret, objc_msgSend\n"
                                             ".p2align 4\n"
                                             ".globl objc_msgSend_stret\n"
                                             ".type objc_msgSend_stret, @function\n"
                                             "objc_msgSend_stret:\n"
                                             "    endbr64\n"
                                             "    testq %rsi, %rsi\n"
                                             "    je 1f\n"
                                             "    movl -4(%rdx), %r11d\n"
                                             "    leaq fake_message_counts(%rip), %r10\n"
                                             "    lock incq (%r10,%r11,8)\n"
                                             "    movq (%rsi), %r10\n"
                                             "    jmpq *" TEXT(
                                                 FAKE_TABLE_OFFSET) "(%r10,%r11,8)\n"
                                                                    "1:  movq %rdi, %rax\n"
                                                                    "    ret\n"
                                                                    ".size objc_msgSend_stret, "
                                                                    ".-objc_msgSend_stret\n"
                                                                    ".popsection\n");

#elif defined(__aarch64__)

__asm__(".pushsection .text\n"
        ".p2align 4\n"
        ".globl objc_msgSend\n"
        ".type objc_msgSend, %function\n"
        "objc_msgSend:\n"
        "    hint #34\n"
        "    cbz x0, 1f\n"
        "    ldur w16, [x1, #-4]\n"
        "    adrp x17, fake_message_counts\n"
        "    add x17, x17, :lo12:fake_message_counts\n"
        "    add x17, x17, x16, lsl #3\n"
        "2:  ldxr x9, [x17]\n"
        "    add x9, x9, #1\n"
        "    stxr w10, x9, [x17]\n"
        "    cbnz w10, 2b\n"
        "    ldr x17, [x0]\n"
        "    add x17, x17, x16, lsl #3\n"
        "    ldr x17, [x17, #" TEXT(FAKE_TABLE_OFFSET) "]\n"
                                                       "    br x17\n"
                                                       "1:  mov x1, #0\n"
                                                       "    movi d0, #0\n"
                                                       "    movi d1, #0\n"
                                                       "    movi d2, #0\n"
                                                       "    movi d3, #0\n"
                                                       "    ret\n"
                                                       ".size objc_msgSend, .-objc_msgSend\n"
                                                       ".popsection\n");

#else
#error "the send path is written for x86-64 and aarch64"
#endif
