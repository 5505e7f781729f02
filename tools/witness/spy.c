/*
 * The symbol spy: counts the bytes that pass through the copy functions of libc and of the device
 * drivers, by the library that called them. Preloaded (LD_PRELOAD) into any program, above all a
 * tritonserver.
 *
 * It is one of three witnesses because it is blind where no symbol is called: a copy by intrinsics,
 * by `rep movsb`, by a loop, by a compiler's inlined memcpy, inside libc itself or by a system call
 * is not seen here. The census of dirtied pages (census.c) and the slope of instructions over the
 * tensor's size see those.
 *
 * The decision that shaped it: a hook may run before any constructor, in a signal handler and on
 * any thread, so it only finds the caller and adds to two counters (spy_table.c). dlsym is hooked
 * too, since a library that opens its driver at run time never binds to the symbols here; its own
 * return address must reach the real dlsym unchanged (RTLD_NEXT depends on it), hence the few lines
 * of assembly.
 */
#include "spy_table.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "census.h"
#include "hooks.h"

/* string.h is left out: its fortified macros would replace the definitions below. */
#define HOOK __attribute__((visibility("default"), noinline))
#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

HOOK void *memcpy(void *restrict to, const void *restrict from, size_t size_bytes);
HOOK void *memmove(void *to, const void *from, size_t size_bytes);
HOOK void *mempcpy(void *restrict to, const void *restrict from, size_t size_bytes);
HOOK void *__mempcpy(void *restrict to, const void *restrict from, size_t size_bytes);
HOOK void *memset(void *to, int value, size_t size_bytes);
HOOK void bcopy(const void *from, void *to, size_t size_bytes);
HOOK void *__memcpy_chk(void *restrict to, const void *restrict from, size_t size_bytes,
                        size_t room_bytes);
HOOK void *__memmove_chk(void *to, const void *from, size_t size_bytes, size_t room_bytes);
HOOK void *__mempcpy_chk(void *restrict to, const void *restrict from, size_t size_bytes,
                         size_t room_bytes);
HOOK void *__memset_chk(void *to, int value, size_t size_bytes, size_t room_bytes);
void __chk_fail(void) __attribute__((noreturn));

typedef void *move_function(void *, const void *, size_t);
typedef void *set_function(void *, int, size_t);

static move_function *real_memmove;
static set_function *real_memset;
static bool is_ready;
static char spy_path[4096 - 64];

/*
 * memcpy is answered by memmove as well: an old program that binds memcpy@GLIBC_2.2.5 was promised
 * that overlap works, and on the machines we know both are one function.
 */
static void *move(void *to, const void *from, size_t size_bytes)
{
    move_function *real = __atomic_load_n(&real_memmove, __ATOMIC_ACQUIRE);
    if (real != NULL) {
        return real(to, from, size_bytes);
    }
    /* Before our constructor: a copy that needs nothing, in the direction that overlap allows. */
    if ((uintptr_t)to - (uintptr_t)from >= size_bytes) {
        umo_spy_bytes_copy(to, from, size_bytes);
    } else {
        volatile unsigned char *out = to;
        const volatile unsigned char *in = from;
        for (size_t i = size_bytes; i > 0; i--) {
            out[i - 1] = in[i - 1];
        }
    }
    return to;
}

static void *fill(void *to, int value, size_t size_bytes)
{
    set_function *real = __atomic_load_n(&real_memset, __ATOMIC_ACQUIRE);
    if (real != NULL) {
        return real(to, value, size_bytes);
    }
    umo_spy_bytes_set(to, value, size_bytes);
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size_bytes)
{
    umo_spy_call_count(UMO_SPY_MEMCPY, size_bytes, CALLER);
    return move(to, from, size_bytes);
}

void *memmove(void *to, const void *from, size_t size_bytes)
{
    umo_spy_call_count(UMO_SPY_MEMMOVE, size_bytes, CALLER);
    return move(to, from, size_bytes);
}

void *mempcpy(void *restrict to, const void *restrict from, size_t size_bytes)
{
    umo_spy_call_count(UMO_SPY_MEMPCPY, size_bytes, CALLER);
    return (char *)move(to, from, size_bytes) + size_bytes;
}

void *__mempcpy(void *restrict to, const void *restrict from, size_t size_bytes)
{
    umo_spy_call_count(UMO_SPY_MEMPCPY, size_bytes, CALLER);
    return (char *)move(to, from, size_bytes) + size_bytes;
}

void bcopy(const void *from, void *to, size_t size_bytes)
{
    umo_spy_call_count(UMO_SPY_BCOPY, size_bytes, CALLER);
    move(to, from, size_bytes);
}

void *memset(void *to, int value, size_t size_bytes)
{
    umo_spy_call_count(UMO_SPY_MEMSET, size_bytes, CALLER);
    return fill(to, value, size_bytes);
}

void *__memcpy_chk(void *restrict to, const void *restrict from, size_t size_bytes,
                   size_t room_bytes)
{
    if (size_bytes > room_bytes) {
        __chk_fail();
    }
    umo_spy_call_count(UMO_SPY_MEMCPY_CHK, size_bytes, CALLER);
    return move(to, from, size_bytes);
}

void *__memmove_chk(void *to, const void *from, size_t size_bytes, size_t room_bytes)
{
    if (size_bytes > room_bytes) {
        __chk_fail();
    }
    umo_spy_call_count(UMO_SPY_MEMMOVE_CHK, size_bytes, CALLER);
    return move(to, from, size_bytes);
}

void *__mempcpy_chk(void *restrict to, const void *restrict from, size_t size_bytes,
                    size_t room_bytes)
{
    if (size_bytes > room_bytes) {
        __chk_fail();
    }
    umo_spy_call_count(UMO_SPY_MEMPCPY_CHK, size_bytes, CALLER);
    return (char *)move(to, from, size_bytes) + size_bytes;
}

void *__memset_chk(void *to, int value, size_t size_bytes, size_t room_bytes)
{
    if (size_bytes > room_bytes) {
        __chk_fail();
    }
    umo_spy_call_count(UMO_SPY_MEMSET_CHK, size_bytes, CALLER);
    return fill(to, value, size_bytes);
}

/* ---- dlsym ---- */

/* Read by the assembly below. */
void *umo_spy_dlsym_real __attribute__((visibility("hidden")));
void *umo_spy_dlsym_choose(void *handle, const char *name) __attribute__((visibility("hidden")));

static void *dlsym_real(void)
{
    void *real = __atomic_load_n(&umo_spy_dlsym_real, __ATOMIC_ACQUIRE);
    if (real == NULL) {
        static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"};
        for (size_t i = 0; i < sizeof versions / sizeof *versions && real == NULL; i++) {
            real = dlvsym(RTLD_NEXT, "dlsym", versions[i]);
        }
        __atomic_store_n(&umo_spy_dlsym_real, real, __ATOMIC_RELEASE);
    }
    return real;
}

void *umo_spy_symbol_find(void *handle, const char *name)
{
    union {
        void *object;
        void *(*function)(void *, const char *);
    } real = {dlsym_real()};
    return real.function == NULL ? NULL : real.function(handle, name);
}

/* What dlsym is to return, or NULL: then the real one answers, with the caller's own return
 * address. */
void *umo_spy_dlsym_choose(void *handle, const char *name)
{
    dlsym_real();
    if (handle == RTLD_NEXT || name == NULL) {
        return NULL; /* somebody else's hook, looking for what comes after it */
    }
    return umo_spy_hook_find(handle, name);
}

#if defined(__x86_64__)
__asm__(".text\n"
        ".globl dlsym\n"
        ".type dlsym, @function\n"
        "dlsym:\n"
        "    .cfi_startproc\n"
        "    endbr64\n"
        "    pushq %rdi\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    pushq %rsi\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    subq $8, %rsp\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    call umo_spy_dlsym_choose\n"
        "    addq $8, %rsp\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    popq %rsi\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    popq %rdi\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    testq %rax, %rax\n"
        "    jne 1f\n"
        "    jmpq *umo_spy_dlsym_real(%rip)\n"
        "1:  ret\n"
        "    .cfi_endproc\n"
        ".size dlsym, . - dlsym\n");
#elif defined(__aarch64__)
__asm__(".text\n"
        ".globl dlsym\n"
        ".type dlsym, %function\n"
        "dlsym:\n"
        "    .cfi_startproc\n"
        "    stp x29, x30, [sp, #-32]!\n"
        "    .cfi_def_cfa_offset 32\n"
        "    .cfi_offset 29, -32\n"
        "    .cfi_offset 30, -24\n"
        "    stp x0, x1, [sp, #16]\n"
        "    bl umo_spy_dlsym_choose\n"
        "    mov x16, x0\n"
        "    ldp x0, x1, [sp, #16]\n"
        "    ldp x29, x30, [sp], #32\n"
        "    .cfi_def_cfa_offset 0\n"
        "    cbnz x16, 1f\n"
        "    adrp x16, umo_spy_dlsym_real\n"
        "    ldr x16, [x16, :lo12:umo_spy_dlsym_real]\n"
        "    br x16\n"
        "1:  mov x0, x16\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size dlsym, . - dlsym\n");
#endif

/* libc's own functions asked for by name: what is handed out must be counted as well. */
void *umo_spy_host_hook_find(const char *name)
{
#define HOST_HOOK(function)                                                                        \
    {                                                                                              \
#function,                                                                                 \
        {                                                                                          \
            .code = (void (*)(void))function                                                       \
        }                                                                                          \
    }
    static const struct {
        const char *name;
        union {
            void (*code)(void);
            void *object;
        };
    } hooks[] = {
        HOST_HOOK(memcpy),       HOST_HOOK(memmove),       HOST_HOOK(mempcpy),
        HOST_HOOK(__mempcpy),    HOST_HOOK(memset),        HOST_HOOK(bcopy),
        HOST_HOOK(__memcpy_chk), HOST_HOOK(__memmove_chk), HOST_HOOK(__mempcpy_chk),
        HOST_HOOK(__memset_chk),
    };
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        if (umo_spy_names_equal(hooks[i].name, name)) {
            return hooks[i].object;
        }
    }
    return NULL;
}

/* ---- Start ---- */

static void child_start(void)
{
    /* A forked child counts in its own file; it has no helper thread, and needs none. */
    if (spy_path[0] != '\0') {
        umo_spy_table_attach(spy_path);
    }
}

__attribute__((constructor)) static void spy_start(void)
{
    if (__atomic_exchange_n(&is_ready, true, __ATOMIC_ACQ_REL)) {
        return;
    }
    union {
        void *object;
        move_function *move;
        set_function *set;
    } real;
    real.object = umo_spy_symbol_find(RTLD_NEXT, "memmove");
    __atomic_store_n(&real_memmove, real.move, __ATOMIC_RELEASE);
    real.object = umo_spy_symbol_find(RTLD_NEXT, "memset");
    __atomic_store_n(&real_memset, real.set, __ATOMIC_RELEASE);

    const char *path = getenv("UMO_SPY_FILE");
    if (path == NULL || path[0] == '\0') {
        return;
    }
    size_t length = 0;
    while (path[length] != '\0' && length < sizeof spy_path - 1) {
        spy_path[length] = path[length];
        length++;
    }
    spy_path[path[length] == '\0' ? length : 0] = '\0';
    if (spy_path[0] == '\0' || umo_spy_table_attach(spy_path) != 0) {
        return;
    }
    pthread_atfork(NULL, NULL, child_start);
    const char *census = getenv("UMO_SPY_CENSUS");
    if (census != NULL && census[0] == '1') {
        umo_census_start(umo_spy_table_file());
    }
}
