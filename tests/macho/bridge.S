/*
 * What C cannot say. An Apple variadic call has its named arguments in registers and all others on
 * the stack, in slots of 8 bytes: at a function's entry sp points to the first. So a bridge passes
 * sp on as one more argument, to a C function that reads the slots.
 */
    .text

    .macro variadic name, area
    .globl bridge_\name
    .type bridge_\name, %function
    .balign 4
bridge_\name:
    mov \area, sp
    b bridge_area_\name
    .size bridge_\name, . - bridge_\name
    .endm

    variadic printf, x1
    variadic fprintf, x2
    variadic dprintf, x2
    variadic asprintf, x2
    variadic sprintf, x2
    variadic snprintf, x3
    variadic sprintf_chk, x4
    variadic snprintf_chk, x5
    variadic sscanf, x2
    variadic fscanf, x2
    variadic open, x2
    variadic openat, x3
    variadic shm_open, x2
    variadic fcntl, x2
    variadic ioctl, x2

/*
 * int setjmp(jmp_buf): Darwin's buffer has room for 48 ints; 22 doublewords are used here and 1 by
 * the signal mask, which setjmp keeps and _setjmp does not. sigsetjmp says which in a 49th int.
 */
    .macro keep_registers
    stp x19, x20, [x0, #0]
    stp x21, x22, [x0, #16]
    stp x23, x24, [x0, #32]
    stp x25, x26, [x0, #48]
    stp x27, x28, [x0, #64]
    stp x29, x30, [x0, #80]
    mov x2, sp
    str x2, [x0, #96]
    stp d8, d9, [x0, #112]
    stp d10, d11, [x0, #128]
    stp d12, d13, [x0, #144]
    stp d14, d15, [x0, #160]
    .endm

    .globl bridge_setjmp
    .type bridge_setjmp, %function
bridge_setjmp:
    keep_registers
    b bridge_mask_keep
    .size bridge_setjmp, . - bridge_setjmp

    .globl bridge_setjmp_plain
    .type bridge_setjmp_plain, %function
bridge_setjmp_plain:
    keep_registers
    mov w0, #0
    ret
    .size bridge_setjmp_plain, . - bridge_setjmp_plain

    .globl bridge_sigsetjmp
    .type bridge_sigsetjmp, %function
bridge_sigsetjmp:
    str w1, [x0, #192]
    cbz w1, bridge_setjmp_plain
    b bridge_setjmp
    .size bridge_sigsetjmp, . - bridge_sigsetjmp

    .globl bridge_siglongjmp
    .type bridge_siglongjmp, %function
bridge_siglongjmp:
    ldr w2, [x0, #192]
    cbz w2, bridge_longjmp_plain
    .size bridge_siglongjmp, . - bridge_siglongjmp
    /* else on to bridge_longjmp */

    .globl bridge_longjmp
    .type bridge_longjmp, %function
bridge_longjmp:
    mov x19, x0
    mov x20, x1
    bl bridge_mask_restore
    mov x0, x19
    mov x1, x20
    /* on to bridge_longjmp_plain */
    .size bridge_longjmp, . - bridge_longjmp

    .globl bridge_longjmp_plain
    .type bridge_longjmp_plain, %function
bridge_longjmp_plain:
    ldp x19, x20, [x0, #0]
    ldp x21, x22, [x0, #16]
    ldp x23, x24, [x0, #32]
    ldp x25, x26, [x0, #48]
    ldp x27, x28, [x0, #64]
    ldp x29, x30, [x0, #80]
    ldr x2, [x0, #96]
    mov sp, x2
    ldp d8, d9, [x0, #112]
    ldp d10, d11, [x0, #128]
    ldp d12, d13, [x0, #144]
    ldp d14, d15, [x0, #160]
    cmp w1, #0
    csinc w0, w1, wzr, ne
    ret
    .size bridge_longjmp_plain, . - bridge_longjmp_plain

/* The getter of a thread-local variable: x0 is its descriptor, then its address; the caller counts
 * on every other register. */
    .globl macho_tlv_get
    .type macho_tlv_get, %function
macho_tlv_get:
    stp x29, x30, [sp, #-16]!
    mov x29, sp
    sub sp, sp, #(18 * 8 + 32 * 16)
    stp x1, x2, [sp, #0]
    stp x3, x4, [sp, #16]
    stp x5, x6, [sp, #32]
    stp x7, x8, [sp, #48]
    stp x9, x10, [sp, #64]
    stp x11, x12, [sp, #80]
    stp x13, x14, [sp, #96]
    stp x15, x16, [sp, #112]
    str x17, [sp, #128]
    add x16, sp, #144
    .irp n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
    str q\n, [x16], #16
    .endr
    .irp n, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
    str q\n, [x16], #16
    .endr
    bl macho_tlv_address
    add x16, sp, #144
    .irp n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
    ldr q\n, [x16], #16
    .endr
    .irp n, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
    ldr q\n, [x16], #16
    .endr
    ldp x1, x2, [sp, #0]
    ldp x3, x4, [sp, #16]
    ldp x5, x6, [sp, #32]
    ldp x7, x8, [sp, #48]
    ldp x9, x10, [sp, #64]
    ldp x11, x12, [sp, #80]
    ldp x13, x14, [sp, #96]
    ldp x15, x16, [sp, #112]
    ldr x17, [sp, #128]
    add sp, sp, #(18 * 8 + 32 * 16)
    ldp x29, x30, [sp], #16
    ret
    .size macho_tlv_get, . - macho_tlv_get

    .section .note.GNU-stack, "", %progbits
