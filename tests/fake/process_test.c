/* What a process is told by its environment, and how it ends that breaks a rule. */
#include "world.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *self;

/* ---- what the other process does ---- */

static int child_break(void)
{
    id device = MTLCreateSystemDefaultDevice();
    release(device);
    (void)buffer_length(device);
    return 0;
}

/* The number of a device's answers that are as its environment says. */
static int child_options(void)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    void *pool = objc_autoreleasePoolPush();
    id all = MTLCopyAllDevices();
    id first = array_at(all, 0);
    int right = array_count(all) == 3;
    right += strcmp(string_text(SEND0(id, first, "name")), "Some GPU") == 0;
    right += !SEND0(bool, first, "hasUnifiedMemory");
    right += !SEND(bool, (id, SEL, int64_t), first, "supportsFamily:", 1001);
    right += SEND0(ns_uint, first, "maxBufferLength") == 65536;
    right += options.page == 16384 && options.record;
    release(all);
    objc_autoreleasePoolPop(pool);
    return right;
}

/* 2: the kernel of the library ran. */
static int child_kernel(void)
{
    static const char text[] = "kernel void twice(device uint *x [[buffer(0)]],\n"
                               "                  uint i [[thread_position_in_grid]])\n"
                               "{ x[i] *= 2; }\n";
    void *pool = objc_autoreleasePoolPush();
    id error = NULL;
    id device = MTLCreateSystemDefaultDevice();
    id queue = device_queue(device, 4);
    id library = device_library(device, world_string(text), NULL, &error);
    id function = library_function(library, world_string("twice"));
    id pipeline = device_pipeline(device, function, &error);
    int result = 1;
    if (pipeline != NULL) {
        id buffer = device_buffer(device, 4, SHARED);
        uint32_t *word = buffer_contents(buffer);
        *word = 1;
        id command = queue_command(queue);
        id encoder = command_compute(command);
        compute_pipeline(encoder, pipeline);
        compute_buffer(encoder, buffer, 0, 0);
        compute_dispatch(encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
        end_encoding(encoder);
        result = world_run(command) == COMPLETED ? (int)*word : 1;
        release(buffer);
    }
    release(pipeline);
    release(function);
    release(library);
    release(queue);
    release(device);
    objc_autoreleasePoolPop(pool);
    return result;
}

static int child_run(const char *what)
{
    if (strcmp(what, "break") == 0) {
        return child_break();
    }
    return strcmp(what, "options") == 0 ? child_options() : child_kernel();
}

/* ---- and how it ends ---- */

/* The wait status; writes what stands on the error output. */
static int child(const char *what, const char *variable, const char *value, char *out,
                 size_t size_bytes)
{
    int ends[2];
    int status = 0;
    pid_t pid = 0;
    size_t used = 0;
    ssize_t got;
    posix_spawn_file_actions_t actions;
    char *program = strdup(self);
    char *argument = strdup(what);
    char *arguments[] = {program, argument, NULL};
    assert_int_equal(unsetenv("FAKE_METAL"), 0);
    assert_int_equal(unsetenv("FAKE_METAL_KERNELS"), 0);
    assert_int_equal(setenv(variable, value, 1), 0);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO), 0);
    assert_int_equal(posix_spawn_file_actions_addclose(&actions, ends[0]), 0);
    assert_int_equal(posix_spawn(&pid, self, &actions, NULL, arguments, environ), 0);
    assert_int_equal(close(ends[1]), 0);
    while (used + 1 < size_bytes && (got = read(ends[0], out + used, size_bytes - used - 1)) > 0) {
        used += (size_t)got;
    }
    out[used] = 0;
    assert_int_equal(close(ends[0]), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
    assert_int_equal(unsetenv(variable), 0);
    free(argument);
    free(program);
    return status;
}

static void aborts(const char *what, const char *variable, const char *value, const char *words)
{
    char out[2048];
    const int status = child(what, variable, value, out, sizeof out);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    if (strstr(out, words) == NULL) {
        fail_msg("'%s' is not in: %s", words, out);
    }
}

static void exits(const char *what, const char *variable, const char *value, int code)
{
    char out[2048];
    const int status = child(what, variable, value, out, sizeof out);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) {
        fail_msg("wait status %#x, not an exit with %d: %s", (unsigned)status, code, out);
    }
}

static void a_broken_rule_aborts_with_its_name(void **state)
{
    (void)state;
    aborts("break", "FAKE_METAL", "record=0",
           "fake metal: zombie: length was sent to a freed MTLDevice");
}

static void a_broken_rule_is_counted_while_recording(void **state)
{
    (void)state;
    exits("break", "FAKE_METAL", "record=1", 0);
}

static void the_environment_sets_the_options(void **state)
{
    (void)state;
    exits("options", "FAKE_METAL",
          "devices=3,name=Some GPU,unified=0,buffer_max=0x10000,page=16384,record=1", 6);
}

static void an_environment_that_makes_no_sense_aborts(void **state)
{
    (void)state;
    aborts("options", "FAKE_METAL", "bogus=1", "FAKE_METAL: bogus");
    aborts("options", "FAKE_METAL", "page", "FAKE_METAL: page");
    aborts("options", "FAKE_METAL", "page=many", "FAKE_METAL: many");
    aborts("options", "FAKE_METAL", "page=", "FAKE_METAL: ");
}

static void kernels_come_from_a_library(void **state)
{
    (void)state;
    exits("kernel", "FAKE_METAL_KERNELS", FAKE_KERNELS, 2);
    exits("kernel", "FAKE_METAL_KERNELS", ":" FAKE_KERNELS ":", 2);
    exits("kernel", "FAKE_METAL_KERNELS", "", 1);
}

static void a_library_that_is_none_aborts(void **state)
{
    (void)state;
    aborts("kernel", "FAKE_METAL_KERNELS", "/nonexistent.so", "FAKE_METAL_KERNELS");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_rule_aborts_with_its_name),
        cmocka_unit_test(a_broken_rule_is_counted_while_recording),
        cmocka_unit_test(the_environment_sets_the_options),
        cmocka_unit_test(an_environment_that_makes_no_sense_aborts),
        cmocka_unit_test(kernels_come_from_a_library),
        cmocka_unit_test(a_library_that_is_none_aborts),
    };
    if (argc > 1) {
        return child_run(argv[1]);
    }
    self = argv[0];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
