/* Libraries, functions and pipelines on the fake: what is refused, what reflection tells, what
 * runs. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- text ---- */

static id library_try(const world *w, const char *text, id *error)
{
    *error = NULL;
    return device_library(w->device, world_string(text), NULL, error);
}

static void accepts(const world *w, const char *text)
{
    id error;
    id library = library_try(w, text, &error);
    if (library == NULL) {
        fail_msg("refused: %s\n%s", text, world_words(error));
    }
    release(library);
}

static void refuses(const world *w, const char *text, const char *words)
{
    id error;
    id library = library_try(w, text, &error);
    if (library != NULL) {
        fail_msg("accepted: %s", text);
    }
    assert_int_equal(error_code(error), 3);
    if (strstr(world_words(error), words) == NULL) {
        fail_msg("'%s' is not in: %s", words, world_words(error));
    }
    assert_non_null(strstr(world_words(error), "error:"));
    assert_int_equal(fake_metal_violations(), 0);
}

static void text_that_compiles_is_accepted(void **state)
{
    world *w = *state;
    accepts(w, "");
    accepts(w, "// a comment without end");
    accepts(w, "/* { */ // (\n\"[\\\"\"; '(';");
    accepts(w, "struct point { float x; float y; };\n"
               "kernel void f(constant point &p [[buffer(0)]], device float *o [[buffer(1)]])\n"
               "{ o[0] = p.x * 2.0f + 0x1fu; }\n");
    accepts(w, "kernel void f() {}");
    accepts(w, "kernel void f(void) {}");
    accepts(w, "[[kernel]] void f(device int *x, constant int &n, threadgroup int *t,\n"
               "                  uint i [[thread_position_in_grid]]) { x[i] = n + t[0]; }");
    accepts(w, "kernel void f(texture2d<float, access::read> t [[texture(0)]],\n"
               "              sampler s [[sampler(15)]]) {}");
}

static void unbalanced_text_is_refused(void **state)
{
    world *w = *state;
    refuses(w, "kernel void f() {", "program_source:1:18: error: expected '}'");
    refuses(w, "void f() { int x[2; }", "program_source:1:21: error: expected ']'");
    refuses(w, "void f(\n) }", "program_source:2:3: error: extraneous closing bracket");
    refuses(w, "int a;\n/* never ends", "program_source:2:1: error: unterminated /* comment");
    refuses(w, "const constant char *s = \"never ends\n;", "missing terminating '\"'");
}

static void an_error_directive_is_refused(void **state)
{
    world *w = *state;
    refuses(w, "int a;\n#error no such device\n", "2:2: error: no such device");
    refuses(w, "#  error indented", "error: indented");
}

static void dropped_branches_do_not_count(void **state)
{
    world *w = *state;
    accepts(w, "#if 0\n#error dropped\n}}}\n#endif\n");
    accepts(w, "#ifdef NOPE\n#error dropped\n#elif defined(__METAL_VERSION__) && "
               "__METAL_VERSION__ >= 200\n#else\n#error dropped\n#endif\n");
    accepts(w, "#define N 3\n#if N == 3 && !defined(M) || 0\n#define M\n#else\n(\n#endif\n"
               "#ifndef M\n(\n#endif\n");
    accepts(w, "#define A B\n#define B A\n#if A\n(\n#endif\n");
    accepts(w, "#if 0\n#if 1\n(\n#else\n(\n#endif\n#else\nint a;\n#endif\n");
    accepts(w, "#define LONG 1 + \\\n  (\nint a;\n");
    accepts(w, "#if 0 || \\\n 0\n(\n#endif\n");
    accepts(w, "#if 2u == 2UL && 3 <= 3 && 3 >= 3 && !(2 < 2) && !(2 > 2) && 2 != 3\n#else\n(\n"
               "#endif\n");
    accepts(w, "#define N 3\n#if N + 1 == 4 && 7 - N - 1 == 3 && -N < 0\n#else\n(\n#endif\n");
    accepts(w, "#if (1 || 0) && (0 || 1) && !(1 && 0)\n#else\n(\n#endif\n");
    accepts(w, "#if __has_include(<nothing>) || unknown\n(\n#endif\n");
    accepts(w, "#define X 1\n#undef X\n#if defined X\n(\n#endif");
    refuses(w, "#if 1\n#error kept\n#endif\n", "2:2: error: kept");
    refuses(w, "#if -1 < 0 && (2 > 1)\n#error kept\n#endif\n", "error: kept");
    refuses(w, "#if 0\n#elif 1\n#error kept\n#else\n#error dropped\n#endif\n", "error: kept");
    refuses(w, "#if 1\n", "unterminated conditional directive");
    refuses(w, "int a;\n  #endif\n", "2:4: error: #endif without #if");
    refuses(w, "\n#if 1\n", "2:2: error: unterminated conditional directive");
    refuses(w, "// #if 1\n#else\n", "#else without #if");
}

static void unknown_names_are_refused(void **state)
{
    world *w = *state;
    refuses(w, "kernel void f(device float *x [[buffer(0)]])\n{\n    x[0] = no_such_name;\n}\n",
            "program_source:3:12: error: use of undeclared identifier 'no_such_name'");
    refuses(w, "__kernel void f() {}", "unknown type name '__kernel'");
}

static void unknown_attributes_are_refused(void **state)
{
    world *w = *state;
    refuses(w, "kernel void f(device int *x [[buffet(0)]]) {}", "unknown attribute 'buffet'");
    refuses(w, "kernel void f(uint i [[thread_position_in_gird]]) {}",
            "1:24: error: unknown attribute 'thread_position_in_gird'");
}

static void parameters_that_no_kernel_can_have_are_refused(void **state)
{
    world *w = *state;
    refuses(w, "kernel void f(device int *x [[buffer(31)]]) {}", "out of bounds");
    refuses(w, "kernel void f(device int *x [[buffer]]) {}", "out of bounds or no number");
    refuses(w, "kernel void f(device int *x [[buffer(-1)]]) {}", "out of bounds");
    refuses(w, "kernel void f(int n) {}", "invalid type 'int' for input declaration");
    refuses(w, "kernel void f(int *n [[buffer(0)]]) {}", "'buffer' attribute only applies");
    refuses(w, "kernel void f(threadgroup int *n [[buffer(0)]]) {}", "'buffer' attribute");
    refuses(w, "kernel void f(device int *n [[threadgroup(0)]]) {}", "'threadgroup' attribute");
    refuses(w, "kernel void f(device int *x [[buffer(1)]], device int *y [[buffer(1)]]) {}",
            "cannot reserve resource location of 'y'");
}

/* "kernel void f(" and count parameters that take a place by themselves. */
static void list_write(char *out, size_t size_bytes, unsigned count)
{
    size_t used = (size_t)snprintf(out, size_bytes, "kernel void f(");
    for (unsigned i = 0; i < count; i++) {
        used += (size_t)snprintf(out + used, size_bytes - used, "%sdevice int *x%u",
                                 i == 0 ? "" : ", ", i);
    }
    (void)snprintf(out + used, size_bytes - used, ") {}");
}

static void a_kernel_has_31_buffers_at_most(void **state)
{
    world *w = *state;
    char text[4096];
    list_write(text, sizeof text, 31);
    accepts(w, text);
    list_write(text, sizeof text, 32);
    refuses(w, text, "no resource location available for 'x31'");
    list_write(text, sizeof text, 120);
    refuses(w, text, "too many parameters");
    refuses(w, "kernel void f(device x [[buffer(0)]]) {}", "expected a type and a name, not 'x'");
}

static void long_and_deep_text_is_read(void **state)
{
    world *w = *state;
    const size_t size_bytes = 30000;
    char *text = malloc(size_bytes + 1);
    assert_non_null(text);
    memset(text, '(', size_bytes);
    text[size_bytes] = 0;
    refuses(w, text, "bracket nesting level exceeded");
    memset(text, ')', size_bytes);
    refuses(w, text, "extraneous closing bracket");
    memset(text, '\n', size_bytes);
    memcpy(text + size_bytes - 7, "#error ", 7);
    refuses(w, text, "program_source:29994:2: error:");
    for (size_t i = 0; i + 6 <= size_bytes; i += 6) {
        memcpy(text + i, "#if 1\n", 6);
    }
    refuses(w, text, "conditionals too deep");
    for (size_t i = 0; i + 6 <= size_bytes; i += 6) {
        memcpy(text + i, "a__b =", 6);
    }
    accepts(w, text);
    free(text);
}

static void text_that_is_not_utf8_makes_no_string(void **state)
{
    (void)state;
    assert_null(world_string("\xff\xfe"));
    assert_null(world_string("\xe2\x82"));
    assert_null(world_string("\xf5\x80\x80\x80"));
    assert_null(world_string("\xc1\x80"));
    assert_string_equal(string_text(world_string("\xe2\x82\xac")), "\xe2\x82\xac");
    assert_non_null(world_string("\xc3\xa4 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbd"));
    assert_non_null(world_string("\xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf"));
}

/* ---- functions ---- */

static void functions_are_found_by_name(void **state)
{
    world *w = *state;
    id library = world_library(w, "// kernel void dropped() {}\n"
                                  "void helper() {}\n"
                                  "kernel void one() {}\n"
                                  "kernel  void\n two ( ) {}\n");
    id names = SEND0(id, library, "functionNames");
    assert_int_equal(array_count(names), 2);
    assert_string_equal(string_text(array_at(names, 1)), "two");
    id two = library_function(library, world_string("two"));
    assert_string_equal(string_text(SEND0(id, two, "name")), "two");
    assert_null(library_function(library, world_string("dropped")));
    assert_null(library_function(library, world_string("helper")));
    assert_null(library_function(library, world_string("tw")));
    assert_null(library_function(library, world_string("")));
    fake_metal_fail("newFunctionWithName:", 1);
    assert_null(library_function(library, world_string("two")));
    release(library);
    release(two);
}

/* ---- pipelines ---- */

static void run_nothing(void *const *args, const size_t global[3])
{
    (void)args;
    (void)global;
}

static void kernel_register(const char *name, const fake_metal_binding *bindings, size_t count)
{
    const fake_metal_kernel kernel = {
        .name = name, .run = run_nothing, .bindings = bindings, .binding_count = count};
    fake_metal_kernel_register(&kernel);
}

/* The pipeline of the kernel "f", and its bindings or the error. */
static id pipeline_of(const world *w, const char *text, id *bindings, id *error)
{
    id reflection = NULL;
    id library = world_library(w, text);
    id function = library_function(library, world_string("f"));
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    *error = NULL;
    describe_function(descriptor, function);
    id pipeline = device_pipeline_described(w->device, descriptor, 3, &reflection, error);
    *bindings = reflection_bindings(reflection);
    release(descriptor);
    release(function);
    release(library);
    return pipeline;
}

static void assert_binding(id bindings, ns_uint at, int64_t type, ns_uint index, ns_uint access,
                           bool used)
{
    id binding = array_at(bindings, at);
    assert_int_equal(SEND0(int64_t, binding, "type"), type);
    assert_int_equal(SEND0(ns_uint, binding, "index"), index);
    assert_int_equal(SEND0(ns_uint, binding, "access"), access);
    assert_int_equal(SEND0(bool, binding, "isUsed"), used);
}

static void assert_buffer_size(id bindings, ns_uint at, ns_uint bytes, ns_uint align)
{
    id binding = array_at(bindings, at);
    assert_int_equal(SEND0(ns_uint, binding, "bufferDataSize"), bytes);
    assert_int_equal(SEND0(ns_uint, binding, "bufferAlignment"), align);
}

static void reflection_reads_the_signature(void **state)
{
    world *w = *state;
    id bindings;
    id error;
    kernel_register("f", NULL, 0);
    id pipeline = pipeline_of(
        w,
        "kernel void f(device const uchar *from [[buffer(2)]], device float4 *to [[buffer(0)]],\n"
        "              const device packed_float3 *p [[buffer(5)]],\n"
        "              constant float3 &by [[ buffer( 30 ) ]], threadgroup half *part "
        "[[threadgroup(1)]],\n"
        "              constant int *unused [[buffer(4)]], uint3 at "
        "[[thread_position_in_grid]])\n"
        "{ to[at.x] = from[0] + p[0].x + by.x + part[0]; }",
        &bindings, &error);
    assert_non_null(pipeline);
    assert_int_equal(array_count(bindings), 6);
    assert_binding(bindings, 0, 0, 2, 0, true);
    assert_buffer_size(bindings, 0, 1, 1);
    assert_binding(bindings, 1, 0, 0, 1, true);
    assert_buffer_size(bindings, 1, 16, 16);
    assert_binding(bindings, 2, 0, 5, 0, true);
    assert_buffer_size(bindings, 2, 12, 4);
    assert_binding(bindings, 3, 0, 30, 0, true);
    assert_buffer_size(bindings, 3, 16, 16);
    assert_binding(bindings, 4, 1, 1, 0, true);
    assert_int_equal(SEND0(ns_uint, array_at(bindings, 4), "threadgroupMemoryDataSize"), 2);
    assert_binding(bindings, 5, 0, 4, 0, false);
    assert_string_equal(string_text(SEND0(id, array_at(bindings, 5), "name")), "unused");
    release(pipeline);
}

static void sizes_are_those_of_the_language(void **state)
{
    static const struct {
        const char *type;
        ns_uint bytes;
        ns_uint align;
    } types[] = {{"bool", 1, 1},          {"char", 1, 1},          {"uint8_t", 1, 1},
                 {"half", 2, 2},          {"ushort", 2, 2},        {"int", 4, 4},
                 {"unsigned int", 4, 4},  {"float", 4, 4},         {"ulong", 8, 8},
                 {"size_t", 8, 8},        {"uchar2", 2, 2},        {"uchar3", 4, 4},
                 {"uchar4", 4, 4},        {"packed_uchar3", 3, 1}, {"packed_half4", 8, 2},
                 {"float2", 8, 8},        {"float3", 16, 16},      {"float4", 16, 16},
                 {"packed_float2", 8, 4}, {"long3", 32, 32},       {"atomic_uint", 4, 4}};
    static const char *const unknown[] = {"x", "xy", "float5", "float1", "packed_", "packed_x3"};
    world *w = *state;
    char text[200];
    kernel_register("f", NULL, 0);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        id bindings;
        id error;
        (void)snprintf(text, sizeof text, "kernel void f(device %s *p [[buffer(0)]]) {}",
                       types[i].type);
        id pipeline = pipeline_of(w, text, &bindings, &error);
        assert_non_null(pipeline);
        assert_buffer_size(bindings, 0, types[i].bytes, types[i].align);
        release(pipeline);
    }
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        id bindings;
        id error;
        (void)snprintf(text, sizeof text,
                       "struct %s { int a; };\nkernel void f(device %s *p [[buffer(0)]]) {}",
                       unknown[i], unknown[i]);
        assert_null(pipeline_of(w, text, &bindings, &error));
        assert_non_null(strstr(world_words(error), "the size of p"));
    }
}

static void a_parameter_is_used_by_its_own_kernel_only(void **state)
{
    world *w = *state;
    id bindings;
    id error;
    kernel_register("f", NULL, 0);
    id pipeline = pipeline_of(w,
                              "kernel void f(device int *a, device int *b, device int *ab)\n"
                              "{ if (a[0] == 1) { a[1] = 0x2b; } }\n"
                              "kernel void g(device int *b) { b[0] = 1; }\n",
                              &bindings, &error);
    assert_non_null(pipeline);
    assert_binding(bindings, 0, 0, 0, 1, true);
    assert_binding(bindings, 1, 0, 1, 1, false);
    assert_binding(bindings, 2, 0, 2, 1, false);
    release(pipeline);
}

static void parameters_without_attributes_take_the_free_indices(void **state)
{
    world *w = *state;
    id bindings;
    id error;
    kernel_register("f", NULL, 0);
    id pipeline = pipeline_of(w,
                              "kernel void f(device int *a, device int *b [[buffer(0)]],\n"
                              "              constant int &c, threadgroup int *d) "
                              "{ a[0] = b[0] + c + d[0]; }",
                              &bindings, &error);
    assert_non_null(pipeline);
    assert_binding(bindings, 0, 0, 1, 1, true);
    assert_binding(bindings, 1, 0, 0, 1, true);
    assert_binding(bindings, 2, 0, 2, 0, true);
    assert_binding(bindings, 3, 1, 0, 0, true);
    release(pipeline);
}

static void registered_bindings_tell_what_the_text_does_not(void **state)
{
    static const fake_metal_binding plan[] = {{"plan", FAKE_METAL_BUFFER, 1, false, false, 40, 8},
                                              {"x", FAKE_METAL_BUFFER, 0, true, false, 4, 4}};
    world *w = *state;
    id bindings;
    id error;
    const char *text = "struct plan { long x[5]; };\n"
                       "kernel void f(device int *x [[buffer(0)]], constant plan &p [[buffer(1)]])"
                       " { x[0] = p.x[0]; }";
    kernel_register("f", NULL, 0);
    assert_null(pipeline_of(w, text, &bindings, &error));
    assert_non_null(strstr(world_words(error), "the size of p of f"));
    kernel_register("f", plan, 2);
    id pipeline = pipeline_of(w, text, &bindings, &error);
    assert_non_null(pipeline);
    assert_binding(bindings, 0, 0, 1, 0, true);
    assert_buffer_size(bindings, 0, 40, 8);
    release(pipeline);
}

static void bindings_of_another_text_are_refused(void **state)
{
    static const fake_metal_binding other[] = {{"x", FAKE_METAL_BUFFER, 0, false, false, 4, 4}};
    world *w = *state;
    id bindings;
    id error;
    kernel_register("f", other, 1);
    assert_null(pipeline_of(w, "kernel void f(device int *x [[buffer(0)]]) { x[0] = 1; }",
                            &bindings, &error));
    assert_non_null(strstr(world_words(error), "not those of the text"));
    assert_null(
        pipeline_of(w, "kernel void f(constant int *x [[buffer(1)]]) {}", &bindings, &error));
    assert_null(pipeline_of(w, "kernel void f() {}", &bindings, &error));
    id pipeline =
        pipeline_of(w, "kernel void f(constant int *x [[buffer(0)]]) {}", &bindings, &error);
    assert_non_null(pipeline);
    release(pipeline);
}

static void a_kernel_without_a_function_makes_no_pipeline(void **state)
{
    world *w = *state;
    id error = NULL;
    id library = world_library(w, "kernel void nobody_registered_this() {}");
    id function = library_function(library, world_string("nobody_registered_this"));
    assert_null(device_pipeline(w->device, function, &error));
    assert_non_null(strstr(world_words(error), "nobody_registered_this"));
    assert_null(device_pipeline(w->device, function, NULL));
    release(function);
    release(library);
}

static void a_texture_is_reflected_but_not_bound(void **state)
{
    world *w = *state;
    id bindings;
    id error;
    kernel_register("f", NULL, 0);
    id pipeline = pipeline_of(w,
                              "kernel void f(texture2d<float> t [[texture(100)]],\n"
                              "              device float *x [[buffer(0)]]) "
                              "{ x[0] = t.get_width(); }",
                              &bindings, &error);
    assert_non_null(pipeline);
    assert_binding(bindings, 0, 2, 100, 0, true);
    id buffer = device_buffer(w->device, 64, SHARED);
    id encoder = command_compute(queue_command(w->queue));
    compute_pipeline(encoder, pipeline);
    compute_buffer(encoder, buffer, 0, 0);
    compute_dispatch(encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
    end_encoding(encoder);
    assert_int_equal(fake_metal_rule_violations("binding_missing"), 1);
    world_forgive();
    release(buffer);
    release(pipeline);
}

static void an_unused_parameter_need_not_be_bound(void **state)
{
    world *w = *state;
    id bindings;
    id error;
    kernel_register("f", NULL, 0);
    id pipeline =
        pipeline_of(w, "kernel void f(device int *unused [[buffer(3)]]) {}", &bindings, &error);
    id command = queue_command(w->queue);
    id encoder = command_compute(command);
    compute_pipeline(encoder, pipeline);
    compute_dispatch(encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
    end_encoding(encoder);
    assert_int_equal(world_run(command), COMPLETED);
    release(pipeline);
}

static void pipelines_are_limited_by_kernel_and_device(void **state)
{
    world *w = *state;
    id bindings;
    id error;
    const fake_metal_kernel kernel = {
        .name = "f", .run = run_nothing, .threads_max = 96, .static_local_bytes = 128};
    kernel_register("f", NULL, 0);
    id pipeline = pipeline_of(w, "kernel void f() {}", &bindings, &error);
    assert_int_equal(SEND0(ns_uint, pipeline, "maxTotalThreadsPerThreadgroup"), 1024);
    assert_int_equal(SEND0(ns_uint, pipeline, "threadExecutionWidth"), 32);
    release(pipeline);
    fake_metal_kernel_register(&kernel);
    pipeline = pipeline_of(w, "kernel void f() {}", &bindings, &error);
    assert_int_equal(SEND0(ns_uint, pipeline, "maxTotalThreadsPerThreadgroup"), 96);
    assert_int_equal(SEND0(ns_uint, pipeline, "staticThreadgroupMemoryLength"), 128);
    release(pipeline);
}

static void reflection_comes_only_when_asked_for(void **state)
{
    world *w = *state;
    id reflection = NULL;
    id error = NULL;
    id function = world_function(w, "add_one");
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_function(descriptor, function);
    id pipeline = device_pipeline_described(w->device, descriptor, 0, &reflection, &error);
    assert_non_null(pipeline);
    assert_null(reflection);
    release(pipeline);
    pipeline = device_pipeline_described(w->device, descriptor, 1, NULL, NULL);
    assert_non_null(pipeline);
    release(pipeline);
    release(descriptor);
    release(function);
}

/* ---- running ---- */

static void a_kernel_runs_over_its_grid(void **state)
{
    world *w = *state;
    id pipeline = world_pipeline(w, "add_one");
    id buffer = device_buffer(w->device, 64, SHARED);
    uint32_t *words = buffer_contents(buffer);
    for (uint32_t i = 0; i < 16; i++) {
        words[i] = i;
    }
    id command = queue_command(w->queue);
    id encoder = command_compute(command);
    compute_pipeline(encoder, pipeline);
    compute_buffer(encoder, buffer, 0, 0);
    compute_dispatch(encoder, (mtl_size){16, 1, 1}, (mtl_size){4, 1, 1});
    SEND(void, (id, SEL, ns_uint, ns_uint), encoder, "setBufferOffset:atIndex:", 32, 0);
    compute_dispatch_groups(encoder, (mtl_size){2, 1, 1}, (mtl_size){4, 1, 1});
    end_encoding(encoder);
    assert_int_equal(world_run(command), COMPLETED);
    for (uint32_t i = 0; i < 16; i++) {
        assert_int_equal(words[i], i + (i < 8 ? 1 : 2));
    }
    release(buffer);
    release(pipeline);
}

static void bytes_and_threadgroup_memory_reach_the_kernel(void **state)
{
    world *w = *state;
    float by[4] = {3};
    id pipeline = world_pipeline(w, "scale");
    id from = device_buffer(w->device, 64, SHARED);
    id to = device_buffer(w->device, 64, SHARED);
    ((float *)buffer_contents(from))[1] = 2;
    id command = queue_command(w->queue);
    id encoder = command_compute(command);
    compute_pipeline(encoder, pipeline);
    compute_buffer(encoder, from, 4, 0);
    compute_buffer(encoder, to, 8, 1);
    compute_bytes(encoder, by, sizeof by, 2);
    compute_local(encoder, 16, 0);
    compute_dispatch(encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
    end_encoding(encoder);
    by[0] = 100; /* copied before */
    release(pipeline);
    assert_int_equal(world_run(command), COMPLETED);
    assert_true(((const float *)buffer_contents(to))[2] == 6);
    release(to);
    release(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        world_test(text_that_compiles_is_accepted),
        world_test(unbalanced_text_is_refused),
        world_test(an_error_directive_is_refused),
        world_test(dropped_branches_do_not_count),
        world_test(unknown_names_are_refused),
        world_test(unknown_attributes_are_refused),
        world_test(parameters_that_no_kernel_can_have_are_refused),
        world_test(a_kernel_has_31_buffers_at_most),
        world_test(long_and_deep_text_is_read),
        world_test(text_that_is_not_utf8_makes_no_string),
        world_test(functions_are_found_by_name),
        world_test(reflection_reads_the_signature),
        world_test(sizes_are_those_of_the_language),
        world_test(a_parameter_is_used_by_its_own_kernel_only),
        world_test(parameters_without_attributes_take_the_free_indices),
        world_test(registered_bindings_tell_what_the_text_does_not),
        world_test(bindings_of_another_text_are_refused),
        world_test(a_kernel_without_a_function_makes_no_pipeline),
        world_test(a_texture_is_reflected_but_not_bound),
        world_test(an_unused_parameter_need_not_be_bound),
        world_test(pipelines_are_limited_by_kernel_and_device),
        world_test(reflection_comes_only_when_asked_for),
        world_test(a_kernel_runs_over_its_grid),
        world_test(bytes_and_threadgroup_memory_reach_the_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
